"""The gate's formulas, decisions and statistics."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem.queen.gate import COMPONENTS, SimulationGate
from tandem.queen.gate_config import GateConfig, GateConfigFile

from tests.queen.conftest import Clock, build_data

ENERGY, COMBAT = 0, 1
CHUNKS = st.lists(st.integers(-1, 410), max_size=15)


def ask(gate: SimulationGate, data: dict[str, Any], chunk: int, kind: int, version: int = 0) -> Any:
    return gate.evaluate(data, (chunk, kind), "key", version)


def parts(verdict: Any) -> dict[str, float]:
    return dict(zip(COMPONENTS, verdict.components, strict=True))


@pytest.mark.parametrize(
    ("distance", "expected"), [(1, 0), (2, 0), (3, 0.393469), (5, 0.776870), (7, 0.917915), (8, 1), (11, 1)]
)
def test_survival_by_distance(distance: int, expected: float) -> None:
    """A protector kills for certain up to its kill range, and is no threat from the safe range on."""
    verdict = ask(SimulationGate(GateConfig()), build_data(protectors=[40 + distance]), 40, ENERGY)
    assert parts(verdict)["survival"] == pytest.approx(expected, abs=1e-6)


def test_threat_jumps_at_the_safe_range() -> None:
    """Just below the safe range a threat remains, although it ends there."""
    data = build_data(protectors=[48])
    assert parts(ask(SimulationGate(GateConfig()), data, 40, ENERGY))["survival"] == 1.0
    config = GateConfig(safe_range=8.01)
    assert parts(ask(SimulationGate(config), data, 40, ENERGY))["survival"] == pytest.approx(1 - math.exp(-3))


def test_protectors_multiply() -> None:
    """Each protector takes its share of the survival, also two in one chunk."""
    verdict = ask(SimulationGate(GateConfig()), build_data(protectors=[43, 43, 45, -1, 400]), 40, ENERGY)
    assert parts(verdict)["survival"] == pytest.approx(0.393469**2 * 0.776870, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "chunk", "kind", "survival", "disruption", "expected"),
    [
        (build_data(present=[50]), 51, ENERGY, 1, 1, 1.098511),
        (build_data(present=[47, 47, 52], protectors=[47]), 47, ENERGY, 0, 0.666667, 0.333333 + 0.2),
        (build_data(present=[47, 47, 52], protectors=[47]), 47, COMBAT, 0, 1, 0.7),
        (build_data(present=[47, 47, 52], protectors=[52]), 47, ENERGY, 0.776870, 1, 1.010748),
        (build_data(present=[47, 47, 52], protectors=[52]), 47, COMBAT, 0.776870, 1, 1.010748),
        (build_data(protectors=[52], hive=136), 47, COMBAT, 0.776870, 1, 0.799752 + 0.2),
        (build_data(), 210, ENERGY, 1, 0, 0.6),
    ],
)
def test_worked_examples(
    data: dict[str, Any], chunk: int, kind: int, survival: float, disruption: float, expected: float
) -> None:
    """The worked examples, with the full exploration bonus, come out as documented."""
    verdict = ask(SimulationGate(GateConfig()), data, chunk, kind)
    assert parts(verdict)["survival"] == pytest.approx(survival, abs=1e-6)
    assert parts(verdict)["disruption"] == pytest.approx(disruption, abs=1e-6)
    assert parts(verdict)["exploration"] == pytest.approx(0.2)
    assert verdict.expected_reward == pytest.approx(expected, abs=1.1e-6)


def test_reward_equal_to_the_threshold_waits() -> None:
    """An empty map reaches the threshold and no more: it waits, although 0.4 + 0.2 is above 0.6 in floats."""
    gate = SimulationGate(GateConfig())
    verdict = ask(gate, build_data(), 210, ENERGY)
    assert (verdict.send, verdict.reason) == (False, "negative_reward")
    verdict = ask(gate, build_data(present=[50]), 51, ENERGY)
    assert (verdict.send, verdict.reason) == (True, "positive_reward")


@pytest.mark.parametrize(
    ("kind", "energy", "affordable"), [(0, 15, True), (0, 14.99, False), (1, 25, True), (1, 24, False)]
)
def test_unaffordable_is_minus_infinity(kind: int, energy: float, affordable: bool) -> None:
    """Equality with the cost suffices; below it the reward is -inf and the reason says so."""
    verdict = ask(SimulationGate(GateConfig()), build_data(present=[50], queen=energy), 50, kind)
    if affordable:
        assert verdict.send
    else:
        assert (verdict.send, verdict.reason, verdict.expected_reward) == (False, "insufficient_energy", -math.inf)


def test_disabled_gate_sends_everything() -> None:
    """A disabled gate sends with reward 0 and no components, even what cannot be paid."""
    gate = SimulationGate(GateConfig(gate_enabled=False))
    verdict = ask(gate, build_data(queen=0), 3, COMBAT)
    assert (verdict.send, verdict.reason, verdict.expected_reward) == (True, "gate_disabled", 0.0)
    assert verdict.components == ()
    assert gate.evaluate_many(build_data(queen=0), [3, 4], [0, 1]).send.all()
    json.dumps(gate.statistics(), allow_nan=False)


@pytest.mark.parametrize("chunk", [-1, 400, 10**9])
def test_invalid_chunk_waits(chunk: int) -> None:
    """A chunk outside the grid has survival and disruption 0, location -1 and no bonus."""
    verdict = ask(SimulationGate(GateConfig()), build_data(present=[50]), chunk, ENERGY)
    assert parts(verdict) == {"survival": 0.0, "disruption": 0.0, "location": -1.0, "exploration": 0.0}
    assert (verdict.send, verdict.reason) == (False, "negative_reward")


def test_location_of_an_idle_map() -> None:
    """With no workers placed the hive counts; if it is unknown nothing does, and workers elsewhere do not help."""
    gate = SimulationGate(GateConfig())
    far = -0.3 * math.hypot(10, 10) / math.hypot(19, 19)
    assert parts(ask(gate, build_data(hive=210), 0, ENERGY))["location"] == pytest.approx(far)
    assert parts(ask(gate, build_data(hive=210, present=[-1]), 0, ENERGY))["location"] == pytest.approx(far)
    assert parts(ask(gate, build_data(hive=None), 0, ENERGY))["location"] == 0.0
    near = parts(ask(gate, build_data(hive=None, present=[1]), 0, ENERGY))["location"]
    assert near == pytest.approx(-0.4 / math.hypot(19, 19))


def test_ranges_are_strict() -> None:
    """A worker at exactly the pursuit range is out of reach."""
    gate = SimulationGate(GateConfig())
    assert parts(ask(gate, build_data(present=[46]), 40, ENERGY))["disruption"] == 0.0
    assert parts(ask(gate, build_data(present=[45]), 40, ENERGY))["disruption"] == 1.0
    assert parts(ask(gate, build_data(present=[47]), 40, COMBAT))["disruption"] == 1.0
    guarded = build_data(present=[40], protectors=[41, 40, 40])
    assert parts(ask(gate, guarded, 40, ENERGY))["disruption"] == -1.0


def test_older_disruption_formula() -> None:
    """In decay mode disruption is survival times the decaying sum over the workers, not normalised."""
    gate = SimulationGate(GateConfig(disruption_mode="decay"))
    data = build_data(present=[40, 41, 45, 51], protectors=[43])
    expected = (1 - math.exp(-0.5)) * (2 + math.exp(-0.3 * 2))
    for kind in (ENERGY, COMBAT):
        assert parts(ask(gate, data, 40, kind))["disruption"] == pytest.approx(expected)
    assert gate.evaluate_many(data, [40], [0]).disruption[0] == pytest.approx(expected)


def test_used_chunk_loses_its_bonus_until_it_is_undone(clock: Clock) -> None:
    """A sent spawn takes the chunk's bonus for its territory; a failed one gives it back."""
    gate = SimulationGate(GateConfig(), clock)
    data = build_data(present=[50])
    gate.sent("key", (51, ENERGY))
    clock.now += 150.0
    assert parts(ask(gate, data, 51, ENERGY))["exploration"] == pytest.approx(0.1)
    assert parts(gate.evaluate(data, (51, ENERGY), "other", 0))["exploration"] == pytest.approx(0.2)
    gate.failed("key", (51, ENERGY))
    assert parts(ask(gate, data, 51, ENERGY))["exploration"] == pytest.approx(0.2)
    assert parts(ask(gate, data, 51, ENERGY, version=5000))["exploration"] == pytest.approx(0.1)
    gate.sent("key", (51, ENERGY))
    gate.forget("key")
    assert parts(ask(gate, data, 51, ENERGY))["exploration"] == pytest.approx(0.2)


