"""Parsing observations in both dialects."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.queen.features import FeatureEncoder
from tandem.queen.gate import SimulationGate
from tandem.queen.gate_config import GateConfig
from tandem.queen.observation import ObservationError, as_observation, parse_observation, rate
from tandem.queen.reward import QueenReward

REQUIRED = ("timestamp", "miningWorkers", "protectors", "queenEnergy", "playerEnergy", "territoryId")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
ENTITY = JSON | st.fixed_dictionaries({"chunkId": JSON | st.integers(-3, 500), "type": JSON | st.just("combat")})


def test_browser_dialect_is_understood() -> None:
    """The browser's observation is reduced to chunk ids with multiplicity, types and numbers."""
    text = """{"timestamp":1769000015000,
     "miningWorkers":[{"x":12.5,"z":-40.0,"chunkId":47}],
     "workersPresent":[{"x":12.5,"z":-40.0,"chunkId":47},{"x":80.0,"z":2.0,"chunkId":52}],
     "protectors":[{"x":300.0,"z":9.0,"chunkId":60}],"parasitesStart":[],"parasitesEnd":[{"chunkId":47,"type":"energy"}],
     "queenEnergy":{"current":60,"max":100},"playerEnergy":{"start":400,"end":420},"playerMinerals":{"start":50,"end":80},
     "territoryId":"territory_0_0","hiveChunk":210}"""
    seen = parse_observation(json.loads(text))
    assert (seen.mining, seen.present, seen.protectors) == ([47], [47, 52], [60])
    assert (seen.parasites_start, seen.parasites_end) == ([], [(47, 0)])
    assert (seen.queen_energy, seen.energy_start, seen.energy_end) == (60.0, 400.0, 420.0)
    assert (seen.minerals_start, seen.minerals_end) == (50.0, 80.0)
    assert (seen.hive, seen.territory_id, seen.timestamp) == (210, "territory_0_0", 1769000015000.0)


def test_simulator_dialect_is_understood() -> None:
    """The simulator's entities carry more keys, and its queen energy has no maximum."""
    worker = {"id": "w1", "chunkId": 136, "x": 8, "y": 8, "state": "mining"}
    parasite = {"id": "p1", "chunkId": 3, "x": 3, "y": 0, "type": "combat"}
    seen = parse_observation(
        {
            "timestamp": 1769000015.25,
            "tick": 77,
            "miningWorkers": [worker],
            "workersPresent": [worker, {**worker, "chunkId": 137, "state": "fleeing"}],
            "protectors": [{"id": "g1", "chunkId": 5, "x": 5, "y": 0, "state": "patrolling"}],
            "parasitesStart": [parasite],
            "parasitesEnd": [parasite],
            "queenEnergy": {"current": 50},
            "playerEnergy": {"start": 1, "end": 2},
            "territoryId": "sim-territory",
            "hiveChunk": 136,
        }
    )
    assert (seen.mining, seen.present, seen.protectors) == ([136], [136, 137], [5])
    assert seen.parasites_start == seen.parasites_end == [(3, 1)]
    assert (seen.minerals_start, seen.minerals_end, seen.hive) == (0.0, 0.0, 136)


def test_absent_presence_means_the_mining_workers(observe: Any) -> None:
    """Without workersPresent those who mine are those who are there; an empty array says nobody is."""
    assert parse_observation(observe(mining=[4, 4])).present == [4, 4]
    assert parse_observation(observe(mining=[4, 4], present=[])).present == []


@pytest.mark.parametrize("field", REQUIRED)
@pytest.mark.parametrize("value", ["missing", None, True])
def test_required_field_is_named(observe: Any, field: str, value: Any) -> None:
    """A missing or mistyped required field is refused by name."""
    data = observe()
    if value == "missing":
        del data[field]
    else:
        data[field] = value
    with pytest.raises(ObservationError, match=field) as caught:
        parse_observation(data)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("bad", [None, 7, "47", [], {}, {"chunkId": "47"}, {"chunkId": 4.5}, {"chunkId": True}])
def test_bad_entity_counts_and_is_placed_nowhere(observe: Any, bad: Any) -> None:
    """A bad entity raises nothing: it counts in the total and has chunk -1."""
    data = observe(mining=[47])
    data["miningWorkers"].append(bad)
    data["protectors"].append(bad)
    data["parasitesEnd"].append(bad)
    seen = parse_observation(data)
    assert (seen.mining, seen.protectors) == ([47, -1], [-1])
    assert seen.parasites_end == [(-1, 0)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "5", True, 10**400, 10**39, 1e39, -1e300])
def test_number_that_is_none_counts_as_zero(observe: Any, bad: Any) -> None:
    """A number that is not finite as float32, or no number at all, counts as 0."""
    seen = parse_observation({**observe(), "queenEnergy": {"current": bad}, "playerEnergy": {"start": bad, "end": 3}})
    assert (seen.queen_energy, seen.energy_start, seen.energy_end) == (0.0, 0.0, 3.0)


@pytest.mark.parametrize(("start", "end", "expected"), [(0, 0, 0), (-5, 0, 0), (3, 1, -2 / 3), (0, 4, 1), (4, -9, -1)])
def test_rate_is_relative_to_the_larger_value(start: float, end: float, expected: float) -> None:
    """A rate is the change over the larger value, 0 if neither is positive, within -1..1."""
    assert rate(start, end) == pytest.approx(expected)


def test_parsed_observation_is_not_parsed_again(observe: Any) -> None:
    """An observation that is parsed already passes through; anything but a mapping is refused."""
    seen = parse_observation(observe())
    assert as_observation(seen) is seen
    with pytest.raises(ObservationError, match="data"):
        as_observation([1, 2])


@given(
    entities=st.lists(ENTITY, max_size=6),
    other=st.lists(ENTITY, max_size=6),
    optional=st.dictionaries(
        st.sampled_from(["workersPresent", "parasitesStart", "parasitesEnd", "playerMinerals", "hiveChunk", "tick"]),
        JSON,
    ),
    numbers=st.dictionaries(st.sampled_from(["current", "start", "end"]), JSON),
)
def test_nothing_a_client_sends_upsets_a_decision(
    entities: list[Any], other: list[Any], optional: dict[str, Any], numbers: dict[str, Any]
) -> None:
    """Whatever the entities and optional fields hold, features are finite in 0..1, and gate and reward answer."""
    data = {
        "timestamp": 1,
        "miningWorkers": entities,
        "protectors": other,
        "queenEnergy": numbers,
        "playerEnergy": numbers,
        "territoryId": "t",
        "workersPresent": other,
        "parasitesEnd": entities,
        **optional,
    }
    seen = parse_observation(data)
    config = GateConfig()
    features = FeatureEncoder(config)(seen)
    assert ((features >= 0) & (features <= 1)).all()
    verdict = SimulationGate(config).evaluate(seen, (7, 1), "key", 0)
    assert not math.isnan(verdict.expected_reward)
    calculator = QueenReward(config)
    reward, _ = calculator.reward(calculator.context(seen), (7, 1), True, seen)
    assert -1.0 <= reward <= 1.0
