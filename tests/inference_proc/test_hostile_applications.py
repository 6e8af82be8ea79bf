"""Whatever an application's encode, model, gate and reward give back: requests are answered, and records are right."""

from __future__ import annotations

import decimal
import fractions
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hostile_kit import GOOD, NO_NUMBERS, TOO_LARGE, Vexing, accounted, rows
from tandem.inference_proc.decision import Decision
from tandem.inference_proc.engine import Engine
from tandem.shared.application import Verdict
from tandem.shared.errors import ApplicationError, TandemError

Made = Callable[..., tuple[Engine, dict[str, Any]]]


def raising(error: BaseException) -> Any:
    raise error


class Unreadable(Exception):
    """An application's own error."""


def test_what_encode_raises_is_a_value_error(hostile: Made) -> None:
    """What Python itself raises for senseless data, that is; an error that somebody defined passes as it is."""
    engine, hooks = hostile(encode=True)
    errors = [KeyError("hour"), AttributeError("hour"), Unreadable("hour"), TimeoutError("hour"), ValueError("hour")]
    hooks["encode"] = lambda seen: raising(errors[seen])
    for number, error in enumerate(errors[:2]):
        with pytest.raises(ValueError, match=r"^observation: cannot be encoded: .*Error\('hour'\)") as wrapped:
            engine.decide("a", number)
        assert wrapped.value.__cause__ is error
    for number, error in enumerate(errors[2:], start=2):
        with pytest.raises(type(error)) as passed:
            engine.decide("a", number)
        assert passed.value is error
    results = engine.decide_many([("a", number, "") for number in range(len(errors))])
    assert all(isinstance(result, Exception) for result in results)
    assert engine.get_stats()["decided"] == 0


def test_an_encode_that_reuses_its_memory_mixes_nothing(hostile: Made) -> None:
    """Each record of a batch holds its own observation, whatever is encoded before and after, by the gate too."""
    engine, hooks = hostile(encode=True, gate=True)
    room = np.zeros(2, np.float32)

    def encode(seen: Any) -> Any:
        room[:] = seen
        return room

    def evaluate(seen: Any) -> Verdict:
        encode([-1.0, -1.0])
        return Verdict(True, "open", 0.25, (0.5,))

    hooks.update(encode=encode, evaluate=evaluate)
    decisions = engine.decide_many([(f"k{number}", [number, 10 * number], "") for number in range(4)])
    decisions.append(engine.decide("k4", [4, 40]))
    for number in range(5):
        engine.reward(f"k{number}", number)
    for number, (row, decision) in enumerate(zip(rows(engine), decisions, strict=True)):
        assert row["observation"].tolist() == [number, 10 * number]
        assert isinstance(decision, Decision)
        with torch.inference_mode():
            light, door = engine.policy.model(torch.tensor([[number, 10.0 * number]]))
        expected = torch.softmax(light[0], 0)[decision.action[0]] * torch.softmax(door[0], 0)[decision.action[1]]
        assert row["probability"] == pytest.approx(float(expected), rel=1e-4)


