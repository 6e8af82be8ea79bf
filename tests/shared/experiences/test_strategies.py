"""Each sampling strategy draws what its settings say, without repetition, and the same again from the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tandem.shared.configuration.config import parse
from tandem.shared.experiences.experience import Experience
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.experiences.strategies import (
    HalfRecent,
    Prioritized,
    Recency,
    Stratified,
    Uniform,
    distinct,
    strategy_of,
    weighted,
)
from tandem.shared.replay import ExperienceReplayBuffer

Reader = Callable[..., ReplayReader]


@pytest.fixture
def reader_of(toy_instance: Callable[..., Any]) -> Reader:
    """A reader over 200 records: version n for record n, every fourth of them a SEND with a reward."""
    buffer = ExperienceReplayBuffer(toy_instance())
    for number in range(1, 201):
        sent = number % 4 == 0
        buffer.add(
            Experience(
                observation=np.full(4, number, np.float32),
                spawn_chunk=1,
                spawn_type=0,
                nn_confidence=0.5,
                gate_decision="SEND" if sent else "WAIT",
                expected_reward=0.1,
                actual_reward=0.5 if sent else None,
                timestamp=float(number),
                model_version=number,
            )
        )
    buffer.control.set("version", 200)

    def make(strategy: Any, seed: int = 3) -> ReplayReader:
        return ReplayReader(buffer.control, buffer.instance.records, seed, strategy=strategy)

    return make


def versions(reader: ReplayReader, count: int) -> list[int]:
    return [int(version) for version in reader.sample(count)["version"]]


@pytest.mark.parametrize("count", [1, 5, 60, 199, 200, 500])
def test_distinct_numbers_are_distinct_and_even(count: int) -> None:
    """`distinct` repeats nothing, stays in range, and every number is equally likely."""
    rng = np.random.default_rng(0)
    counts = np.zeros(200)
    for _ in range(400):
        picks = distinct(rng, 200, count)
        assert len(set(picks.tolist())) == len(picks) == min(count, 200)
        counts[picks] += 1
    expected = 400 * min(count, 200) / 200
    assert np.abs(counts - expected).max() <= 6 * np.sqrt(expected) + 1


def test_weighted_draws_follow_the_weights() -> None:
    """`weighted` never draws weight 0 and draws single picks in proportion."""
    rng = np.random.default_rng(0)
    counts = np.zeros(4)
    for _ in range(4000):
        counts[weighted(rng, np.array([0.0, 1.0, 2.0, 5.0]), 1)] += 1
    assert counts[0] == 0
    assert np.allclose(counts[1:] / 4000, np.array([1, 2, 5]) / 8, atol=0.03)


@pytest.mark.parametrize(
    "strategy",
    [
        Uniform,
        lambda: Uniform(max_lag=150),
        lambda: Recency(20.0),
        lambda: Recency(20.0, seconds=True),
        lambda: Stratified(0.5),
        Prioritized,
    ],
)
def test_no_strategy_repeats_and_every_one_is_seeded(reader_of: Reader, strategy: Callable[[], Any]) -> None:
    """A batch holds no record twice, and a seed repeats it."""
    drawn = versions(reader_of(strategy()), 40)
    assert len(set(drawn)) == len(drawn) == 40
    assert drawn == versions(reader_of(strategy()), 40)


def test_repetition_is_there_when_asked_for(reader_of: Reader) -> None:
    """With repetition a batch may be larger than the buffer's distinct records allow."""
    drawn = versions(reader_of(Uniform(with_repetition=True)), 150)
    assert len(drawn) == 150 > len(set(drawn))


def test_policy_lag_is_bounded(reader_of: Reader) -> None:
    """With `max_policy_lag` no older decision is trained on, however few are left."""
    assert min(versions(reader_of(Uniform(max_lag=10)), 500)) == 190
    assert min(versions(reader_of(Recency(50.0, max_lag=10)), 500)) == 190
    assert min(versions(reader_of(Stratified(0.5, max_lag=10)), 500)) == 190


def test_recency_prefers_the_newest(reader_of: Reader) -> None:
    """A short half-life draws from the newest versions."""
    assert np.mean(versions(reader_of(Recency(5.0)), 20)) > 180


def test_stratified_keeps_its_share(reader_of: Reader) -> None:
    """The share of WAIT is kept while both kinds last, and the rest is filled with what is there."""
    reader = reader_of(Stratified(0.25))
    assert np.count_nonzero(reader.sample(40)["decision"] == 0) == 10
    assert len(reader.sample(100)) == 100
    assert len(reader.sample(500)) == 200


def test_prioritized_prefers_large_losses(reader_of: Reader) -> None:
    """Records whose last loss was large come back more often than those whose loss was small."""
    strategy = Prioritized(exponent=1.0)
    reader = reader_of(strategy)
    rows = reader.sample(200)
    large = rows["version"] % 10 == 0
    strategy.update(reader, rows, np.where(large, 5.0, 0.0).astype(np.float32))
    drawn = [version for _ in range(50) for version in versions(reader, 10)]
    assert np.mean([version % 10 == 0 for version in drawn]) > 0.8


def test_decisions_before_a_reset_are_left_out(reader_of: Reader) -> None:
    """Records of versions below the control segment's first version are not drawn."""
    reader = reader_of(Uniform())
    reader.control.set("first_version", 195)
    assert sorted(versions(reader, 100)) == list(range(195, 201))


def test_settings_choose_the_strategy() -> None:
    """`trainer.sampling` names the strategy; `auto` goes by the learner."""
    kinds = {
        "uniform": Uniform,
        "half_recent": HalfRecent,
        "recency": Recency,
        "stratified": Stratified,
        "prioritized": Prioritized,
    }
    for name, kind in kinds.items():
        assert isinstance(strategy_of(parse({"trainer": {"sampling": name}}, "test").trainer), kind)
    assert isinstance(strategy_of(parse({}, "test").trainer), Uniform)
    assert isinstance(strategy_of(parse({}, "test").trainer, is_replayed=True), HalfRecent)


def test_half_of_a_batch_is_of_the_newest_quarter(reader_of: Reader) -> None:
    """The newest 50 of 200 records make half of it and a quarter of the other half, each record once; all are drawn."""
    reader = reader_of(HalfRecent())
    drawn = [versions(reader, 40) for _ in range(200)]
    assert all(len(set(batch)) == len(batch) for batch in drawn)
    assert all(30 < len(batch) <= 40 for batch in drawn)
    assert set().union(*drawn) == set(range(1, 201))
    newest = np.mean([version > 150 for batch in drawn for version in batch])
    assert 0.55 < newest < 0.65
    reader.control.set("first_version", 191)
    assert sorted(versions(reader, 40)) == list(range(191, 201))
    assert set(versions(reader, 6)) <= set(range(191, 201))
