"""The policy draws from its masked distribution and says exactly how likely the draw was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest
import torch
from tandem.inference_proc.policy import Draw, Policy
from tandem.shared.actions.offer import Offer
from tandem.shared.application import MASKED, ActionHead
from tandem.shared.configuration.config import InferenceConfig
from tandem.shared.models.logits_model import LogitsModel
from tandem.shared.models.reward_model import RewardModel


class Fixed(torch.nn.Module):
    """Gives the same logits for every observation."""

    def __init__(self, *heads: list[float]) -> None:
        super().__init__()
        self.heads = [torch.tensor(head) for head in heads]

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(head.expand(len(observations), -1) for head in self.heads)


def test_the_probability_is_that_of_the_draw() -> None:
    """The stored probability is the product of the choices' softmax probabilities, and draws occur that often."""
    policy = Policy(Fixed([0.0, 1.0, 2.0], [0.0, 0.5]), seed=1)
    first = torch.softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0)
    second = torch.softmax(torch.tensor([0.0, 0.5], dtype=torch.float64), 0)
    counts = np.zeros((3, 2))
    for draw in policy.act_many(np.zeros((4000, 4), np.float32)):
        assert draw.probability == pytest.approx(float(first[draw.action[0]] * second[draw.action[1]]))
        assert draw.head_probabilities[0] == pytest.approx(float(first[draw.action[0]]))
        counts[draw.action] += 1
    assert np.allclose(counts / 4000, torch.outer(first, second).numpy(), atol=0.03)


def test_a_masked_choice_is_never_drawn() -> None:
    """A masked choice has probability 0, with an exploration floor too."""
    policy = Policy(Fixed([MASKED, 0.0, MASKED, 3.0]), floor=0.5, seed=2)
    distribution = policy.distribution(np.array([MASKED, 0.0, MASKED, 3.0], np.float32))
    assert distribution[0] == distribution[2] == 0.0
    assert distribution.sum() == pytest.approx(1.0)
    assert {draw.action[0] for draw in policy.act_many(np.zeros((500, 1), np.float32))} == {1, 3}


class LayerCalledInfer(torch.nn.Module):
    """One layer, of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.infer = torch.nn.Linear(4, 3)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.infer(observations),)


def test_a_layer_called_infer_is_a_layer() -> None:
    """Only a method of that name decides in place of `forward`."""
    (draw,) = Policy(LayerCalledInfer(), seed=1).act_many(np.zeros((1, 4), np.float32))
    assert 0.0 < draw.probability < 1.0


def test_floor_and_temperature_shape_the_distribution() -> None:
    """The floor is shared evenly by the allowed choices; a higher temperature flattens."""
    logits = np.array([0.0, 4.0, MASKED], np.float32)
    floored = Policy(Fixed([0.0]), floor=0.2).distribution(logits)
    plain = Policy(Fixed([0.0])).distribution(logits)
    assert floored[0] == pytest.approx(0.8 * plain[0] + 0.1)
    assert Policy(Fixed([0.0]), temperature=4.0).distribution(logits)[0] > plain[0]


def test_a_seed_repeats_the_draws() -> None:
    """Two policies with the same seed draw the same actions."""
    features = np.zeros((50, 1), np.float32)
    draws = [[draw.action for draw in Policy(Fixed([0.0] * 9), seed=7).act_many(features)] for _ in range(2)]
    assert draws[0] == draws[1]


class Quick(Fixed):
    """Has a path of its own for single observations."""

    calls = 0

    def infer(self, features: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        return tuple(head.numpy() for head in self.heads)


def test_a_single_observation_takes_the_models_own_path() -> None:
    """`infer` decides single observations, `forward` several, and both draw the same with the same seed."""
    heads = [0.0] * 20, [0.0, 1.0]
    quick = Quick(*heads)
    policy, plain = Policy(quick, seed=5), Policy(Fixed(*heads), seed=5)
    features = np.zeros((1, 3), np.float32)
    assert [policy.act_many(features) for _ in range(50)] == [plain.act_many(features) for _ in range(50)]
    assert quick.calls == 50
    policy.act_many(np.zeros((2, 3), np.float32))
    assert quick.calls == 50
    assert policy.act(features[0]) is not None
    assert quick.calls == 51


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_few_and_many_choices_are_drawn_alike(size: int, temperature: float) -> None:
    """Whatever the number of choices, the probability said is the distribution's."""
    logits = np.random.default_rng(size).normal(size=size).astype(np.float32)
    logits[1] = MASKED
    policy = Policy(Fixed(logits.tolist()), temperature=temperature, seed=3)
    distribution = policy.distribution(logits)
    for draw in policy.act_many(np.zeros((300, 1), np.float32)):
        assert draw.probability == pytest.approx(distribution[draw.action[0]], rel=1e-12)
        assert draw.action != (1,)


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_logits_that_are_not_numbers_decide_nothing(size: int, floor: float) -> None:
    """A broken model raises; it never draws an action of unknown probability."""
    policy = Policy(Fixed([float("nan")] * size), floor=floor, seed=3)
    with pytest.raises(FloatingPointError, match="not numbers"):
        policy.act(np.zeros(1, np.float32))


