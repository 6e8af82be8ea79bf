"""Masks, candidates and numbers with a real trainer: what is earned rises, and the records say what was allowed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem import Choices
from tandem.inference_proc.engine import Engine
from tandem.shared.instance import Instance
from tandem.shared.learning import make_batch
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.values import id_hash

from .conftest import Ctl

SOURCE = '''
"""A toy whose one head is named in the settings."""
from tandem import ActionHead, Application, CandidateHead, GaussianHead

HEADS = {
    "fixed": ActionHead("side", 4, ("a", "b", "c", "d")),
    "candidates": CandidateHead("item", 5, ("price", "fame")),
    "number": GaussianHead("price", 0.0, 10.0),
}


def create(settings, folder):
    return Application(name="choices", features=("mood", "hour"), heads=(HEADS[settings["head"]],))
'''


class Host:
    """An engine of an instance with a real trainer, which learns as fast as it can."""

    def __init__(self, ctl: Ctl, folder: Path, head: str) -> None:
        (folder / "choices_toy.py").write_text(SOURCE, encoding="utf-8")
        started = ctl.up(
            application="choices_toy",
            settings={"head": head},
            trainer={"training_interval": 0.02, "buffer_capacity": 5000, "min_batch_size": 32},
            inference={"command": "none", "seed": 1},
        )
        assert started.returncode == 0, started.stderr
        self.engine = Engine.attach(ctl.instance)
        self.rng = np.random.default_rng(1)
        self.rounds = 0

    def play(self, turn: Callable[[str, list[float]], float], rounds: int) -> float:
        """`turn(key, observation)` decides and says what it earns; the mean of that."""
        total = 0.0
        for _ in range(rounds):
            self.rounds += 1
            key = f"k{self.rounds % 50}"
            reward = turn(key, self.rng.uniform(-1.0, 1.0, 2).tolist())
            assert self.engine.reward(key, reward)
            total += reward
            if self.rounds % 50 == 0:
                self.engine.beat()
                time.sleep(0.01)
        return total / rounds

    def until(self, turn: Callable[[str, list[float]], float], enough: float, most: int = 40) -> list[float]:
        """Play in rounds of 200 until they earn `enough`; the mean of each."""
        means: list[float] = []
        while len(means) < most and (not means or means[-1] < enough):
            means.append(self.play(turn, 200))
        assert means[-1] >= enough, means
        return means


@pytest.fixture
def host(ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`host(head)` starts an instance and attaches to it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[Host] = []

    def make(head: str) -> Host:
        made.append(Host(ctl, tmp_path, head))
        return made[-1]

    yield make
    for item in made:
        item.engine.close()


def test_what_is_not_allowed_is_never_drawn_and_the_rest_is_learned(host: Callable[[str], Host], ctl: Ctl) -> None:
    """Among two of four choices the better one is found, though a forbidden one would earn more; records and batches
    say what was allowed, and the probability is given that."""
    made = host("fixed")
    engine = made.engine

    def turn(key: str, observation: list[float]) -> float:
        pair = ["a", "b"] if observation[0] < 0 else [2, 3]
        decision = engine.decide(key, observation, allowed=pair)
        assert decision.action[0] in ((0, 1) if observation[0] < 0 else (2, 3))
        # Without a mask the last one would be best everywhere.
        return 0.2 * decision.action[0] + made.rng.normal(0.0, 0.1)

    made.until(turn, 0.37)
    buffer = ExperienceReplayBuffer(ctl.instance)
    rows = buffer.reader.recent(400)
    records = Instance(ctl.instance).records
    batch = make_batch(rows, np.zeros(len(rows), np.float32), torch.device("cpu"), records)
    assert batch.allowed is not None
    below = batch.observations[:, 0] < 0
    assert batch.allowed[below].tolist() == [[True, True, False, False]] * int(below.sum())
    assert batch.allowed[~below].tolist() == [[False, False, True, True]] * int((~below).sum())
    # Inverse gap weighting among two: the better one has at least half.
    assert rows["probability"][rows["action"][:, 0] % 2 == 1].min() >= 0.5
    everything = engine.decide_many([("x", [0.5, 0.0], ""), ("y", [0.5, 0.0], "", Choices([0]))])
    assert everything[1].action == (0,)  # type: ignore[union-attr]
    assert everything[1].probability == pytest.approx(1.0)  # type: ignore[union-attr]


def test_a_candidate_never_seen_before_is_scored_by_its_features(host: Callable[[str], Host], ctl: Ctl) -> None:
    """Fresh candidates with each request: what is earned rises far above chance, and the best fresh one is taken."""
    made = host("candidates")
    engine, rng, count = made.engine, made.rng, [0]

    def offer(size: int) -> list[dict[str, Any]]:
        count[0] += size
        return [{"id": f"i{count[0] - place}", "features": rng.uniform(-1, 1, 2).tolist()} for place in range(size)]

    def turn(key: str, observation: list[float]) -> float:
        listed = offer(int(rng.integers(2, 6)))
        decision = engine.decide(key, observation, candidates=listed)
        chosen = listed[decision.action[0]]
        assert decision.labels == (chosen["id"],)
        # A dear one for a good mood, a cheap one for a bad one; fame counts always.
        price, fame = chosen["features"]
        return float(observation[0] * price + 0.5 * fame + rng.normal(0.0, 0.2))

    means = made.until(turn, 0.32)
    assert means[0] < 0.32
    listed = [("dull", (-1.0, -1.0)), ("best", (1.0, 1.0)), ("cheap", (-1.0, 0.0))]
    taken = [engine.decide(f"n{number}", [0.9, 0.0], candidates=listed).labels[0] for number in range(100)]
    assert taken.count("best") > 80
    rows = ExperienceReplayBuffer(ctl.instance).reader.recent(5)
    row = rows[-1]
    size = int(Instance(ctl.instance).records.allowed(rows)[-1].sum())
    assert 2 <= size <= 5
    assert int(row["candidate_ids"][int(row["action"][0])]) in {id_hash(f"i{number}") for number in range(count[0] + 1)}
    assert not row["candidates"][size:].any()
    with pytest.raises(ValueError, match="there are none"):
        engine.decide("k", [0.0, 0.0])


def test_a_price_moves_to_where_most_is_earned(host: Callable[[str], Host], ctl: Ctl) -> None:
    """The best price depends on the observation; prices are recorded as they were drawn, with their density."""
    made = host("number")
    engine, rng = made.engine, made.rng

    def turn(key: str, observation: list[float]) -> float:
        (price,) = engine.decide(key, observation).action
        assert 0.0 <= price <= 10.0
        best = 6.0 + 2.0 * observation[0]
        return float(1.0 - 0.1 * (price - best) ** 2 + rng.normal(0.0, 0.3))

    made.until(turn, 0.85)
    for mood in (-1.0, 1.0):
        prices = [engine.decide(f"n{number}", [mood, 0.0]).action[0] for number in range(100)]
        assert np.mean(prices) == pytest.approx(6.0 + 2.0 * mood, abs=1.0)
    rows = ExperienceReplayBuffer(ctl.instance).reader.recent(100)
    assert rows["value"].min() >= 0.0
    assert len(np.unique(rows["value"])) > 90
    assert (rows["probability"] > 0).all()
    decision = engine.decide("z", [0.0, 0.0])
    assert engine.failed("z", decision.action)
