"""What `ctl doctor` finds."""

from __future__ import annotations

import dataclasses
import os
import socket

import pytest
from tandem.shared.configuration.config import Config, InferenceConfig
from tandem.shared.memory.control import Control
from tandem.supervisor.setup import doctor


def test_a_taken_port_is_found() -> None:
    """A port that somebody listens on is bad, and the remedy names the option."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(inference=InferenceConfig(port=taken.getsockname()[1]))
        (finding,) = doctor._port("nobody", config)
    assert finding.level == "bad"
    assert "--port" in finding.remedy


def test_too_little_shared_memory_is_found(instance_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that needs more than is free is bad; the remedy names the size to ask for."""
    monkeypatch.setattr(doctor, "needed", lambda path: 1 << 60)
    findings = list(doctor._shared_memory(instance_name, None))
    assert findings[-1].level == "bad"
    assert "--shm-size" in findings[-1].remedy
    monkeypatch.setattr(doctor, "needed", lambda path: 4096)
    assert list(doctor._shared_memory(instance_name, None))[-1].level == "ok"


def test_segments_of_the_dead_are_found(instance_name: str) -> None:
    """A dead instance is named, with the command that removes it."""
    control = Control.create(instance_name, {"lanes": 1}, {})
    control.finish()
    control.close()
    (finding,) = doctor._stale()
    assert finding.level == "warn"
    assert instance_name in finding.text
    assert finding.remedy == "ctl clean"


def test_an_unwritable_data_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder below one that cannot be written to is bad."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/proc" and real(path, mode))
    config = dataclasses.replace(Config(), data_dir="/proc/nowhere")
    assert [finding.level for finding in doctor._permissions(config)] == ["bad"]
