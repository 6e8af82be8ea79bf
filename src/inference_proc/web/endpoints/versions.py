"""What the decisions of each version earned, from the experiences that are still in the rings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....shared.experiences.records import SEND


def rewards_by_version(rows: NDArray[Any], since: int, limit: int) -> list[dict[str, float]]:
    """One entry for each of the newest `limit` versions above `since` that decided any of these records, oldest first.

    `rows` are completed records (structured [n]). `decisions` and `sent` are counts, `pass_rate` is their ratio,
    `actual_reward` the mean over what was sent (NaN: nothing was), `score` the mean over all, a blocked decision
    counting 0, and `expected_reward` the gate's mean expectation.
    """
    rows = rows[rows["version"] > since] if since else rows
    versions, place = np.unique(rows["version"], return_inverse=True)
    sent = rows["decision"] == SEND
    rewards = np.where(sent, rows["actual_reward"], 0.0).astype(np.float64)
    count = len(versions)
    decisions = np.bincount(place, minlength=count)
    passed = np.bincount(place, weights=sent, minlength=count)
    earned = np.bincount(place, weights=rewards, minlength=count)
    expected = np.bincount(place, weights=rows["expected_reward"].astype(np.float64), minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "version": versions.astype(np.int64),
            "decisions": decisions,
            "sent": passed.astype(np.int64),
            "pass_rate": passed / decisions,
            "actual_reward": earned / passed,
            "score": earned / decisions,
            "expected_reward": expected / decisions,
        }
    names = list(columns)
    newest = zip(*(column[-limit:].tolist() for column in columns.values()), strict=True) if limit else ()
    return [dict(zip(names, values, strict=True)) for values in newest]
