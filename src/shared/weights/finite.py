"""Finding values that are not finite: in a model, in a learner's state, in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch


def is_finite(tensor: torch.Tensor) -> bool:
    """True if no value of the tensor is NaN or infinite; tensors of whole numbers always are."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    # One pass. A sum that overflows says nothing yet.
    if not tensor.is_complex() and math.isfinite(float(tensor.detach().sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with a value that is not finite."""
    return [name for name, tensor in tensors.items() if not is_finite(tensor)]


def became_not_finite(tensors: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the first tensor with a value that is not finite where `before` has a finite one, or nothing; None.

    A constant that was infinite or NaN already (a mask of -inf in a buffer, say) is as good as it was.
    """
    for name in not_finite(tensors):
        tensor, known = tensors[name], before.get(name)
        if known is None or known.shape != tensor.shape:
            return name
        if bool((torch.isfinite(known) & ~torch.isfinite(tensor)).any()):
            return name
    return None
