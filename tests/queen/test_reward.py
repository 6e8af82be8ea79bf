"""The actual reward and its trend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.queen.gate_config import GateConfig
from tandem.queen.reward import QueenReward, RewardTrend

CHUNKS = st.lists(st.integers(-2, 410), max_size=12)


@pytest.fixture
def calculator() -> QueenReward:
    return QueenReward(GateConfig())


@pytest.mark.parametrize(
    ("action", "executed", "expected"), [(None, False, 0.780952), ((48, 0), True, 0.766066), ((48, 0), False, 0.080952)]
)
def test_worked_example(calculator: QueenReward, observe: Any, action: Any, executed: bool, expected: float) -> None:
    """The worked example gives the documented rewards without a decision, executed and skipped."""
    before = observe(mining=[47, 47, 52], present=[47, 47, 52], protectors=[60, 61])
    after = observe(mining=[47], present=[47, 52], protectors=[60], energy=(420, 400), minerals=(80, 70))
    reward, components = calculator.reward(calculator.context(before), action, executed, after)
    assert reward == pytest.approx(expected, abs=1e-6)
    assert components["mining_disruption"] == pytest.approx(2 / 3)
    assert components["protector_reduction"] == pytest.approx(0.5)
    assert components["player_energy_drain"] == pytest.approx(0.047619, abs=1e-6)
    assert components["bonuses"] == pytest.approx(0.35)
    assert "no_impact_penalty" not in components


@pytest.mark.parametrize(("executed", "expected"), [(True, -0.6), (False, -0.1)])
def test_idle_map(calculator: QueenReward, observe: Any, executed: bool, expected: float) -> None:
    """With nobody about, a spawn at the hive costs gating and no-impact penalty, holding back only the latter."""
    idle = observe(energy=(100, 100), minerals=(9, 9))
    reward, components = calculator.reward(calculator.context(idle), (210, 0), executed, idle)
    assert reward == pytest.approx(expected)
    assert components["no_impact_penalty"] == pytest.approx(-0.1)
    assert "spawn_location" not in components


def test_holding_back_costs_more_while_the_player_prospers(calculator: QueenReward, observe: Any) -> None:
    """Held back with miners present: -0.1, -0.6, and half of the rise of energy and of minerals."""
    before = observe(mining=[47], present=[47])
    after = observe(mining=[47], present=[47], energy=(80, 100), minerals=(50, 100))
    _, components = calculator.reward(calculator.context(before), (47, 0), False, after)
    assert components["spawn_gating"] == pytest.approx(-0.7 - 0.5 * 0.2 - 0.5 * 0.5)


def test_distance_is_punished(calculator: QueenReward, observe: Any) -> None:
    """An executed spawn loses by its distance: from the nearest worker, or with nobody present from the hive."""
    before = calculator.context(observe(mining=[47]))
    _, near = calculator.reward(before, (50, 0), True, observe(present=[47, 399, -1]))
    assert near["spawn_location"] == pytest.approx(-0.4 * 3 / 26.8701, abs=1e-5)
    _, far = calculator.reward(before, (0, 0), True, observe(present=[], hive=210))
    assert far["spawn_location"] == pytest.approx(-0.3 * np.hypot(10, 10) / 26.8701, abs=1e-5)
    for lost in (observe(present=[], hive=None), observe(present=[-1])):
        _, components = calculator.reward(before, (0, 0), True, lost)
        assert "spawn_location" not in components


def test_workers_present_without_mining_allow_a_spawn(calculator: QueenReward, observe: Any) -> None:
    """The penalty for spawning into the void needs both: nobody mining and nobody present."""
    for before, expected in ((observe(), -0.5), (observe(present=[-1]), 0.0), (observe(mining=[3], present=[]), 0.0)):
        _, components = calculator.reward(calculator.context(before), (3, 0), True, observe(present=[3]))
        assert components.get("spawn_gating", 0.0) == expected


def test_context_survives_as_bytes(calculator: QueenReward, observe: Any) -> None:
    """What is kept of the earlier observation has a fixed size and gives the same reward after a trip through bytes."""
    before = observe(mining=[0, 7, 8, 399, -1, 400], present=[1], protectors=[3, 3])
    context = calculator.context(before)
    assert context.dtype == calculator.context_dtype
    assert context.shape == ()
    copied = np.frombuffer(context.tobytes(), calculator.context_dtype)[0]
    after = observe(mining=[8], present=[8], protectors=[3])
    assert calculator.reward(copied, (8, 1), True, after) == calculator.reward(context, (8, 1), True, after)
    _, components = calculator.reward(copied, (8, 1), True, after)
    assert components["bonuses"] == pytest.approx(3 * 0.2 + 0.15)


@given(CHUNKS, CHUNKS, CHUNKS, CHUNKS, st.booleans(), st.integers(0, 399))
def test_reward_is_bounded_and_adds_up(
    mined: list[int], mining: list[int], guards: list[int], present: list[int], executed: bool, chunk: int
) -> None:
    """A reward is the weighted sum of its components, clipped to -1..1."""
    from tests.queen.conftest import build_data

    calculator = QueenReward(GateConfig())
    before = calculator.context(build_data(mining=mined, protectors=guards))
    after = build_data(mining=mining, present=present, protectors=guards[1:], energy=(5, 3))
    reward, components = calculator.reward(before, (chunk, 0), executed, after)
    base = 0.4 * components["mining_disruption"] + 0.3 * components["protector_reduction"]
    total = base + 0.3 * components["player_energy_drain"] + components["bonuses"]
    total += sum(components.get(name, 0.0) for name in ("no_impact_penalty", "spawn_gating", "spawn_location"))
    assert reward == pytest.approx(max(-1.0, min(1.0, total)))


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([], "insufficient_data"),
        ([0.1, 0.2], "insufficient_data"),
        ([0.1] * 5, "insufficient_data"),
        ([0.0] * 5 + [0.2] * 5, "improving"),
        ([0.2] * 5 + [0.0] * 5, "declining"),
        ([0.2] * 5 + [0.25] * 5, "stable"),
        ([0.9] * 20 + [0.0] * 5 + [0.2] * 5, "improving"),
        ([0.0, 1.0, 1.0, 1.0, 1.0, 1.0], "improving"),
    ],
)
def test_trend_compares_the_newer_half(rewards: list[float], expected: str) -> None:
    """The trend compares the mean of the last five rewards with that of the up to five before."""
    trend = RewardTrend()
    for reward in rewards:
        trend.add(reward)
    assert trend.trend == expected
