"""How many threads a training step gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.trainer_proc.devices import fit_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two threads at first, and afterwards what there was."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("setting", "size", "wanted"), [(0, 30_000, 1), (0, 50_000_000, 2), (2, 30_000, 2)])
def test_a_small_model_is_trained_by_one_thread(setting: int, size: int, wanted: int) -> None:
    """Unless `threads` says otherwise."""
    fit_threads(ContinuousTrainingConfig(threads=setting), size)
    assert torch.get_num_threads() == wanted
