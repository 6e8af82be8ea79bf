"""Rewards find their decision across lanes, by ticket, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tandem.shared.experience import Experience
from tandem.shared.lane import Lane
from tandem.shared.mail import OUTBOX_LETTERS
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.segments import segment_path


def pending(territory: str) -> Experience:
    return Experience(np.ones(4, np.float32), 1, 0, 0.5, "SEND", 0.1, timestamp=1.0, territory_id=territory)


def two_lanes(instance: Any) -> tuple[ExperienceReplayBuffer, ExperienceReplayBuffer]:
    owner, other = ExperienceReplayBuffer(instance), ExperienceReplayBuffer(instance)
    assert owner.lane.index != other.lane.index
    return owner, other


def test_a_reward_is_delivered_once(toy_instance: Callable[..., Any]) -> None:
    """Two rewards for one decision complete it once, with the first."""
    owner, other = two_lanes(toy_instance())
    assert owner.add(pending("x"))
    assert other.update_pending_reward("x", 0.25) is not None
    assert other.update_pending_reward("x", 0.75) is not None
    assert [float(row["actual_reward"]) for row in owner.lane.collect()] == [0.25]
    assert owner.lane.collect() == []
    assert (owner.lane.get("delivered"), owner.lane.get("unmatched")) == (1, 1)
    assert other.update_pending_reward("x", 0.5) is None


def test_a_late_letter_never_rewards_a_newer_decision(toy_instance: Callable[..., Any]) -> None:
    """A letter names a ticket: a newer decision under the same key keeps waiting."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    other.update_pending_reward("x", 0.25)
    owner.add(pending("x"))
    assert owner.lane.collect() == []
    assert owner.lane.get("pending") == 1


def test_letters_outlive_the_owner(toy_instance: Callable[..., Any]) -> None:
    """A reward posted while the owner was dead completes the decision when its lane is claimed again."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    index = owner.lane.index
    owner.close()
    other.update_pending_reward("x", 0.5)
    heir = Lane.claim(owner.control, owner.instance.records)
    assert heir.index == index
    assert (heir.get("pending"), heir.get("delivered"), heir.get("completed")) == (0, 1, 1)
    heir.release()


def test_letters_wrap_around(toy_instance: Callable[..., Any]) -> None:
    """An outbox that was written round keeps the newest letters and says nothing wrong about the oldest."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    entry = other.lane.post.find(b"x")
    assert entry is not None
    for _ in range(OUTBOX_LETTERS + 5):
        other.lane.forward(0xFFFF, 1.0)
    other.lane.forward(int(entry["ticket"]), 0.5)
    assert len(owner.lane.collect()) == 1


def test_a_damaged_letter_is_not_delivered(toy_instance: Callable[..., Any]) -> None:
    """A flipped bit in a letter is noticed."""
    owner, other = two_lanes(toy_instance())
    owner.add(pending("x"))
    other.update_pending_reward("x", 0.5)
    path = segment_path(owner.control.instance, f"mail{other.lane.index}")
    with open(path, "r+b") as file:
        file.seek(4096 + 24)
        byte = file.read(1)[0]
        file.seek(4096 + 24)
        file.write(bytes([byte ^ 1]))
    assert owner.lane.collect() == []
    assert owner.lane.get("pending") == 1
