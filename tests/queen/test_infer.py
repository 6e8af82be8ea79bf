"""The policies' path for single observations agrees with their forward pass."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem.queen.features import CAPACITY, SLOT_WIDTH, SLOTS
from tandem.queen.model import build_model
from tandem.shared.application import check_infer
from tandem.shared.weights.flat_model import FlatModel

MODELS = ("candidates", "split_head")
SHARES = st.floats(0, 1, width=32)


@st.composite
def features(draw: st.DrawFn, count: int = 28, chunks: int = 400) -> np.ndarray[Any, Any]:
    """What the encoder may give: slots of existing chunks first, empty ones after them, shares in 0..1."""
    values = np.zeros(count, np.float32)
    for slot in range(draw(st.integers(0, SLOTS))):
        base = slot * SLOT_WIDTH
        values[base] = draw(st.integers(0, chunks - 1)) / max(1, chunks - 1)
        values[base + 1] = draw(st.floats(np.float32(0.01), 1, width=32))
        values[base + 2 : base + SLOT_WIDTH] = [draw(SHARES) for _ in range(SLOT_WIDTH - 2)]
    values[CAPACITY:] = [draw(st.one_of(st.just(0.0), SHARES)) for _ in range(count - CAPACITY)]
    return values


def varied(name: str, count: int, axis: int, seed: int) -> torch.nn.Module:
    """A model with weights as after some training."""
    torch.manual_seed(seed)
    model = build_model(name, count, axis)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data(), shape=st.sampled_from([(28, 20), (29, 16), (28, 3)]), seed=st.integers(0, 20))
@settings(max_examples=150, deadline=None)
def test_infer_agrees_with_forward(name: str, data: st.DataObject, shape: tuple[int, int], seed: int) -> None:
    """For every observation that the encoder can give and any weights, to 1e-5; masked types are the same."""
    count, axis = shape
    model = varied(name, count, axis, seed)
    rows = np.stack([data.draw(features(count, axis * axis)) for _ in range(3)])
    assert check_infer(model, rows) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_infer_takes_new_weights_at_once(name: str) -> None:
    """Weights that are written, pointed elsewhere or belong to a copy of the model are the ones that decide."""
    model = varied(name, 28, 20, 1)
    row = np.linspace(0.1, 0.9, 28, dtype=np.float32)
    before = model.infer(row)[0]
    flat = FlatModel(model)
    other = FlatModel(varied(name, 28, 20, 2))
    flat.bind(other.flat.clone())
    assert check_infer(model, row[np.newaxis]) < 1e-5
    assert not np.allclose(model.infer(row)[0], before)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    assert check_infer(twin, row[np.newaxis]) < 1e-5
    assert check_infer(model, row[np.newaxis]) < 1e-5
