"""Exploration: bonus, annealing, undo, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.queen.exploration import Exploration, annealed
from tandem.queen.gate_config import GateConfig


def test_never_spawned_chunk_is_fully_fresh() -> None:
    """A chunk that was never spawned into has the full bonus, one just used none, in between it grows linearly."""
    exploration = Exploration(400)
    assert exploration.freshness("a", 5, 300.0, 50.0) == 1.0
    exploration.spawned("a", 5, 100.0)
    assert exploration.freshness("a", 5, 300.0, 100.0) == 0.0
    assert exploration.freshness("a", 5, 300.0, 250.0) == 0.5
    assert exploration.freshness("a", 5, 300.0, 9999.0) == 1.0
    assert exploration.freshness("a", 6, 300.0, 100.0) == 1.0
    assert exploration.freshness("b", 5, 300.0, 100.0) == 1.0


def test_undo_restores_the_earlier_time() -> None:
    """Undoing takes back the last spawn only, once, and only if it was into that chunk."""
    exploration = Exploration(400)
    exploration.spawned("a", 5, 100.0)
    exploration.spawned("a", 5, 200.0)
    assert not exploration.undo("a", 6)
    assert exploration.undo("a", 5)
    assert exploration.last_spawns("a") == {5: 100.0}
    assert not exploration.undo("a", 5)
    exploration.spawned("a", 7, 300.0)
    assert exploration.undo("a", 7)
    assert exploration.last_spawns("a") == {5: 100.0}
    assert not exploration.undo("nobody", 5)


def test_memory_is_bounded() -> None:
    """There is at most one entry per chunk and a bounded number of keys, of which the stalest goes first."""
    exploration = Exploration(4, max_keys=3)
    for step in range(100):
        exploration.spawned("busy", step % 8, float(step))
    assert set(exploration.last_spawns("busy")) == {0, 1, 2, 3}
    for name in ("a", "b", "busy", "c"):
        exploration.spawned(name, 1, 200.0)
    assert exploration.last_spawns("a") == {}
    assert exploration.last_spawns("busy")
    for step in range(1000):
        exploration.spawned(f"key-{step}", 1, 300.0)
    assert len(exploration._last) == len(exploration._undo) == 3


def test_forget_and_clear() -> None:
    """A forgotten key is unexplored again; clearing forgets all."""
    exploration = Exploration(4)
    exploration.spawned("a", 1, 1.0)
    exploration.spawned("b", 2, 1.0)
    exploration.spawned("b", 1, 1.0)
    assert exploration.statistics() == {
        "total_chunks": 4,
        "explored_chunks": 2,
        "unexplored_chunks": 2,
        "exploration_rate": 0.5,
    }
    exploration.forget("a")
    assert exploration.last_spawns("a") == {}
    assert not exploration.undo("a", 1)
    exploration.clear()
    assert exploration.statistics()["explored_chunks"] == 0


@pytest.mark.parametrize(("version", "expected"), [(0, 0.2), (-5, 0.2), (5000, 0.1), (10000, 0.05), (10**9, 0.02)])
def test_bonus_anneals_with_versions(version: int, expected: float) -> None:
    """The full bonus halves every half-life of versions down to its minimum."""
    assert annealed(GateConfig(), version) == pytest.approx(expected)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_annealing_is_monotone(one: int, other: int) -> None:
    """A later version never has a larger bonus, nor one below the minimum."""
    config = GateConfig()
    early, late = sorted((one, other))
    assert annealed(config, early) >= annealed(config, late) >= config.exploration_min
