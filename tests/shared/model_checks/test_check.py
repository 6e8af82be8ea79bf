"""What a model must be: faults are named before anything is created, and sound models pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tandem.shared.application import Application, load_application
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.errors import ApplicationError, TandemError
from tandem.shared.instance import seeded_model
from tandem.shared.model_checks.check import checked_model
from tandem.shared.weights.flat_model import FlatModel
from user_models import BAD, GOOD, Plain, application_of

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True, name="one_thread")
def compute_with_one_thread() -> Iterator[None]:
    """Small tensors on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(application: Application, seed: int = 1, **settings: Any) -> FlatModel:
    config = ContinuousTrainingConfig(seed=seed, **settings)
    return checked_model(application, config, functools.partial(seeded_model, application))


@pytest.mark.parametrize("name", BAD)
def test_a_model_that_its_bytes_do_not_carry_is_refused_by_name(name: str) -> None:
    """One line names the application, what is wrong and what is right."""
    build, words = BAD[name]
    with pytest.raises(TandemError) as caught:
        check(application_of(build))
    message = str(caught.value)
    assert message.startswith("application shop: ")
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("seed", [-1, 1])
@pytest.mark.parametrize("name", GOOD)
def test_a_sound_model_passes(name: str, seed: int) -> None:
    """And its bytes are what they were without the check."""
    application = application_of(GOOD[name])
    flat = check(application, seed)
    if seed < 0:
        return
    same = FlatModel(seeded_model(application, seed))
    assert torch.equal(flat.flat, same.flat)
    assert flat.cut_off() == []


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("settings", [{"model": "candidates"}, {"model": "split_head"}])
def test_the_queens_models_pass(settings: dict[str, Any], seed: int, tmp_path: Path) -> None:
    """Both of them."""
    check(load_application("tandem.queen", settings, tmp_path), seed)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("plain_script", "greenhouse"), ("fastapi_app", "shop"), ("threaded", "cache"), ("two_workers", "router")],
)
def test_the_examples_models_pass(folder: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them."""
    monkeypatch.syspath_prepend(str(EXAMPLES / folder))
    check(load_application(name, {}, EXAMPLES / folder))


def batch_norm() -> torch.nn.Module:
    model = Plain()
    model.layer = torch.nn.Sequential(torch.nn.BatchNorm1d(4), model.layer)  # type: ignore[assignment]
    return model


class CachesATensor(Plain):
    """What a decision computed is used by the next training step."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, torch.Tensor] = {}

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale = self.kept.setdefault(0, torch.ones(3) * 2)
        return (self.layer(observations) * scale,)


@pytest.mark.parametrize("build", [batch_norm, CachesATensor])
def test_coupled_training_is_tried_as_it_will_be(build: Callable[[], torch.nn.Module]) -> None:
    """With `enabled: false` there is one experience at a time, on a model of the trainer's own."""
    check(application_of(build))
    check(application_of(build), enabled=False)


def test_the_smallest_batch_is_tried() -> None:
    """A batch norm needs two; the setting that lets one come alone is named."""
    with pytest.raises(ApplicationError, match=r"on a batch of 1 \(trainer.min_batch_size\)"):
        check(application_of(batch_norm), min_batch_size=1)
    check(application_of(batch_norm), min_batch_size=2)


class MovesParameters:
    """A learner that gives the parameters other memory: what it trains is never published."""

    def __init__(self, model: torch.nn.Module, heads: Any, config: Any) -> None:
        self.model = model

    def step(self, batch: Any) -> None:
        for parameter in self.model.parameters():
            parameter.data = parameter.data + 1.0


class Diverges(MovesParameters):
    """A learner whose steps lead to infinity."""

    def step(self, batch: Any) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.div_(0.0)


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        ("MovesParameters", "training replaces layer.weight"),
        ("Diverges", "makes layer.weight infinite or NaN"),
        ("Missing", "has no 'Missing'"),
    ],
)
def test_the_configured_learner_is_tried(learner: str, words: str) -> None:
    """Its first steps are seen at `up`, not in the trainer's log."""
    with pytest.raises(ApplicationError, match=words):
        check(application_of(Plain), learner=f"{__name__}:{learner}")


def test_gradients_that_are_switched_off_do_no_harm() -> None:
    """Who switches them off for decisions does not switch off training; the switch stays as it is."""
    torch.set_grad_enabled(False)
    try:
        check(application_of(Plain))
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


def test_another_default_dtype_is_refused() -> None:
    """The learner's own tensors would have it too."""
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ApplicationError, match=r"torch\.set_default_dtype"):
            check(application_of(lambda: Plain().float()))
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_numbers_go_on_as_without_the_check() -> None:
    """The same seed gives the same start."""
    application = application_of(Plain)
    seeded_model(application, 5)
    expected = torch.rand(3)
    check(application, 5)
    assert torch.equal(torch.rand(3), expected)
