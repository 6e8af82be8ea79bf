"""Values that are not finite: which there are, and which became so."""

from __future__ import annotations

import pytest
import torch
from tandem.shared.weights.finite import became_not_finite, is_finite, not_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_bad_value_is_found(value):
    """Wherever it stands; infinities that cancel out in a sum too."""
    tensor = torch.zeros(3, 4)
    assert is_finite(tensor)
    tensor[2, 1] = value
    assert not is_finite(tensor)
    tensor[0, 0] = -value
    assert not is_finite(tensor)


def test_large_values_and_whole_numbers_are_finite():
    """A sum that overflows is no fault, and neither is a tensor without values."""
    assert is_finite(torch.full((4,), 3e38))
    assert is_finite(torch.full((4,), 60000.0, dtype=torch.float16))
    assert is_finite(torch.tensor([2**60, 1]))
    assert is_finite(torch.empty(0))
    assert not_finite({"a": torch.tensor([1.0, NAN]), "b": torch.ones(2)}) == ["a"]


def test_what_was_infinite_before_is_no_fault():
    """A constant is as good as it was; another place, another shape or an unknown tensor is a fault."""
    mask = torch.tensor([0.0, -INF, NAN])
    assert became_not_finite({"mask": mask.clone()}, {"mask": mask}) is None
    assert became_not_finite({"mask": torch.tensor([-INF, -INF, NAN])}, {"mask": mask}) == "mask"
    assert became_not_finite({"mask": mask}, {"mask": mask[:2]}) == "mask"
    assert became_not_finite({"mask": mask}, {}) == "mask"