@pytest.mark.parametrize("size", [3, 40])
def test_rounding_never_leads_past_the_end(size: int) -> None:
    """A random number next to 1 draws the last choice that is possible."""
    logits = [0.0] * (size - 1) + [MASKED]
    policy = Policy(Fixed(logits), seed=3)

    class Last:
        def random(self) -> float:
            return 1.0

    policy.rng = Last()  # type: ignore[assignment]
    draw = policy.act(np.zeros(1, np.float32))
    assert draw.action == (size - 2,)
    assert draw.probability == pytest.approx(1 / (size - 1))


class Dropping(torch.nn.Module):
    """Lets go of what is kept in the middle of a pass, as the garbage collector may."""

    def __init__(self, kept: list[BaseException]) -> None:
        super().__init__()
        self.kept = kept
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        self.kept.clear()
        return (self.layer(observations),)


def interrupt_at(line: int, call: Callable[[], object]) -> bool:
    """Run `call` and raise KeyboardInterrupt at the `line`-th moment of it; False if it has fewer.

    Moments are the beginnings of calls, where Python looks for signals, and every line of torch's.
    """
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal seen
        is_moment = event == "call" or (event == "line" and "torch" in frame.f_code.co_filename)
        seen += is_moment
        if is_moment and seen == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen >= line


def test_an_interrupted_pass_does_not_disturb_a_later_one() -> None:
    """Whatever line an exception arrives at, and however long somebody keeps it, later passes are as ever."""
    kept: list[BaseException] = []
    policy = Policy(Dropping(kept), seed=1)
    features = np.array([0.25, 0.5], np.float32)
    torch.set_grad_enabled(True)
    line, reached = 0, True
    while reached:
        line += 1
        try:
            reached = interrupt_at(line, lambda: policy.act(features))
        except KeyboardInterrupt as error:
            kept.append(error)
        assert 0.0 < policy.act(features).probability < 1.0, line
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert line > 20


class _Asked:
    def __init__(self, *masks: list[bool] | None) -> None:
        arrays = [np.array(mask) for mask in masks if mask is not None]
        self.offer = Offer(b"", arrays) if arrays else None


def _estimates(choices: int) -> RewardModel:
    model = RewardModel(2, choices)
    model.constant.copy_(torch.arange(choices, dtype=torch.float32) / choices)
    model.gamma.fill_(20.0)
    return model


@pytest.mark.parametrize(("temperature", "floor"), [(1.0, 0.0), (2.0, 0.2)])
@pytest.mark.parametrize("way", ["infer", "forward", "many", "logits"])
def test_draws_among_the_allowed_have_the_probability_that_is_told(way: str, temperature: float, floor: float) -> None:
    """As often as told, never another choice, and by the rule that would hold if there were no others."""
    model: torch.nn.Module = LogitsModel(2, (5,)) if way == "logits" else _estimates(5)
    fewer: torch.nn.Module = LogitsModel(2, (3,)) if way == "logits" else _estimates(3)
    kept = [0, 2, 3]
    with torch.no_grad():
        if way == "logits":
            model.heads[0].bias.copy_(torch.tensor([0.3, 9.0, -0.5, 1.0, 9.0]))  # type: ignore[union-attr,index]
            fewer.heads[0].bias.copy_(torch.tensor([0.3, -0.5, 1.0]))  # type: ignore[union-attr,index]
        else:
            fewer.constant.copy_(model.constant[kept])  # type: ignore[union-attr,index]
    policy, plain = (Policy(each, temperature, floor, seed=3) for each in (model, fewer))
    if way in ("forward", "many"):
        policy._infer = None
    asked = _Asked([index in kept for index in range(5)])
    row = np.zeros((1, 2), np.float32)
    expected = plain.distribution(plain._forward(row)[0][0])
    taken = np.zeros(5)
    for _ in range(1000 if way != "many" else 200):
        rows, all_asked = (row, [asked]) if way != "many" else (np.repeat(row, 6, axis=0), [asked] * 5 + [_Asked()])
        for draw in policy.act_many(rows.copy(), all_asked)[:5]:
            assert isinstance(draw, Draw)
            taken[draw.action[0]] += 1
            assert draw.probability == pytest.approx(expected[kept.index(draw.action[0])], rel=1e-4)
    assert taken[kept] / 1000 == pytest.approx(expected, abs=0.05)
    assert taken.sum() == taken[kept].sum() == 1000


def test_what_the_model_masks_stays_masked() -> None:
    """If nothing that is allowed is left, a ValueError says so; other requests of the batch are decided."""
    model = LogitsModel(2, (2, 3))
    with torch.no_grad():
        model.heads[1].bias[0] = MASKED  # type: ignore[index]
    policy = Policy(model, seed=1, head_names=("first", "second"))
    rows = np.zeros((3, 2), np.float32)
    asked = [_Asked([True, True], [True, False, False]), _Asked(), _Asked([False, True], [True, True, False])]
    draws = policy.act_many(rows, asked)
    assert isinstance(draws[0], ValueError)
    assert "head 'second'" in str(draws[0])
    assert isinstance(draws[1], Draw)
    assert isinstance(draws[2], Draw)
    assert draws[2].action == (1, 1)
    assert draws[2].probability == pytest.approx(1.0)


def test_server_processes_do_not_explore_alike() -> None:
    """From one seed each lane draws a sequence of its own; that of a lane is the same again."""
    settings = InferenceConfig(seed=3)
    drawn = [
        tuple(Policy.configured(torch.nn.Identity(), settings, (ActionHead("a", 2),), lane).rng.random(4))
        for lane in (0, 1, 2, 1)
    ]
    assert len(set(drawn)) == 3
    assert drawn[1] == drawn[3]
