"""An instance: all segments or none, and everything follows from its name."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tandem.shared import instance as module
from tandem.shared.configuration.config import parse
from tandem.shared.errors import ApplicationError, LayoutMismatch, ModelMismatch, SegmentExists, TandemError
from tandem.shared.instance import Instance, create_instance
from tandem.shared.memory.segments import create, list_segments
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.subscriber import Look, Subscriber

MakeInstance = Callable[..., Any]


def config_for(application: str, tmp_path: Path, **sections: Any) -> Any:
    plain = {"application": application, "data_dir": str(tmp_path / "data"), "trainer": {"buffer_capacity": 32}}
    return parse({**plain, **sections}, "test")


def test_attaching_needs_the_name_only(toy_instance: MakeInstance, tmp_path: Path) -> None:
    """Configuration, layouts, application and data folder come from shared memory."""
    made = toy_instance(trainer={"batch_size": 9}, inference={"lanes": 3})
    other = Instance(made.name)
    assert other.config == made.config
    assert other.config.trainer.batch_size == 9
    assert other.records.schema() == made.records.schema()
    assert other.data_dir == tmp_path / "data" / made.name
    assert other.control.get("lanes") == 3
    assert other.control.get("version") == 0
    other.control.close()


def test_version_0_is_published_with_the_instance(toy_instance: MakeInstance) -> None:
    """The first server has weights before any trainer lives, the same in every process."""
    made = toy_instance()
    flats = []
    for _ in range(2):
        flat = made.build_model()
        flat.flat.zero_()
        assert Subscriber(made.open_slots(flat.layout)).refresh(flat.flat) is Look.TAKEN
        flats.append(flat.flat)
    assert torch.equal(*flats)
    assert flats[0].any()


def test_a_running_instance_is_never_overwritten(toy_instance: MakeInstance) -> None:
    """Creating it again is refused and leaves it as it was."""
    made = toy_instance()
    made.control.set("lane.0.head", 5)
    before = list_segments(made.name)
    with pytest.raises(SegmentExists):
        create_instance(made.name, made.config)
    assert list_segments(made.name) == before
    assert Instance(made.name).control.get("lane.0.head") == 5


def test_a_failed_creation_leaves_nothing(
    instance_name: str, toy_application: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was created before the failure is removed again."""

    def fail(*_: object, **__: object) -> None:
        raise ApplicationError("planted")

    monkeypatch.setattr(module, "create_slots", fail)
    with pytest.raises(ApplicationError, match="planted"):
        create_instance(instance_name, config_for(toy_application, tmp_path))
    assert list_segments(instance_name) == {}


def test_a_failed_creation_leaves_what_was_there_before(
    instance_name: str, toy_application: str, tmp_path: Path
) -> None:
    """A ring of that name that somebody else holds ends the creation and stays."""
    os.close(create(instance_name, "ring1", 4096))
    with pytest.raises(SegmentExists):
        create_instance(instance_name, config_for(toy_application, tmp_path))
    assert list_segments(instance_name) == {instance_name: ["ring1"]}


def test_a_changed_model_is_refused_naming_the_tensor(toy_instance: MakeInstance) -> None:
    """Who attaches with another model learns the first tensor that differs."""
    made = toy_instance()
    with pytest.raises((ModelMismatch, LayoutMismatch), match=r"layer\.bias"):
        made.open_slots(FlatModel(torch.nn.Sequential(torch.nn.Linear(4, 8))).layout)


def test_a_changed_application_is_refused_naming_the_part(
    toy_instance: MakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other features than those of the segments: refused."""
    made = toy_instance()
    original = module.load_application

    def changed(*arguments: Any) -> Any:
        return dataclasses.replace(original(*arguments), features=("a", "b", "c", "e"))

    monkeypatch.setattr(module, "load_application", changed)
    with pytest.raises(LayoutMismatch, match="features"):
        Instance(made.name)


def test_the_command_creates_an_instance(instance_name: str, toy_application: str, tmp_path: Path) -> None:
    """`python -m tandem.shared.instance` is what the supervisor runs; a failure is one message and status 1."""
    plain = {"application": toy_application, "data_dir": str(tmp_path / "data"), "trainer": {"buffer_capacity": 32}}
    command = [sys.executable, "-m", "tandem.shared.instance", "--instance", instance_name, "--folder", str(tmp_path)]

    def create(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)

    first = create(json.dumps(plain))
    assert (first.returncode, first.stderr) == (0, "")
    attached = Instance(instance_name)
    assert (attached.config.trainer.buffer_capacity, attached.config.folder) == (32, str(tmp_path))
    assert attached.data_dir == tmp_path / "data" / instance_name
    attached.control.close()
    for text, message in ((json.dumps(plain), "exists already"), ("no json", "Expecting value")):
        refused = create(text)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_every_error_of_creation_is_a_typed_one(instance_name: str, tmp_path: Path) -> None:
    """A wrong application is told before anything is created."""
    with pytest.raises(TandemError):
        create_instance(instance_name, config_for("no_such_application_x", tmp_path))
    with pytest.raises(ValueError, match="is not a name"):
        create_instance("a/b", config_for("no_such_application_x", tmp_path))
    assert list_segments(instance_name) == {}
