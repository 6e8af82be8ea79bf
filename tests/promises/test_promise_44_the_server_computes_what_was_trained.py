"""From the published bytes a server computes what the trainer trained, or the model is refused by name at `up`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from proof import figure
from tandem.inference_proc.live_model import LiveModel
from tandem.shared.application import ActionHead
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.errors import TandemError
from tandem.shared.instance import seeded_model
from tandem.shared.learning import Batch
from tandem.shared.model_checks.check import checked_model, difference
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.subscriber import Look
from tandem.trainer_proc.learner import PolicyGradient
from user_models import BAD, CHOICES, FEATURES, GOOD, application_of

MakeChannel = Callable[..., Any]
CONFIG = ContinuousTrainingConfig(seed=1, learning_rate=0.01)
STEPS = 5


@pytest.fixture(autouse=True, name="one_thread")
def compute_with_one_thread() -> Iterator[None]:
    """Small tensors on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def refused(build: Callable[[], Any], words: tuple[str, ...]) -> bool:
    """True if `up` refuses this model, naming its fault."""
    application = application_of(build)
    try:
        checked_model(application, CONFIG, functools.partial(seeded_model, application))
    except TandemError as error:
        return all(word in str(error) for word in words)
    return False


def train(flat: FlatModel) -> None:
    """Steps of the default learner."""
    learner = PolicyGradient(flat.model, (ActionHead("arm", CHOICES),), CONFIG)
    for step in range(STEPS):
        random = torch.Generator().manual_seed(step)
        batch = Batch(
            observations=torch.rand(16, FEATURES, generator=random),
            actions=torch.randint(0, CHOICES, (16, 1), generator=random),
            rewards=torch.rand(16, generator=random),
            probabilities=torch.full((16,), 1 / CHOICES),
            sent=torch.ones(16, dtype=torch.bool),
        )
        # One of the models fails at its first step and never again.
        with contextlib.suppress(RuntimeError):
            learner.step(batch)


def logits(model: torch.nn.Module) -> list[Any]:
    observations = torch.rand(32, FEATURES, generator=torch.Generator().manual_seed(9))
    torch.manual_seed(1)
    with torch.inference_mode():
        return [head.numpy().copy() for head in model.eval()(observations)]


def two_builds(build: Callable[[], Any]) -> tuple[FlatModel, FlatModel]:
    application = application_of(build)
    return FlatModel(seeded_model(application, 1)), FlatModel(seeded_model(application, 2))


def test_promise_44_a_model_that_its_bytes_do_not_carry_is_refused() -> None:
    """Each kind of hidden state, tie, buffer and hook, by name."""
    found = [name for name, (build, words) in BAD.items() if refused(build, words)]
    assert found == list(BAD)
    figure(44, f"{len(found)} of {len(BAD)} models with hidden state or other faults refused by name")


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_promise_44_a_sound_model_is_served_as_it_was_trained(channel: MakeChannel, name: str, in_place: bool) -> None:
    """Built with another seed, by way of a slot that is copied or read in place: the same logits, bit for bit."""
    trained, served = two_builds(GOOD[name])
    before = trained.flat.clone()
    made = channel(weights=trained.layout, publish=False)
    train(trained)
    assert not torch.equal(trained.flat, before)
    Publisher(made.slots()).publish(trained.flat, 1)
    live = LiveModel(served, made.slots(), in_place)
    assert live.refresh() is Look.TAKEN
    assert difference(logits(trained.model), logits(live.flat.model)) == 0.0
    figure(44, f"{len(GOOD)} sound models: 0 logits differ between trainer and server, copied and in place")


def test_without_the_check_the_server_computes_something_else() -> None:
    """Models of those that are refused would decide with what nobody trained."""
    for name in (
        "UnsavedBuffer",
        "PlainAttribute",
        "NestedAttribute",
        "ModulesInAList",
        "BufferAssignedAnewInTraining",
        "AttributeChangedByTraining",
        "TiedByAPlainView",
        "GlobalVariable",
    ):
        trained, served = two_builds(BAD[name][0])
        train(trained)
        served.bind(trained.flat)
        assert difference(logits(trained.model), logits(served.model)) > 1e-3, name