@settings(max_examples=150, deadline=None)
@given(
    present=CHUNKS,
    protectors=CHUNKS,
    hive=st.integers(-1, 410),
    queen=st.sampled_from([0.0, 15.0, 20.0, 25.0, 100.0]),
    mode=st.sampled_from(["counts", "decay"]),
    axis=st.sampled_from([1, 2, 16, 20]),
    version=st.integers(0, 50_000),
    chunks=st.lists(st.integers(-2, 410), min_size=1, max_size=20),
    used=st.lists(st.integers(0, 399), max_size=5),
)
def test_both_paths_agree(
    present: list[int],
    protectors: list[int],
    hive: int,
    queen: float,
    mode: str,
    axis: int,
    version: int,
    chunks: list[int],
    used: list[int],
) -> None:
    """The vectorised path gives for every candidate what the fast path gives for one."""
    clock = Clock()
    gate = SimulationGate(GateConfig(disruption_mode=mode, chunks_per_axis=axis), clock)
    for chunk in used:
        gate.sent("key", (chunk, 0))
        clock.now += 50.0
    data = build_data(present=present, protectors=protectors, hive=hive, queen=queen)
    candidates = [chunk for chunk in chunks for _ in range(2)]
    types = [0, 1] * len(chunks)
    many = gate.evaluate_many(data, candidates, types, "key", version)
    for index, action in enumerate(zip(candidates, types, strict=True)):
        one = gate.evaluate(data, action, "key", version)
        assert one.send == many.send[index]
        assert one.expected_reward == pytest.approx(many.expected_reward[index], abs=1e-9)
        assert (one.reason == "insufficient_energy") == (not many.affordable[index])
        row = (many.survival[index], many.disruption[index], many.location[index], many.exploration[index])
        assert one.components == pytest.approx(row, abs=1e-9)


