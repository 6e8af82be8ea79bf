"""Closing anything under live views never crashes the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from proof import KIT, figure

MakeChannel = Callable[..., Any]
START = """
import gc, sys
sys.path.append({kit!r})
import numpy as np
from channel_kit import add, attach_channel
made = attach_channel({name!r})
"""
CASES = {
    "control": "view = made.control.bytes[:64]; made.control.close(); gc.collect(); print(bytes(view)[:1])",
    "control twice": "made.control.close(); made.control.close(); del made; gc.collect(); print('x')",
    "ring": """
from tandem.shared.memory.arrays import SharedArray
ring = SharedArray(made.name, "ring0", made.records.record, made.control.get("capacity"))
row, words, raw = ring.array[1:3], ring.words[1], ring.raw[4096:8000]
ring._memory.close()
ring._memory.close()
del ring; gc.collect()
row["version"][0] = 7
print(int(words[3]), bytes(raw[:2]))
""",
    "samples outlive their reader": """
lane = made.claim()
for stamp in range(20):
    add(lane, stamp)
rows = made.reader().sample(8); kept = rows["observation"]
lane.release(); made.control.close(); del made, lane; gc.collect()
print(float(kept.sum()) >= 0)
""",
    "slots": """
slots = made.slots(); view = slots.data[1][8:16]; made.control.close()
del slots, made; gc.collect(); view.fill_(3); print(int(view[0]))
""",
    "lane after control": """
lane = made.claim(); add(lane, 1); lane.release(); lane.release(); made.control.close(); gc.collect(); print("x")
""",
}
MUTANT = """
from multiprocessing.shared_memory import SharedMemory
from multiprocessing import resource_tracker
resource_tracker.register = lambda *_: None
shared = SharedMemory("tandem." + made.name + ".ring0")
rows = np.ndarray((100,), np.uint64, buffer=shared.buf)
shared.close()
print(rows[3])
"""


def status_of(name: str, code: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", START.format(kit=str(KIT), name=name) + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_promise_23_closing_never_crashes(channel: MakeChannel) -> None:
    """Views go on working, whatever was closed before them; no signal ends the process, also at its exit."""
    code = "".join(
        f"\nprint({case!r}, flush=True)\nmade = attach_channel(made_name)\n{body}" for case, body in CASES.items()
    )
    status, output = status_of(channel().name, "made_name = made.name" + code)
    assert status == 0, output
    figure(23, f"0 signals in {len(CASES)} cases")


def test_closing_under_a_plain_array_crashes(channel: MakeChannel) -> None:
    """The same access to a closed plain SharedMemory ends the process by a signal."""
    status, _ = status_of(channel().name, MUTANT)
    assert status in (-11, -7)
