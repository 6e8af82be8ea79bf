"""Tensors that left the flat buffer come back into it, with their values."""

from __future__ import annotations

import pytest
import torch
from tandem.shared.weights.binding import Binding
from tandem.shared.weights.flat_model import FlatModel


class Normed(torch.nn.Module):
    """A layer, a tied one, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.tied = torch.nn.Linear(3, 3)
        self.tied.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(3)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        """Logits of one head."""
        return (self.tied(self.norm(self.first(observations))),)


def replace_parameter(model):
    model.first.bias = torch.nn.Parameter(torch.full((3,), 7.0))
    return "first.bias"


def move_parameter(model):
    model.first.bias.data = torch.full((3,), 7.0)
    return "first.bias"


def move_tied(model):
    model.tied.weight.data = torch.full((3, 3), 7.0)
    return "first.weight"


def assign_buffer(model):
    model.seen = torch.full((3,), 7.0)
    return "seen"


def convert(model):
    with torch.no_grad():
        model.first.bias.fill_(7.0)
    model.double()
    return "first.bias"


@pytest.mark.parametrize("change", [replace_parameter, move_parameter, move_tied, assign_buffer, convert])
def test_whatever_was_replaced_is_published(change):
    """The flat buffer holds the new values, and the model computes with it again."""
    flat = FlatModel(Normed())
    binding = Binding(flat)
    assert binding.restore() == []
    name = change(flat.model)
    assert name in binding.restore()
    assert (flat.state()[name] == 7.0).all()
    flat.state()[name].fill_(3.0)
    assert (flat.model.state_dict()[name] == 3.0).all()
    assert flat.model.state_dict()[name].dtype == torch.float32
    assert flat.model.tied.weight is flat.model.first.weight
    assert binding.restore() == []


def test_other_memory_is_followed():
    """A model that was bound to other memory on purpose belongs there from then on."""
    flat = FlatModel(Normed())
    binding = Binding(flat)
    flat.bind(flat.flat.clone())
    assert binding.restore() == []
    assign_buffer(flat.model)
    assert binding.restore() == ["seen"]
    assert (flat.state()["seen"] == 7.0).all()


def test_what_has_no_place_is_left_alone():
    """A buffer of another shape, or none at all, is not forced into the flat buffer."""
    flat = FlatModel(Normed())
    binding = Binding(flat)
    flat.model.seen = torch.zeros(9)
    assert binding.restore() == []
    flat.model.seen = None
    assert binding.restore() == []
