"""The 28 and 29 features."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.queen.features import CAPACITY, FeatureEncoder, capacity, feature_names
from tandem.queen.gate_config import GateConfig

GRID_16 = GateConfig(chunks_per_axis=16)


def test_worked_example(observe: Any) -> None:
    """The worked example on 256 chunks with 29 features comes out to the last digit; ties go to the lower id."""
    data = observe(
        mining=[47, 47, 52, 3],
        protectors=[47, 200],
        queen=60,
        energy=(400, 420),
        minerals=(50, 80),
        start=[(47, "energy")],
        end=[(47, "energy"), (47, "energy"), (47, "combat")],
    )
    features = FeatureEncoder(GRID_16, "v29")(data)
    slot_47 = [0.184314, 0.5, 0.5, 0.75, 1]
    slot_3 = [0.011765, 0.25, 0, 0.5, 0.5]
    slot_52 = [0.203922, 0.25, 0, 0.5, 0.5]
    expected = slot_47 + slot_3 + slot_52 + [0] * 10 + [0.666667, 0.5, 0.523810, 0.6875]
    assert features.dtype == np.float32
    assert features.tolist() == pytest.approx(expected, abs=1e-6)
    assert FeatureEncoder(GRID_16, "v28")(data).tolist() == features[:28].tolist()


def test_names_match_the_layout() -> None:
    """Every feature has a name; the 29th is the player's mineral rate."""
    names = feature_names("v28")
    assert len(names) == 28
    assert names[:5] == (
        "chunk_0_id",
        "chunk_0_worker_density",
        "chunk_0_protector_density",
        "chunk_0_energy_parasite_rate",
        "chunk_0_combat_parasite_rate",
    )
    assert names[25:] == ("spawn_capacity_energy", "spawn_capacity_combat", "player_energy_rate")
    assert feature_names("v29") == (*names, "player_mineral_rate")
    with pytest.raises(ValueError, match="v30"):
        feature_names("v30")


def test_bad_entities_count_in_the_total_only(observe: Any) -> None:
    """Workers and protectors outside the territory dilute the densities and take no slot."""
    features = FeatureEncoder(GateConfig())(observe(mining=[47, -1, 400, 9999], protectors=[47, -1]))
    assert features[:5].tolist() == pytest.approx([47 / 399, 0.25, 0.5, 0.5, 0.5])
    assert not features[5:CAPACITY].any()


def test_unknown_parasite_type_counts_as_energy(observe: Any) -> None:
    """A parasite of any type but combat is an energy parasite."""
    features = FeatureEncoder(GateConfig())(observe(mining=[47], end=[(47, "spore")]))
    assert features[3:5].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("energy", "cost", "expected"),
    [
        (14.9, 15, 0),
        (15, 15, 1 / 6),
        (100, 15, 1),
        (1000, 15, 1),
        (60, 25, 0.5),
        (100, 8, 1),
        (50, 101, 0),
        (-5, 15, 0),
    ],
)
def test_capacity_counts_affordable_parasites(energy: float, cost: float, expected: float) -> None:
    """Capacity is the share of the most affordable parasites, positive exactly from the cost on."""
    assert capacity(energy, cost) == pytest.approx(expected)


def test_presence_ranks_by_workers_present_in_shuffled_slots(observe: Any) -> None:
    """With presence the slots name the chunks where workers are, and the busiest is not always in slot 0."""
    encoder = FeatureEncoder(GateConfig(), presence=True, seed=3)
    data = observe(mining=[3], present=[47, 47, 52])
    busiest = set()
    for _ in range(100):
        slots = encoder(data)[:CAPACITY].reshape(5, 5)
        taken = {round(float(row[0]) * 399): round(float(row[1]), 4) for row in slots if row[1] > 0}
        assert taken == {47: 0.6667, 52: 0.3333}
        busiest.add(int(slots[:, 1].argmax()))
    assert busiest == {0, 1, 2, 3, 4}


@given(st.lists(st.integers(-1, 410), max_size=40), st.lists(st.integers(-1, 410), max_size=10))
def test_slots_are_the_five_busiest_chunks(mining: list[int], protectors: list[int]) -> None:
    """Slots hold the busiest chunks in order, ties by the lower id, with their shares of all workers and protectors."""
    from tests.queen.conftest import build_data

    slots = FeatureEncoder(GateConfig())(build_data(mining=mining, protectors=protectors))[:CAPACITY].reshape(5, 5)
    counts = Counter(chunk for chunk in mining if 0 <= chunk < 400)
    best = sorted(counts, key=lambda chunk: (-counts[chunk], chunk))[:5]
    for row, chunk in zip(slots, best, strict=False):
        share = protectors.count(chunk) / len(protectors) if protectors else 0
        assert row.tolist() == pytest.approx([chunk / 399, counts[chunk] / len(mining), share, 0.5, 0.5])
    assert not slots[len(best) :].any()
