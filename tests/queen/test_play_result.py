"""The figures of a simulated game."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.queen.play_result import RewardLog, Tally


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=200))
def test_quarters_are_exact_while_nothing_was_merged(rewards: list[float]) -> None:
    """The first and the last quarter are means of a quarter of the rewards in order of arrival."""
    log = RewardLog()
    for reward in rewards:
        log.add(reward)
    quarter = len(rewards) // 4
    first, last = log.quarters()
    assert first == pytest.approx(sum(rewards[:quarter]) / quarter, abs=1e-9)
    assert last == pytest.approx(sum(rewards[-quarter:]) / quarter, abs=1e-9)


@pytest.mark.parametrize("count", [1, 7, 64, 65, 129, 1000, 4097])
def test_long_games_need_no_more_memory(count: int) -> None:
    """Merged blocks keep every reward: a constant one has its value as mean, a rise is seen."""
    constant, rising = RewardLog(blocks=64), RewardLog(blocks=64)
    for index in range(count):
        constant.add(0.5)
        rising.add(index / count)
    assert constant.quarters() == pytest.approx((0.5, 0.5))
    assert len(constant._sums) <= 64
    first, last = rising.quarters()
    assert first is not None
    assert last is not None
    if count >= 100:
        assert first == pytest.approx(0.125, abs=0.1)
        assert last == pytest.approx(0.875, abs=0.1)


def test_result_of_a_game_without_decisions() -> None:
    """What was not measured is null, and the result is ready for JSON."""
    result = Tally().result()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["latency_ms"] == {"p50": None, "p99": None}
    assert result.mean_reward == {"first_quarter": None, "last_quarter": None}
    assert result.model_version == {"first": None, "last": None}


def test_figures_reconcile() -> None:
    """Versions, latency and errors are those that were counted."""
    tally = Tally()
    for step in range(100):
        tally.reply({"modelVersion": 5 + step, "lastReward": None if step == 0 else 0.25}, (step + 1) / 1000)
        tally.send += 1
    tally.error("timeouts")
    tally.error("out_of_order")
    result = tally.result([0.5, 1.0])
    assert result.model_version == {"first": 5, "last": 104}
    assert result.latency_ms == {"p50": 51.0, "p99": 100.0}
    assert result.mean_reward == {"first_quarter": 0.25, "last_quarter": 0.25}
    assert (result.errors, result.decisions, result.mining_share) == (2, 100, 0.75)
