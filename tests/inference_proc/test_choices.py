"""Engines that are told what is allowed, that choose among candidates, or draw a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem import ActionHead, Choices, Engine
from tandem.inference_proc.static import StaticEngine
from tandem.inference_proc.turn import DecideRequest, TurnEncoder, make_turn
from tandem.shared.application import Application
from tandem.shared.configuration.config import parse
from tandem.shared.replay import ExperienceReplayBuffer

SOURCE = '''
"""One head of each kind."""
from tandem import Application, CandidateHead, GaussianHead

HEADS = {"candidates": CandidateHead("item", 4, ("price", "fame")), "number": GaussianHead("price", 0.0, 10.0)}


def create(settings, folder):
    return Application(name="kinds", features=("mood",), heads=(HEADS[settings["head"]],))
'''


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module's name."""
    # Small tensors are computed faster by one thread, and the machine may be busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "kinds_toy.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "kinds_toy"
    torch.set_num_threads(threads)


def test_a_mask_of_several_heads_holds(engine_of: Callable[..., Engine]) -> None:
    """In `decide` and `decide_many`; a request that cannot be used records nothing, and the others are decided."""
    engine = engine_of()
    place, kind = (head.name for head in engine.application.heads)
    row = np.ones(4, np.float32)
    for number in range(30):
        assert engine.decide(f"k{number}", row, allowed={place: [1, 3], kind: [0]}).action in ((1, 0), (3, 0))
    results = engine.decide_many(
        [("a", row, "", Choices({kind: [1]})), ("b", row, "", Choices({place: []})), ("c", row, "")]
    )
    assert results[0].action[1] == 1  # type: ignore[union-attr]
    assert f"no choice of {place}" in str(results[1])
    assert not isinstance(results[2], Exception)
    before = engine.get_stats()["lane"]["send"]
    with pytest.raises(ValueError, match="no head 'colour'"):
        engine.decide("d", row, allowed={"colour": [0]})
    assert not engine.reward("b", 1.0)
    assert not engine.reward("d", 1.0)
    assert engine.get_stats()["lane"]["send"] == before
    assert engine.reward("a", 1.0)
    allowed = engine.instance.records.allowed(ExperienceReplayBuffer(engine.instance).reader.recent(1))[0]
    assert allowed[-2:].tolist() == [False, True]
    assert allowed[:-2].all()


def test_a_plain_request_makes_no_offer() -> None:
    """Who allows everything pays nothing for who does not."""
    application = Application("plain", ("a",), (ActionHead("h", 2),))
    turn = make_turn("k", [1.0], "")
    TurnEncoder(application).encode([turn])
    assert turn.offer is None


def test_coupled_training_learns_from_candidates(engine_of: Callable[..., Engine], kinds: str) -> None:
    """`enabled: false`: the dear candidate comes to be taken."""
    engine = engine_of(application=kinds, settings={"head": "candidates"}, trainer={"enabled": False})
    rng = np.random.default_rng(1)
    for _ in range(200):
        listed = [(str(place), rng.uniform(-1, 1, 2)) for place in range(int(rng.integers(1, 5)))]
        decision = engine.decide("k", [0.5], candidates=listed)
        assert engine.reward("k", float(listed[decision.action[0]][1][0]))
    listed = [("cheap", (-0.9, 0.0)), ("dear", (0.9, 0.0)), ("middle", (0.0, 0.0))]
    taken = [engine.decide("k", [0.5], candidates=listed).labels[0] for _ in range(50)]
    assert taken.count("dear") > 40
    only = engine.decide("k", [0.5], candidates=listed, allowed=["cheap", 2])
    assert only.labels[0] in ("cheap", "middle")


@pytest.mark.parametrize("head", ["candidates", "number"])
def test_a_request_that_is_sent_again_gets_the_same_answer(
    engine_of: Callable[..., Engine], kinds: str, head: str
) -> None:
    """With the same number, and the name of the candidate that was chosen."""
    engine = engine_of(application=kinds, settings={"head": head})
    asked = {"candidates": [("a", (1.0, 2.0)), ("b", (0.0, 0.0))]} if head == "candidates" else {}
    first = engine.decide("k", [0.5], request_id="r1", **asked)  # type: ignore[arg-type]
    for _ in range(5):
        again = engine.decide("k", [0.5], request_id="r1", **asked)  # type: ignore[arg-type]
        assert (again.id, again.action, again.labels) == (first.id, first.action, first.labels)
    assert len(first.labels) == (head == "candidates")
    (other,) = engine.decide_many([DecideRequest(None, [0.5], choices=Choices(**asked))])
    assert not isinstance(other, Exception)
    assert other.id != first.id


def test_coupled_training_learns_a_number(engine_of: Callable[..., Engine], kinds: str) -> None:
    """`enabled: false`: the number comes to lie near the best one; one that failed is known by its value."""
    engine = engine_of(application=kinds, settings={"head": "number"}, trainer={"enabled": False})
    for _ in range(250):
        (number,) = engine.decide("k", [0.5]).action
        assert engine.reward("k", -0.05 * (number - 3.0) ** 2)
    drawn = [engine.decide("k", [0.5]) for _ in range(50)]
    assert np.mean([decision.action[0] for decision in drawn]) == pytest.approx(3.0, abs=1.0)
    assert not engine.failed("k", (-1.0,))  # type: ignore[arg-type]
    assert engine.failed("k", drawn[-1].action)
    with pytest.raises(ValueError, match="no choices"):
        engine.decide("k", [0.5], allowed=[0])


@pytest.mark.parametrize("head", ["candidates", "number"])
def test_saved_weights_decide_alone(
    engine_of: Callable[..., Engine], kinds: str, head: str, instance_name: str
) -> None:
    """A StaticEngine takes candidates and draws numbers too."""
    engine = engine_of(application=kinds, settings={"head": head}, trainer={"enabled": False})
    flat = engine._live.flat
    engine.instance.checkpoints().save(7, flat.state(), {}, {})
    plain = engine.config.to_dict()
    plain["inference"] |= {"static_fallback": True, "attach_timeout": 0.01}
    static = StaticEngine(parse(plain, "the test's configuration"), instance_name)
    asked: dict[str, Any] = {"candidates": [("a", (1.0, 2.0)), ("b", (0.0, 0.0))]} if head == "candidates" else {}
    decision = static.decide("k", [0.5], **asked)
    (several,) = static.decide_many([("k", [0.5], "", Choices(**asked))])
    assert not isinstance(several, Exception)
    if head == "candidates":
        assert decision.labels[0] == "ab"[decision.action[0]]
        with pytest.raises(ValueError, match="there are none"):
            static.decide("k", [0.5])
    else:
        assert 0.0 <= decision.action[0] <= 10.0
        assert not static.failed("k", decision.action)
