"""Training goes on after any failed, refused or interrupted step: the published weights move as if nothing had been."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import mutants
import numpy as np
import pytest
import torch
from proof import figure
from tandem.shared.experiences.experience import Experience
from tandem.shared.memory.segments import remove_instance
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc import learner as learner_module
from tandem.trainer_proc.candidate import Candidate
from tandem.trainer_proc.trainer import ContinuousTrainer

# With more threads than idle cores every small tensor operation waits for the slowest.
torch.set_num_threads(1)

STEPS, BEFORE = 50, 10
LEARNERS = {"own": "tandem.trainer_proc.learner:PolicyGradient", "user": "learners:Plain"}
_controls: dict[str, float] = {}
_shares: list[float] = []


@contextlib.contextmanager
def in_forward(trainer: ContinuousTrainer, act: Callable[[], Any]) -> Iterator[None]:
    """While a forward pass runs, `act` happens."""
    handle = trainer.flat.model.register_forward_hook(lambda *_: act() and None)
    try:
        yield
    finally:
        handle.remove()


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def parameters(trainer: ContinuousTrainer) -> list[torch.nn.Parameter]:
    return list(trainer.flat.model.parameters())


def fails_in_forward(trainer: ContinuousTrainer) -> None:
    with in_forward(trainer, raising(RuntimeError("a transient failure"))):
        assert not trainer.loop.tick()
    assert trainer.control.get("metrics.total_errors") == 1


def fails_in_backward(trainer: ContinuousTrainer) -> None:
    handle = parameters(trainer)[0].register_hook(lambda _: raising(RuntimeError("out of memory"))())
    assert not trainer.loop.tick()
    handle.remove()


def fails_five_times(trainer: ContinuousTrainer) -> None:
    with in_forward(trainer, raising(RuntimeError("a failure for a while"))):
        for _ in range(5):
            assert not trainer.loop.tick()


def is_refused_for_a_jump(trainer: ContinuousTrainer) -> None:
    with in_forward(trainer, lambda: [p.data.add_(100.0) for p in parameters(trainer)]):
        assert not trainer.loop.tick()
    assert trainer.control.get("metrics.refused") == 1


def has_nan_in_a_gradient(trainer: ContinuousTrainer) -> None:
    handle = parameters(trainer)[0].register_hook(lambda gradient: gradient * torch.nan)
    assert not trainer.loop.tick()
    handle.remove()
    assert trainer.control.get("metrics.refused") == 1


def is_interrupted(trainer: ContinuousTrainer) -> None:
    handle = parameters(trainer)[-1].register_hook(lambda _: raising(KeyboardInterrupt())())
    with pytest.raises(KeyboardInterrupt):
        trainer.train_step()
    handle.remove()


def is_reloaded(trainer: ContinuousTrainer) -> None:
    trainer.configure(dataclasses.replace(trainer.config, entropy_weight=0.002))


def is_rolled_back(trainer: ContinuousTrainer) -> None:
    assert trainer.checkpoint()
    checkpoint = trainer.checkpoints.newest()
    assert checkpoint is not None
    trainer.roll_back(checkpoint, "the test")


def is_reset(trainer: ContinuousTrainer) -> None:
    fill(trainer, trainer.reset())


def loses_its_gradients(trainer: ContinuousTrainer) -> None:
    trainer.flat.model.zero_grad(set_to_none=True)


def gets_other_memory(trainer: ContinuousTrainer) -> None:
    for parameter in parameters(trainer):
        parameter.data = parameter.data.clone()


def gets_other_parameters(trainer: ContinuousTrainer) -> None:
    layer = trainer.flat.model.layer
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())


def is_converted(trainer: ContinuousTrainer) -> None:
    trainer.flat.model.double()


WAYS = [
    fails_in_forward,
    fails_in_backward,
    fails_five_times,
    is_refused_for_a_jump,
    has_nan_in_a_gradient,
    is_interrupted,
    is_reloaded,
    is_rolled_back,
    is_reset,
    loses_its_gradients,
    gets_other_memory,
    gets_other_parameters,
    is_converted,
]


def fill(trainer: ContinuousTrainer, version: int = 0) -> None:
    """Experiences in which place 2 earns 1 and the others -1."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        place = int(rng.integers(5))
        trainer.buffer.add(
            Experience(
                rng.random(4, dtype=np.float32), place, int(rng.integers(2)), 0.2, "SEND", 0.0,
                actual_reward=1.0 if place == 2 else -1.0, probability=0.1, model_version=version,
            )
        )  # fmt: skip


