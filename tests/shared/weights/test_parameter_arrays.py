"""numpy views of parameters follow them wherever they go."""

from __future__ import annotations

import copy

import numpy as np
import torch
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.parameter_arrays import ParameterArrays


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.arrays = ParameterArrays(self)


def is_current(model: Model) -> bool:
    """True if the arrays hold what the parameters hold."""
    arrays = model.arrays()
    return set(arrays) == {"layer.weight", "layer.bias"} and all(
        np.array_equal(arrays[name], parameter.detach().numpy()) for name, parameter in model.named_parameters()
    )


def test_they_follow_changes_and_moves() -> None:
    """Written in place, pointed at another flat buffer and back, or one parameter alone pointed elsewhere."""
    model = Model()
    flat = FlatModel(model)
    assert is_current(model)
    with torch.no_grad():
        model.layer.weight.add_(1.0)
    assert is_current(model)
    first = flat.flat
    other = torch.zeros_like(first)
    flat.bind(other)
    assert is_current(model)
    assert not model.arrays()["layer.weight"].any()
    flat.bind(first)
    assert is_current(model)
    model.layer.bias.data = torch.tensor([5.0, 6.0])
    assert is_current(model)


def test_a_copy_has_views_of_its_own() -> None:
    """Training a copy of the model changes the copy's arrays and not the original's."""
    model = Model()
    model.arrays()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.layer.weight.fill_(7.0)
    assert is_current(twin)
    assert is_current(model)
    assert not (model.arrays()["layer.weight"] == 7.0).any()


def test_memory_is_not_mistaken_for_another() -> None:
    """However often the parameters move, the arrays are those of the newest place, and old ones are let go."""
    model = Model()
    for number in range(100):
        model.layer.weight.data = torch.full((2, 2), float(number))
        assert is_current(model)
    assert len(model.arrays._kept) <= 16
