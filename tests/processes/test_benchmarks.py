"""The scripts that print the figures of the documents still run, at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def printed(*words: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / words[0]), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_learning_plays_every_arm() -> None:
    """Each arm of `ctl bench learning` has a mean reward that is a number."""
    found = printed("learning.py", "--json", "--scale", "0.02", "--seeds", "1")
    arms = found["arms"]
    assert set(arms) >= {"continuous", "coupled", "random", "oracle"}
    assert all(-2.0 < arm["mean_reward"] < 2.0 for arm in arms.values())


@pytest.mark.timeout(240)
def test_serving_times_every_part_of_a_decision() -> None:
    """`serving.py` finds what it puts its stopwatches around."""
    found = printed("serving.py", "--json", "--quick", "--in-process")
    parts = found["engine_decide_us"]["parts"]
    assert all(parts[name]["p50"] > 0 for name in ("refresh", "features", "reward", "forward", "gate", "record"))


def test_evaluations_cover_the_truth_and_refuse_what_cannot_tell() -> None:
    """`evaluation.py` ends with a summary in which a small world is covered and every unusable log is refused."""
    found = printed("evaluation.py", "common", "--runs", "2", "--sizes", "1000", "--json")
    assert found["refused_all"]
    assert found["least_covered"] >= 0.5


def test_trials_end_as_they_must() -> None:
    """`canary.py`: no trial of the same policy is decided, and all others the right way."""
    assert printed("canary.py", "--runs", "1", "--decisions", "100000", "--json")["met"]
