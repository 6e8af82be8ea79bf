"""An unrelated process attaches, exits, and everything is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from channel_kit import add, attach_channel, wrong_rows
from proof import KIT, figure
from tandem.shared.memory.segments import list_segments, segment_name

MakeChannel = Callable[..., Any]
ATTACH = """
import sys
sys.path.append({kit!r})
from channel_kit import attach_channel
from tandem.shared.weights.subscriber import Look
made = attach_channel({name!r})
rows = made.reader().recent(10)
subscriber = made.subscriber()
assert subscriber.refresh(made.room()) is Look.TAKEN
assert len(rows) == 3
{ending}
"""
TRACKED = """
from multiprocessing.shared_memory import SharedMemory
SharedMemory({segment!r})
"""


def interpreters() -> list[str]:
    """This interpreter, and every other supported one on the path that can import what Tandem needs."""
    found = [sys.executable]
    for minor in range(10, 14):
        for folder in os.get_exec_path():
            path = os.path.join(folder, f"python3.{minor}")
            if os.access(path, os.X_OK) and not os.path.samefile(path, sys.executable):
                probe = subprocess.run([path, "-c", "import torch, tandem"], capture_output=True, check=False)
                if probe.returncode == 0:
                    found.append(path)
    return found


def exit_of(code: str, executable: str = sys.executable) -> tuple[int, str]:
    """Status and standard error of an unrelated process."""
    done = subprocess.run(
        [executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "import os; os._exit(0)", "import os; os.abort()"])
def test_promise_15_an_attachers_exit_destroys_nothing(channel: MakeChannel, ending: str) -> None:
    """However it exits, all segments survive with their contents, and it says nothing on standard error."""
    made = channel()
    lane = made.claim()
    for stamp in (1, 2, 3):
        add(lane, stamp)
    before = list_segments(made.name)
    for executable in interpreters():
        status, errors = exit_of(ATTACH.format(kit=str(KIT), name=made.name, ending=ending), executable)
        assert status == {"": 0, "raise SystemExit(3)": 3, "import os; os._exit(0)": 0}.get(ending, -6)
        assert errors == ""
    assert list_segments(made.name) == before
    rows = attach_channel(made.name).reader().recent(10)
    assert rows["version"].tolist() == [1, 2, 3]
    assert wrong_rows(rows) == 0
    figure(15, f"survives, silent, {len(interpreters())} interpreter(s), four ways of exiting")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the resource tracker can be told from 3.13 on")
def test_an_ordinary_attachment_destroys_the_segment(channel: MakeChannel) -> None:
    """The same exit of a plain SharedMemory attachment removes the file."""
    made = channel()
    exit_of(TRACKED.format(segment=segment_name(made.name, "ring0")))
    assert not Path("/dev/shm", segment_name(made.name, "ring0")).exists()
