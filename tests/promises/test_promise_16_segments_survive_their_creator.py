"""The creator is killed, and whoever attaches later finds everything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from channel_kit import attach_channel, is_whole, key_of, wrong_rows
from proof import figure, size, wait_for
from tandem.shared.memory.segments import remove_instance, segment_name
from tandem.shared.weights.subscriber import Look


@pytest.mark.timeout(3600)
def test_promise_16_segments_survive_their_creator(instance_name: str, nursery: Any) -> None:
    """Records, pending decisions and weights are there after a kill -9 of the process that made them."""
    trials = size(10, 100)
    for _ in range(trials):
        assert nursery.start("create_and_die", name=instance_name).wait() == -9
        made = attach_channel(instance_name)
        rows = made.reader(verify=True).recent(100)
        assert rows["version"].tolist() == list(range(10))
        assert wrong_rows(rows) == 0
        room, subscriber = made.room(), made.subscriber(verify=True)
        assert subscriber.refresh(room) is Look.TAKEN
        assert subscriber.version == 1
        assert is_whole(room, 1)
        lane = made.claim()
        assert lane.pending.keys() == [key_of("a")]
        lane.release()
        made.control.close()
        remove_instance(instance_name)
    figure(16, f"{trials} of {trials}")


def test_an_ordinary_segment_dies_with_its_creator(instance_name: str, wait_until: Callable[..., Any]) -> None:
    """A plain SharedMemory of a killed creator is removed by its resource tracker."""
    name = segment_name(instance_name, "plain")
    code = (
        "import os; from multiprocessing.shared_memory import SharedMemory;"
        f" SharedMemory({name!r}, create=True, size=4096); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9
    wait_for(lambda: not Path("/dev/shm", name).exists(), "the tracker removed it", 30)
