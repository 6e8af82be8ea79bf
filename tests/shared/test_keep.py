"""What an instance learned from survives a stop: ring, pending decisions, counters and weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.shared.experience import Experience
from tandem.shared.instance import Instance, create_instance
from tandem.shared.keep import keep, kept_version
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.segments import remove_instance
from tandem.shared.weights import Publisher


def filled(instance: Instance) -> ExperienceReplayBuffer:
    buffer = ExperienceReplayBuffer(instance)
    for number in range(300):
        buffer.add(Experience(np.full(4, number, np.float32), 1, 0, 0.5, "WAIT", 0.1, timestamp=1.0))
    buffer.add(Experience(np.ones(4, np.float32), 2, 1, 0.5, "SEND", 0.1, timestamp=1.0, territory_id="home"))
    return buffer


def stop(buffer: ExperienceReplayBuffer) -> Path:
    buffer.close()
    folder = buffer.instance.data_dir / "kept"
    keep(buffer.control, folder)
    remove_instance(buffer.instance.name)
    return folder


def test_a_stop_keeps_everything(toy_instance: Callable[..., Any]) -> None:
    """After keep and a new creation the records, the pending decision, the counts and the weights are back."""
    first = toy_instance()
    buffer = filled(first)
    flat = first.build_model()
    Publisher(first.open_slots(flat.layout)).publish(flat.flat, 7)
    before = buffer.get_stats()
    records = buffer.reader.recent(500)
    assert kept_version(stop(buffer)) == 7
    create_instance(first.name, first.config)
    again = ExperienceReplayBuffer(Instance(first.name))
    _ = again.lane
    assert again.get_stats() == before
    assert again.reader.recent(500).tobytes() == records.tobytes()
    assert again.control.get("version") == 7
    slots = again.instance.open_slots(flat.layout)
    assert torch.equal(slots.data[7 % slots.count], flat.flat)
    assert again.update_pending_reward("home", 0.5) is not None


def test_fresh_starts_empty(toy_instance: Callable[..., Any]) -> None:
    """`fresh` leaves what was kept aside."""
    first = toy_instance()
    stop(filled(first))
    create_instance(first.name, first.config, fresh=True)
    assert ExperienceReplayBuffer(Instance(first.name)).get_stats()["size"] == 0


def test_another_layout_starts_empty_and_says_why(
    toy_instance: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What was kept with another capacity is not half-restored."""
    first = toy_instance()
    stop(filled(first))
    trainer = dataclasses.replace(first.config.trainer, buffer_capacity=128)
    with caplog.at_level(logging.ERROR):
        create_instance(first.name, dataclasses.replace(first.config, trainer=trainer))
    assert "another capacity" in caplog.text
    assert ExperienceReplayBuffer(Instance(first.name)).get_stats()["size"] == 0