@pytest.fixture
def trainer(toy_instance: Callable[..., Any], instance_name: str) -> Iterator[Callable[[str], ContinuousTrainer]]:
    """Makes a trainer with experiences on an instance of its own, ten steps old."""
    made: list[ContinuousTrainer] = []

    def make(learner: str) -> ContinuousTrainer:
        if made:
            made.pop().buffer.close()
            remove_instance(instance_name)
        instance = toy_instance(trainer={"learner": LEARNERS[learner]})
        made.append(ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=1)))
        fill(made[-1])
        for _ in range(BEFORE):
            assert made[-1].train_step()
        return made[-1]

    yield make
    for each in made:
        each.buffer.close()


def moved(trainer: ContinuousTrainer) -> float:
    """How far the published weights move in the next 50 steps."""
    before = trainer.candidate.in_force().clone().view(torch.float32)
    for _ in range(STEPS):
        trainer.loop.tick()
    return float((trainer.candidate.in_force().view(torch.float32) - before).norm())


def share_of_control(
    make: Callable[[str], ContinuousTrainer], way: Callable[[ContinuousTrainer], None], learner: str
) -> float:
    """How far the weights move after the interruption, in units of how far they move without one."""
    if learner not in _controls:
        _controls[learner] = moved(make(learner))
    interrupted = make(learner)
    way(interrupted)
    return moved(interrupted) / _controls[learner]


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_promise_41_training_goes_on(
    trainer: Callable[[str], ContinuousTrainer], way: Callable[[ContinuousTrainer], None], learner: str
) -> None:
    """After an interruption of any kind the weights move at least half as far as without it, in the next 50 steps."""
    share = share_of_control(trainer, way, learner)
    assert share >= 0.5
    _shares.append(share)
    if len(_shares) == len(WAYS) * len(LEARNERS):
        figure(41, f"{min(_shares):.2f} to {max(_shares):.2f} of the control after {len(_shares)} interruptions")


@pytest.mark.parametrize("repeated", ["gradients", "memory"])
def test_promise_41_also_when_it_happens_in_every_step(
    trainer: Callable[[str], ContinuousTrainer], repeated: str
) -> None:
    """A model that drops its gradients, or moves its parameters, in each forward pass is trained all the same."""
    way = loses_its_gradients if repeated == "gradients" else gets_other_memory

    def from_now_on(each: ContinuousTrainer) -> None:
        each.flat.model.register_forward_hook(lambda *_: way(each))

    assert share_of_control(trainer, from_now_on, "own") >= 0.5


def test_cutting_the_gradients_off_stops_the_learning(
    trainer: Callable[[str], ContinuousTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same measure finds a way back that ends in `zero_grad()`, with a leaf that is never mended."""
    original = Candidate.go_back

    def go_back(self: Candidate) -> None:
        original(self)
        self.flat.model.zero_grad(set_to_none=True)

    monkeypatch.setattr(learner_module, "Joined", mutants.Unmended)
    assert share_of_control(trainer, lambda _: None, "own") > 0.9
    monkeypatch.setattr(Candidate, "go_back", go_back)
    for way in (fails_in_forward, has_nan_in_a_gradient, is_refused_for_a_jump):
        assert share_of_control(trainer, way, "own") < 0.5