def test_a_coupled_step_trains_on_what_was_decided(hostile: Made) -> None:
    """With an `encode` that reuses its memory, too."""
    engine, hooks = hostile(encode=True, enabled=False)
    room = np.zeros(2, np.float32)
    trained: list[list[float]] = []

    def encode(seen: Any) -> Any:
        room[:] = seen
        return room

    def forward(observations: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            trained.append(observations[0].tolist())
        return logits

    hooks.update(encode=encode, forward=forward)
    for number in range(3):
        engine.decide(f"k{number}", [number, 1])
    for number in range(3):
        assert engine.reward(f"k{number}", 0.5)
    assert trained == [[0, 1], [1, 1], [2, 1]]


def test_a_model_that_writes_into_its_input_changes_no_record(hostile: Made) -> None:
    """What is stored is what was encoded: the trainer's forward pass starts from there too."""
    engine, hooks = hostile()
    hooks["forward"] = lambda observations, logits: [logits, observations.zero_()][0]
    engine.decide("a", GOOD)
    engine.decide_many([("b", GOOD, ""), ("c", GOOD, "")])
    for key in "abc":
        engine.reward(key, 0)
    assert rows(engine)["observation"].tolist() == [np.array(GOOD, np.float32).tolist()] * 3


def spoil(kind: str) -> Callable[..., torch.Tensor]:
    """A forward pass in which an observation of 9 goes wrong."""

    def forward(observations: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        bad = observations[:, 0] == 9
        if kind == "raises":
            if bad.any():
                raise IndexError("no such row in the table")
            return logits
        if kind == "spreads":
            return logits + torch.where(bad, torch.nan, 0.0).mean()
        value = {"nan": torch.nan, "+inf": torch.inf, "-inf": -torch.inf, "masked": -1e9}[kind]
        return torch.where(bad[:, None], value, logits)

    return forward


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["nan", "+inf", "-inf", "masked", "raises", "spreads"])
@pytest.mark.filterwarnings("error")
def test_one_bad_forward_pass_fails_alone(hostile: Made, kind: str, floor: float) -> None:
    """An overflow, a mask of everything or an error in the model: that request's, and nobody else's."""
    engine, hooks = hostile()
    engine.policy.floor = floor
    hooks["forward"] = spoil(kind)
    masked = "'light': every choice is masked"
    text = {"raises": "no such row", "-inf": masked, "masked": masked}.get(kind, "'light': the policy's logits are not")
    alone = engine.decide_many([("b", [9, 0], "")])
    good, bad, other = engine.decide_many([("g", GOOD, ""), ("b", [9, 0], ""), ("h", GOOD, "")])
    assert isinstance(good, Decision)
    assert isinstance(other, Decision)
    assert [text in str(error) for error in (*alone, bad) if isinstance(error, Exception)] == [True, True]
    with pytest.raises((FloatingPointError, IndexError), match=text.split(":")[0]):
        engine.decide("b", [9, 0])
    assert engine.get_stats()["decided"] == 2
    assert accounted(engine)


def test_minus_infinity_masks(hostile: Made) -> None:
    """As MASKED does, with a floor and a temperature too: never drawn, and the probability is that of the rest."""
    engine, hooks = hostile()
    logits = torch.tensor([0.0, -torch.inf, 1.0, -1e9, -torch.inf, 0.5, -torch.inf, 0.5])
    hooks["forward"] = lambda observations, _: logits.expand(len(observations), -1)
    for engine.policy.floor, engine.policy.temperature in ((0.0, 1.0), (0.1, 1.0), (0.1, 2.0), (0.0, 0.01)):
        share = torch.softmax(logits[:5] / engine.policy.temperature, 0)
        expected = (1 - engine.policy.floor) * share + engine.policy.floor / 2
        for _ in range(50):
            decision = engine.decide("a", GOOD)
            assert decision.action[0] in (0, 2)
            assert decision.action[1] in (0, 2)
            assert decision.head_probabilities[0] == pytest.approx(float(expected[decision.action[0]]), rel=1e-5)


def test_many_heads_keep_their_probability(hostile: Made) -> None:
    """A product that float32 rounds to 0 is stored as the smallest it has; its logarithm is exact."""
    engine, hooks = hostile()
    rare = torch.tensor([0.0, -200.0, -1e9, -1e9, -1e9, 0.0, -1e9, -1e9])
    hooks["forward"] = lambda observations, logits: rare.expand(len(observations), -1)

    class Last:
        def random(self) -> float:
            return 1.0

    engine.policy.rng = Last()  # type: ignore[assignment]
    decision = engine.decide("a", GOOD)
    assert decision.action == (1, 0)
    assert decision.log_probability == pytest.approx(-200.0)
    assert 0 < decision.probability < 1e-80
    engine.reward("a", 0)
    assert rows(engine)["probability"].tolist() == [np.finfo(np.float32).tiny]


def test_a_model_left_in_training_mode_decides_in_evaluation_mode(hostile: Made) -> None:
    """Else batch statistics let the rows of a batch see each other."""
    engine, _ = hostile()
    engine.get_model_for_inference().train()
    engine.decide_many([("a", GOOD, ""), ("b", GOOD, "")])
    assert not engine.policy.model.training


FIELDS: list[tuple[Any, Any, Any, Any]] = [
    ("yes", "open", 0.5, (0.5,)), (None, "open", 0.5, (0.5,)), (np.array([True, False]), "open", 0.5, (0.5,)),
    (True, None, 0.5, (0.5,)), (True, Vexing(), 0.5, (0.5,)), (True, "open", None, (0.5,)),
    (True, "open", math.nan, (0.5,)), (True, "open", math.inf, (0.5,)), (True, "open", 1e39, (0.5,)),
    (True, "open", 10**400, (0.5,)), (True, "open", "0.5", (0.5,)), (True, "open", 0.5, (math.nan,)),
    (True, "open", 0.5, (1e39,)), (True, "open", 0.5, (None,)), (True, "open", 0.5, (0.5, 0.5)),
    (True, "open", 0.5, 0.5), (True, "open", 0.5, None),
]  # fmt: skip
VERDICTS: list[Any] = [None, True, ("open", 0.5), {"send": True}, *(Verdict(*fields) for fields in FIELDS)]


@pytest.mark.filterwarnings("error")
def test_a_verdict_that_makes_no_sense_holds_the_action_back(hostile: Made) -> None:
    """As if the gate had raised: a WAIT that is recorded, an error that is counted, and the others as ever."""
    engine, hooks = hostile(gate=True)
    for count, verdict in enumerate(VERDICTS, start=1):
        hooks["evaluate"] = lambda seen, bad=verdict: bad if seen[0] == 9 else Verdict(True, "open", 0.5, (0.25,))
        good, bad, other = engine.decide_many([("g", GOOD, ""), ("b", [9, 0], ""), ("h", GOOD, "")])
        assert isinstance(good, Decision)
        assert isinstance(bad, Decision)
        assert isinstance(other, Decision)
        assert (good.send, bad.send, other.send) == (True, False, True), count
        assert (bad.reason, bad.components) == ("gate_error", (0.0,))
        assert engine.lane.get("errors") == count
        assert rows(engine)["decision"].tolist() == [0] * count
    assert accounted(engine)


def test_a_verdict_may_come_in_any_numbers(hostile: Made) -> None:
    """They are stored, and answered as Python's own."""
    engine, hooks = hostile(gate=True)
    for expected, component in (
        (np.float32(0.5), np.float64(0.25)),
        (decimal.Decimal("0.5"), fractions.Fraction(1, 4)),
        (torch.tensor(0.5), 0.25),
    ):
        verdict: Any = Verdict(np.bool_(True), np.str_("open"), expected, [component])  # type: ignore[arg-type]
        hooks["evaluate"] = lambda seen, verdict=verdict: verdict
        decision = engine.decide("a", GOOD)
        kinds = [type(part) for part in (decision.send, decision.reason, decision.expected_reward)]
        assert kinds == [bool, str, float]
        assert decision.components == (0.25,)
        engine.reward("a", 0)
        assert (rows(engine)[-1]["expected_reward"], rows(engine)[-1]["components"].tolist()) == (0.5, [0.25])


def test_a_computed_reward_that_is_no_number_rewards_nothing(hostile: Made) -> None:
    """The observation is decided all the same, the failure is counted, and the gate hears of no reward."""
    engine, hooks = hostile(gate=True, reward=True)
    engine.decide("a", GOOD)
    for count, value in enumerate([*TOO_LARGE, *NO_NUMBERS], start=1):
        hooks["reward"] = lambda context, seen, value=value: (value, {})
        decision = engine.decide("a", GOOD)
        assert (decision.last_reward, decision.recent_rewards) == (None, ())
        assert engine.lane.get("errors") == count
    assert "rewarded" not in hooks
    assert len(rows(engine)) == 0
    hooks["reward"] = lambda context, seen: (np.float32(0.5), {"part": decimal.Decimal("0.5")})
    decision = engine.decide("a", GOOD)
    assert (decision.last_reward, decision.last_components, hooks["rewarded"]) == (0.5, {"part": 0.5}, [0.5])
    assert rows(engine)["actual_reward"].tolist() == [0.5]
    assert accounted(engine)


def test_a_context_that_does_not_fit_costs_one_record(hostile: Made) -> None:
    """Counted as an error; the answer comes, and neither an older decision nor a later one takes the blame."""
    engine, hooks = hostile(reward=True)
    contexts = [None, "x", np.zeros(3), np.zeros(2, [("before", "<f4")]), {}, Vexing(), Unreadable(), KeyError("a")]
    for count, value in enumerate(contexts, start=1):
        engine.decide(f"{count}", [0.25, 0])
        hooks["context"] = lambda seen, value=value: raising(value) if isinstance(value, Exception) else value
        decision = engine.decide(f"{count}", [0.5, 0])
        assert decision.last_reward == 0.25
        assert engine.lane.get("errors") == count
        del hooks["context"]
        assert not engine.failed(f"{count}", decision.action)
        assert engine.decide(f"{count}", [0.75, 0]).last_reward is None
        assert engine.decide(f"{count}", [1.0, 0]).last_reward == 0.25
        assert rows(engine)["actual_reward"].tolist() == [0.25, 0.25] * count
    assert accounted(engine)


def test_a_context_that_reuses_its_memory_mixes_nothing(hostile: Made) -> None:
    """Each key's reward is computed from its own earlier observation."""
    engine, hooks = hostile(reward=True)
    room = np.zeros((), [("before", "<f4")])

    def context(seen: Any) -> Any:
        room["before"] = seen[0]
        return room

    hooks["context"] = context
    engine.decide("a", [0.25, 0])
    engine.decide("b", [0.5, 0])
    assert engine.decide("a", [1.0, 0]).last_reward == 0.75


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_in_encode_passes_with_nothing_half_done(hostile: Made, interrupt: type[BaseException]) -> None:
    """It is the host's own; the others of the batch are untouched and decided when they are asked again."""
    engine, hooks = hostile(encode=True, reward=True)
    engine.decide("g", [0.25, 0])
    before = engine.get_stats()
    hooks["encode"] = lambda seen: raising(interrupt()) if seen[0] == 9 else np.array(seen, np.float32)
    with pytest.raises(interrupt):
        engine.decide_many([("g", GOOD, ""), ("b", [9, 0], ""), ("h", GOOD, "")])
    assert engine.get_stats() == before
    first, second = engine.decide_many([("g", [0.75, 0], ""), ("h", GOOD, "")])
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert first.last_reward == 0.5
    assert accounted(engine)


def test_an_application_that_calls_its_engine_is_told_so(hostile: Made) -> None:
    """From within `encode`, a gate or a reward: an error there, not a server that waits for itself."""
    engine, hooks = hostile(gate=True)
    told: list[str] = []

    def evaluate(seen: Any) -> Verdict:
        try:
            engine.reward("a", 0.5)
        except TandemError as error:
            told.append(str(error))
        return Verdict(True, "open", 0.5, (0.5,))

    hooks["evaluate"] = evaluate
    assert engine.decide("a", GOOD).send
    assert "must not call the engine" in told[0]
    assert engine.reward("a", 0.5)


@pytest.mark.parametrize("value", ["NaN", 1e39, None, "0.5"], ids=repr)
def test_a_failed_reward_that_is_no_number_is_refused_at_attach(hostile: Made, value: Any) -> None:
    """By the application's name, and the lane stays free."""
    with pytest.raises(ApplicationError, match="hostile: failed_reward: "):
        hostile(failed_reward=value)
