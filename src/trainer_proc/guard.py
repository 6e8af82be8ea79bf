"""The publish guard: refuses a candidate that must not reach a decision."""

from __future__ import annotations

import torch

from ..shared.weights import FlatModel


def find_fault(flat: FlatModel) -> str | None:
    """Name of the first tensor with a value that is not finite, with the reason; None if all is well."""
    for name, tensor in flat.state().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"{name} has a value that is not finite"
    return None
