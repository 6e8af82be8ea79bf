"""`ctl bench bandits` with a made-up set, through the real processes; and that nothing it could not play is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "bandits.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


@pytest.fixture
def report() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _bandit_report as module

        yield module
    finally:
        del sys.path[0]


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    answers = rng.integers(3, size=90)
    path = tmp_path / "small.npz"
    np.savez(path, x=np.eye(3)[answers] + 0.1 * rng.standard_normal((90, 3)), y=answers)
    return path


def test_a_set_is_played_with_every_seed_beside_linucb(small_set: Path) -> None:
    """One object a line: the set with a figure for each arm and seed, the summary, the targets."""
    done = bench("--json", "--sets", str(small_set), "--seeds", "2", "--decisions", "300", "--rate", "150")
    assert done.returncode == 0, done.stderr
    first, second, *lines = map(json.loads, done.stdout.splitlines())
    assert (first["set"], first["decisions"], first["choices"], first["failures"]) == ("small", 300, 3, [])
    assert {len(rewards) for rewards in first["rewards"].values()} == {2}
    assert all(0.0 <= reward <= 1.0 for rewards in first["rewards"].values() for reward in rewards)
    assert first["means"]["linucb"] > 0.6
    assert [play["seed"] for play in first["plays"]] == [0, 1]
    for play in first["plays"]:
        assert play["decisions"] == 300
        assert play["version"] > 0
        assert play["refused_steps"] == 0
        assert play["p99_ms"] > 0
    summary = second["summary"]
    assert (summary["sets"], summary["failures"]) == (1, [])
    assert set(summary["against"]) == {"linucb", "vw-squarecb", "vw-epsilon", "vw-regcbopt"}
    # A peer whose package is not there is named, and has not played.
    assert set(summary["missing_peers"]) == set(summary["against"]) - (set(first["rewards"]) - {"tandem"})
    assert all(set(line) == {"figure", "value", "target", "met"} for line in lines)
    figures = {line["figure"]: line for line in lines}
    assert figures["refused steps"]["met"] is True
    assert {"mean ratio to the best peer", "lowest ratio", "sign test against vw-squarecb"} <= set(figures)


def test_every_scenario_is_learned_at_a_small_size() -> None:
    """A share for each, between a choice by chance and the best, and its target; what disturbs is survived."""
    words = ("--scenario", "delayed", "noisy-clicks", "poisoned", "restart", "burst", "slow-drift")
    done = bench("--json", *words, "--decisions", "1500", "--speed", "4")
    assert done.returncode == 0, done.stderr
    lines = list(map(json.loads, done.stdout.splitlines()))
    for found, goal in zip(lines[::2], lines[1::2], strict=True):
        (play,) = found["seeds"]
        assert play["no_learning"] < play["mean_chance"] < play["oracle"], found["scenario"]
        assert play["share"] > (0.15 if found["scenario"] == "noisy-clicks" else 0.4), found
        assert len(play["parts"]) == 20
        assert play["play"]["refused_steps"] == play["play"]["honest_refused"] == 0
        assert set(goal) == {"figure", "value", "target", "met"}


def test_a_shop_that_reports_only_successes_learns() -> None:
    """`default_reward: 0` is all that is set. Without it everybody seems to click, and nothing is learned (0.02)."""
    done = bench("--json", "--scenario", "censored", "--speed", "4", "--decisions", "1600")
    assert done.returncode == 0, done.stderr
    (play,) = json.loads(done.stdout.splitlines()[0])["seeds"]
    assert play["play"]["defaulted"] > 100
    assert play["share"] > 0.4


def test_a_set_that_is_not_there_is_refused() -> None:
    """By name, and nothing is played."""
    done = bench("--sets", "nowhere.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no set 'nowhere.npz'" in done.stderr


def test_a_seed_that_failed_is_named_and_fails_the_targets(report: Any) -> None:
    """What a set lacks is no figure of it, stands in the summary, and no mean without it counts as met."""
    results = []
    for name, rewards in (("whole", [1.0, 1.0]), ("broken", [1.0, None])):
        result = report.Result(name, 1, 1, 2, {})
        result.add("linucb", [np.ones(4), np.ones(4)])
        result.add(report.TANDEM, [None if reward is None else np.full(4, reward) for reward in rewards])
        result.failures += ["tandem, seed 1: why"] if None in rewards else []
        results.append(result)
    assert [result.ratio for result in results] == [1.0, None]
    whole, found = (report.summary(part, {}, {}) for part in (results[:1], results))
    assert found["failures"] == ["broken: tandem, seed 1: why"]
    name = "mean ratio to the best peer"
    verdicts = [{line["figure"]: line["met"] for line in report.targets(one)}[name] for one in (whole, found)]
    assert verdicts == [True, False]


def test_the_sign_test(report: Any) -> None:
    """Two-sided, exact: 9 of 10 have p = 22/1024; none at all says nothing."""
    assert report.sign_test(9, 1) == pytest.approx(22 / 1024)
    assert report.sign_test(0, 0) == 1.0
    assert report.sign_test(5, 5) == 1.0


def test_choices_are_compared_in_simulated_time() -> None:
    """`ctl bench choices`: one row for each, and what is installed goes most of the way where much is noise."""
    words = ("--json", "--seeds", "1", "--scenarios", "noisy-clicks", "--choices", "as installed", "the network alone")
    command = [sys.executable, str(BENCHMARKS / "choices.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=True)
    installed, network = map(json.loads, done.stdout.splitlines())
    assert (installed["choice"], network["choice"]) == ("as installed", "the network alone")
    assert installed["shares"]["noisy-clicks"][0] > 0.7
    assert network["shares"]["noisy-clicks"][0] < installed["shares"]["noisy-clicks"][0] - 0.05