def test_all_candidates_at_once() -> None:
    """All chunks and both types are evaluated in one call of the right shape."""
    gate = SimulationGate(GateConfig())
    data = build_data(present=[47, 47, 52], protectors=[60])
    many = gate.evaluate_many(data, [chunk for chunk in range(400) for _ in (0, 1)], [0, 1] * 400)
    assert many.expected_reward.shape == (800,)
    assert gate.statistics()["metrics"]["lifetime"]["total_evaluations"] == 0
    best = int(many.expected_reward.argmax()) // 2
    assert parts(ask(gate, data, best, ENERGY))["disruption"] == 1.0


def test_statistics(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Lifetime, rolling, recent, thinking-loop and exploration figures reconcile with what was decided."""
    gate = SimulationGate(GateConfig(), clock)
    for _ in range(3):
        assert ask(gate, build_data(present=[50]), 50, ENERGY).send
        gate.sent("key", (50, ENERGY))
        gate.forget("key")
    gate.sent("key", (50, ENERGY))
    clock.now += 7.0
    for _ in range(8):
        ask(gate, build_data(), 210, ENERGY)
    for _ in range(4):
        ask(gate, build_data(queen=3), 210, ENERGY)
    gate.rewarded(0.25)
    statistics = gate.statistics()
    json.dumps(statistics, allow_nan=False)
    assert set(statistics) == {"exploration", "metrics", "thinking_loop"}
    lifetime = statistics["metrics"]["lifetime"]
    rolling = statistics["metrics"]["rolling"]
    assert lifetime == {
        "total_evaluations": 15,
        "total_sends": 3,
        "total_waits": 12,
        "pass_rate": 0.2,
        "insufficient_energy_count": 4,
        "cumulative_expected_reward": pytest.approx(3 * 1.1 + 8 * 0.6),
        "cumulative_actual_reward": 0.25,
        "uptime_seconds": 7.0,
    }
    assert (rolling["window_size"], rolling["pass_rate"]) == (15, 0.2)
    assert rolling["average_expected_reward"] == pytest.approx((3 * 1.1 + 8 * 0.6) / 11)
    assert set(rolling["average_components"]) == set(COMPONENTS)
    assert rolling["average_components"]["survival"] == 1.0
    assert statistics["metrics"]["recent"] == {"time_since_last_action": 7.0, "wait_streak": 12}
    assert statistics["thinking_loop"] == {
        "observations_since_last_action": 12,
        "total_gate_evaluations": 15,
        "gate_passes": 3,
    }
    assert statistics["exploration"]["explored_chunks"] == 1
    assert len([record for record in caplog.records if "WAIT 10 times" in record.message]) == 1
    gate.clear()
    cleared = gate.statistics()
    assert cleared["metrics"]["lifetime"]["total_evaluations"] == cleared["exploration"]["explored_chunks"] == 0
    assert cleared["metrics"]["rolling"]["average_expected_reward"] is None


def test_rolling_window_is_bounded() -> None:
    """Rolling figures cover the last hundred decisions only."""
    gate = SimulationGate(GateConfig())
    for _ in range(150):
        ask(gate, build_data(), 210, ENERGY)
    for _ in range(100):
        ask(gate, build_data(present=[50]), 50, ENERGY)
    rolling = gate.statistics()["metrics"]["rolling"]
    assert (rolling["window_size"], rolling["pass_rate"]) == (100, 1.0)


def test_threads_lose_no_count() -> None:
    """Decisions on several threads are all counted."""
    gate = SimulationGate(GateConfig())
    data = build_data(present=[50])

    def decide() -> None:
        for step in range(500):
            ask(gate, data, step % 400, ENERGY)
            gate.sent(threading.get_ident(), (step % 400, ENERGY))

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gate.statistics()["metrics"]["lifetime"]["total_evaluations"] == 2000


def test_hot_reload_keeps_state(tmp_path: Path, clock: Clock) -> None:
    """A changed file takes effect at the next decision after the interval; exploration and statistics stay."""
    path = tmp_path / "gate.yaml"
    path.write_text("reward_threshold: 0.6\n")
    gate = SimulationGate(GateConfigFile(path, clock), clock)
    data = build_data(present=[50])
    assert ask(gate, data, 50, ENERGY).send
    gate.sent("key", (50, ENERGY))
    path.write_text("reward_threshold: 5.0\nkill_range: 3.0\n")
    assert ask(gate, data, 50, ENERGY).send
    clock.now += 6.0
    verdict = ask(gate, data, 50, ENERGY)
    assert not verdict.send
    assert parts(verdict)["exploration"] == pytest.approx(0.2 * 6 / 300)
    assert parts(ask(gate, build_data(protectors=[43]), 40, ENERGY))["survival"] == 0.0
    assert gate.statistics()["metrics"]["lifetime"]["total_evaluations"] == 4
