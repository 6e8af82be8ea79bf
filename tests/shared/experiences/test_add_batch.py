"""Many records at once are stored like the same records one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tandem.shared.replay import ExperienceReplayBuffer


def rows_of(buffer: ExperienceReplayBuffer, count: int) -> np.ndarray[Any, Any]:
    rows = np.zeros(count, buffer.instance.records.record)
    rows["timestamp"] = np.arange(count)
    rows["version"] = np.arange(count)
    rows["actual_reward"] = math.nan
    rows["probability"] = 0.5
    rows["key"] = [f"k{index}".encode() for index in range(count)]
    return rows


@pytest.mark.parametrize("count", [1, 7, 256, 700])
def test_a_batch_is_stored_whole(toy_instance: Callable[..., Any], count: int) -> None:
    """Blocked and rewarded records enter the ring in order; the counts agree; every row's checksum is right."""
    buffer = ExperienceReplayBuffer(toy_instance())
    rows = rows_of(buffer, count)
    rows["actual_reward"][::2] = 0.5
    rows["decision"][::2] = 1
    assert buffer.add_batch(rows) == count
    buffer.reader.verify = True
    recent = buffer.reader.recent(1000)
    assert recent["version"].tolist() == list(range(max(0, count - 256), count))
    stats = buffer.get_stats()
    assert (stats["decided"], stats["completed"], stats["send_count"]) == (count, count, (count + 1) // 2)
    assert stats["overwritten"] == max(0, count - 256)


def test_what_waits_is_pending_and_what_is_not_finite_rejected(toy_instance: Callable[..., Any]) -> None:
    """SEND without a reward waits under its key; NaN is rejected and counted; the rest is stored."""
    buffer = ExperienceReplayBuffer(toy_instance())
    rows = rows_of(buffer, 4)
    rows["decision"][1] = 1
    rows["observation"][2, 3] = math.inf
    rows["probability"][3] = math.nan
    assert buffer.add_batch(rows) == 2
    stats = buffer.get_stats()
    assert (stats["size"], stats["pending_count"], stats["rejected"], stats["decided"]) == (1, 1, 2, 4)
    completed = buffer.update_pending_reward("k1", 0.25)
    assert completed is not None
    assert completed.actual_reward == 0.25


def test_another_dtype_is_refused(toy_instance: Callable[..., Any]) -> None:
    """Rows of another layout are refused by name."""
    buffer = ExperienceReplayBuffer(toy_instance())
    with pytest.raises(TypeError, match="dtype"):
        buffer.add_batch(np.zeros(3, np.float32))
