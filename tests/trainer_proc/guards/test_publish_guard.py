"""The publish guard: what it refuses, and what it lets through."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tandem.shared.application import ActionHead
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.weights.flat_model import FlatModel
from tandem.trainer_proc.guards.publish_guard import PublishGuard

HEADS = (ActionHead("spawn_chunk", 5),)
OBSERVATIONS = torch.rand(16, 4, generator=torch.Generator().manual_seed(1))


class Policy(torch.nn.Module):
    """One layer, and a buffer of whole numbers that no guard may stumble over."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 5)
        self.register_buffer("steps", torch.zeros(3, dtype=torch.int64))

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        """Logits of one head."""
        return (self.layer(observations),)


@pytest.fixture
def flat():
    """A model in a flat buffer."""
    torch.manual_seed(3)
    return FlatModel(Policy())


@pytest.fixture
def guard(flat):
    """A guard of that model with the default limits."""
    return PublishGuard(flat, HEADS, ContinuousTrainingConfig())


def test_a_small_step_passes(guard, flat):
    """A finite candidate near the weights in force is published."""
    before = flat.flat.clone()
    with torch.no_grad():
        flat.model.layer.weight.add_(0.01)
    assert guard.find_fault(before, OBSERVATIONS) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["layer.weight", "layer.bias"])
def test_a_value_that_is_not_finite_is_refused_by_name(guard, flat, name, value):
    """NaN and infinity in any tensor are refused, and the tensor is named."""
    before = flat.flat.clone()
    flat.state()[name].view(-1)[-1] = value
    assert guard.find_fault(before, OBSERVATIONS) == f"{name} has a value that is not finite"


def test_a_jump_is_refused_and_the_farthest_tensor_named(guard, flat):
    """A candidate that moves by more than guard_max_jump of the norm is refused; without the limit it passes."""
    before = flat.flat.clone()
    with torch.no_grad():
        flat.model.layer.bias.add_(5.0)
    fault = guard.find_fault(before, OBSERVATIONS)
    assert fault is not None
    assert "guard_max_jump: 0.5" in fault
    assert "layer.bias moves farthest, by 5" in fault
    guard.config = dataclasses.replace(guard.config, guard_max_jump=0.0)
    assert guard.find_fault(before, OBSERVATIONS) is None


def test_a_policy_that_collapses_in_one_step_is_refused(guard, flat):
    """A fall of the entropy below the limit to less than half is refused; being that sure already is not."""
    guard.config = dataclasses.replace(guard.config, guard_max_jump=0.0)
    before = flat.flat.clone()
    assert guard.find_fault(before, OBSERVATIONS) is None
    with torch.no_grad():
        flat.model.layer.bias[0] += 20.0
    fault = guard.find_fault(before, OBSERVATIONS)
    assert fault is not None
    assert "entropy would fall from 1." in fault
    assert guard.find_fault(flat.flat.clone(), OBSERVATIONS) is None
    guard.config = dataclasses.replace(guard.config, guard_min_entropy=0.0)
    assert guard.find_fault(before, OBSERVATIONS) is None


def test_a_policy_that_is_sure_of_the_first_rows_only_has_not_collapsed(guard, flat):
    """The glance at a few rows only says when to look at all of them."""
    guard.config = dataclasses.replace(guard.config, guard_max_jump=0.0)
    before = flat.flat.clone()
    with torch.no_grad():
        flat.model.layer.weight[0] = torch.tensor([50.0, 0.0, 0.0, 0.0])
        flat.model.layer.bias.zero_()
    observations = OBSERVATIONS.clone()
    observations[:4, 0], observations[4:, 0] = 1.0, 0.0
    assert guard.find_fault(before, observations[:4]) is not None
    assert guard.find_fault(before, observations) is None


def test_the_check_leaves_the_model_in_its_mode(guard, flat):
    """The entropy is measured as decisions are made, in evaluation mode, and the training mode is put back."""
    flat.model.train()
    guard.find_fault(flat.flat.clone(), OBSERVATIONS)
    assert flat.model.training


class Masked(Policy):
    """A policy with constants that are not finite, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), float("nan"), 0.0, 0.0]))
        self.register_buffer("mean", torch.ones(5))


@pytest.fixture
def masked():
    """That model and a guard of it."""
    torch.manual_seed(3)
    model = FlatModel(Masked())
    return model, PublishGuard(model, HEADS, ContinuousTrainingConfig())


def test_a_constant_that_never_was_finite_is_no_fault(masked):
    """A mask of -inf or NaN in a buffer refuses nothing; a value that becomes so is refused by name."""
    flat, guard = masked
    before = flat.flat.clone()
    with torch.no_grad():
        flat.model.layer.weight.add_(0.01)
    assert guard.find_fault(before, OBSERVATIONS) is None
    flat.state()["mask"][0] = float("-inf")
    assert guard.find_fault(before, OBSERVATIONS) == "mask has a value that is not finite"


def test_a_frozen_parameter_may_hold_a_constant_too(flat):
    """A jump is measured without it."""
    with torch.no_grad():
        flat.model.layer.bias[1] = float("-inf")
    guard = PublishGuard(flat, HEADS, dataclasses.replace(ContinuousTrainingConfig(), guard_min_entropy=0.0))
    before = flat.flat.clone()
    with torch.no_grad():
        flat.model.layer.weight.add_(0.01)
    assert guard.find_fault(before, OBSERVATIONS) is None
    with torch.no_grad():
        flat.model.layer.weight.add_(5.0)
    assert "guard_max_jump" in guard.find_fault(before, OBSERVATIONS)


def test_buffers_may_jump(masked):
    """Running statistics of raw features go far in one step; the parameters are what is compared."""
    flat, guard = masked
    before = flat.flat.clone()
    flat.state()["mean"].fill_(1e6)
    assert guard.find_fault(before, OBSERVATIONS) is None


@pytest.mark.parametrize("move", [5.0, 1e30])
def test_a_step_that_moves_too_far_can_be_shortened(masked, move):
    """The candidate is pulled back until it may be published: on the way it took, and not back to where it was."""
    flat, guard = masked
    before = flat.flat.clone()
    old = flat.model.layer.bias.detach().clone()
    with torch.no_grad():
        flat.model.layer.bias.add_(move)
    assert guard.find_fault(before, OBSERVATIONS) is not None
    share = guard.shorten(before, OBSERVATIONS)
    if move > 1e6:
        assert share == 0.0
        return
    assert guard.find_fault(before, OBSERVATIONS) is None
    assert torch.allclose(flat.model.layer.bias.detach() - old, torch.full((5,), move * share), rtol=1e-3)
    assert torch.isinf(flat.state()["mask"][1])


def test_logits_of_minus_infinity_have_an_entropy(flat):
    """A policy that masks with -inf is compared by the choices that are left."""

    class Hard(Policy):
        def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
            (logits,) = super().forward(observations)
            return (logits.masked_fill(torch.tensor([False, True, False, False, True]), float("-inf")),)

    flat = FlatModel(Hard())
    guard = PublishGuard(flat, HEADS, ContinuousTrainingConfig())
    assert 0.9 < guard._entropy(OBSERVATIONS) < 1.1
