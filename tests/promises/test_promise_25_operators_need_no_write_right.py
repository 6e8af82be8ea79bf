"""Another user with read permission reads everything and can write nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import add
from proof import figure
from tandem.shared.memory.segments import FOLDER, PREFIX

MakeChannel = Callable[..., Any]
CODE = """
import hashlib, json, os, sys
import numpy as np
from safetensors.numpy import load_file
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import segment_path
name = sys.argv[1]
os.setgid(65534); os.setuid(65534)
found = {}
try:
    control = Control.attach(name, writable=False)
    found["version"] = control.get("version")
    found["records"] = int(np.load(segment_path(name, "ring0"), mmap_mode="r")["sequence"].max())
    found["tensors"] = sorted(load_file(segment_path(name, "weights1")))
except PermissionError:
    found["read"] = "refused"
written = []
try:
    control.set("version", 999)
    written.append("control")
except (TypeError, NameError):
    pass
for part in ("control", "ring0", "pending0", "weights0"):
    try:
        os.close(os.open(segment_path(name, part), os.O_RDWR))
        written.append(part)
    except PermissionError:
        pass
    try:
        os.unlink(segment_path(name, part))
        written.append("removed " + part)
    except PermissionError:
        pass
found["written"] = written
print(json.dumps(found))
"""


@pytest.fixture
def stranger(channel: MakeChannel) -> Callable[[int], Any]:
    """What another user can do to an instance of that mode."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")

    def look(mode: int) -> Any:
        made = channel(mode=mode)
        made.publish(made.publisher(), 1)
        add(made.claim(), 1)
        assert all(
            os.stat(os.path.join(FOLDER, entry)).st_mode & 0o777 == mode
            for entry in os.listdir(FOLDER)
            if entry.startswith(f"{PREFIX}{made.name}.")
        )
        done = subprocess.run(
            [sys.executable, "-c", CODE, made.name], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert made.control.get("version") == 1
        return json.loads(done.stdout)

    return look


def test_promise_25_operators_need_no_write_right(stranger: Callable[[int], Any]) -> None:
    """Counters, records and weights are read through read-only maps; every way of writing is refused."""
    assert stranger(0o644) == {"version": 1, "records": 1, "tensors": ["words"], "written": []}
    figure(25, "reads work, writes refused (another uid, mode 0644)")


def test_promise_25_by_default_others_see_nothing(stranger: Callable[[int], Any]) -> None:
    """Mode 0600 keeps other users out altogether."""
    assert stranger(0o600) == {"read": "refused", "written": []}


def test_a_writable_instance_is_found(stranger: Callable[[int], Any]) -> None:
    """The same attempts succeed on segments that others may write."""
    assert stranger(0o666)["written"]
