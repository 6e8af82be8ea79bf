"""The learning watch: what counts as a movement of the parameters, and what as coasting on momentum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tandem.shared.training.watch import Coast, is_moved, parameter_bytes
from tandem.shared.weights.flat_model import FlatModel

torch.set_num_threads(1)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


class Norm(torch.nn.Module):
    """A layer, and running statistics that move by themselves."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4, dtype=dtype)
        self.layer = torch.nn.Linear(4, 3, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_move_and_buffers_do_not_count(dtype: torch.dtype) -> None:
    """A change of any parameter by more than 1e-9 of the norm is a movement; one of a buffer is none."""
    flat = FlatModel(Norm(dtype))
    parameters, before = parameter_bytes(flat), flat.flat.clone()
    assert not is_moved(parameters, before, flat.flat)
    assert isinstance(flat.model, Norm)
    flat.model.norm.running_mean.add_(1.0)  # type: ignore[union-attr]
    flat.model.norm.num_batches_tracked.add_(1)  # type: ignore[operator,union-attr]
    assert not is_moved(parameters, before, flat.flat)
    with torch.no_grad():
        flat.model.layer.bias[1] += 0.01
    assert is_moved(parameters, before, flat.flat)


def test_a_movement_in_the_last_block_of_a_large_model_is_seen() -> None:
    """What is looked at in blocks is looked at to its end if nothing moved before."""
    flat = FlatModel(torch.nn.Linear(300, 200))
    parameters, before = parameter_bytes(flat), flat.flat.clone()
    assert isinstance(flat.model, torch.nn.Linear)
    with torch.no_grad():
        flat.model.weight[-1, -1] += 0.01
    assert is_moved(parameters, before, flat.flat)
    flat.flat.copy_(before)
    with torch.no_grad():
        flat.model.weight[-1, -1] += 1e-12
    assert not is_moved(parameters, before, flat.flat)


def coasted(step: Callable[[int], None], model: FlatModel, steps: int = 60) -> list[bool]:
    """What Coast says of each of so many steps."""
    coast, said = Coast(parameter_bytes(model)), []
    for number in range(steps):
        before = model.flat.clone()
        step(number)
        said.append(coast.look(before, model.flat))
    return said


@pytest.mark.parametrize("kind", ["adam", "momentum"])
@pytest.mark.parametrize("size", [(2, 3), (64, 32)])
def test_momentum_without_gradient_coasts(kind: str, size: tuple[int, int]) -> None:
    """From the first steps after the last gradient to the last bit that moves."""
    torch.manual_seed(1)
    model = FlatModel(torch.nn.Linear(*size))
    parameters = list(model.model.parameters())
    optimiser = (
        torch.optim.Adam(parameters, lr=0.003)
        if kind == "adam"
        else torch.optim.SGD(parameters, lr=0.003, momentum=0.9)
    )

    def step(number: int) -> None:
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) if number < 20 else torch.zeros_like(parameter)
        optimiser.step()

    said = coasted(step, model)
    assert not any(said[:20])
    assert all(said[22:])


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("rows", [8, 1000])
def test_training_does_not_coast(kind: str, rows: int) -> None:
    """Neither on the same few rows again and again, which is smooth, nor on drawn ones."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    model = FlatModel(torch.nn.Linear(4, 3))
    parameters = list(model.model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=0.003) if kind == "adam" else torch.optim.SGD(parameters, lr=0.1)
    inputs, targets = torch.randn(rows, 4), torch.randn(rows, 3)

    def step(number: int) -> None:
        picks = torch.from_numpy(rng.choice(rows, size=min(rows, 32), replace=False))
        optimiser.zero_grad()
        (model.model(inputs[picks]) - targets[picks]).square().mean().backward()
        optimiser.step()

    said = coasted(step, model, 500)
    longest = max(len(run) for run in "".join("x" if one else " " for one in said).split(" "))
    assert longest < 5
