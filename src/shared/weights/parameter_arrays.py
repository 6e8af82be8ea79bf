"""numpy views of a model's parameters, for models that offer `infer`.

Asking a module for a parameter and making an array of it costs 4 us each time; a small network is computed in 40.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_KEPT = 16
"""Places in memory whose views are kept: an engine's two buffers, or the weights slots, take turns."""


def method_infer(model: torch.nn.Module) -> Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]] | None:
    """The model's method `infer`, if it has one. A layer or a value of that name is not meant."""
    infer = getattr(model, "infer", None)
    return infer if callable(infer) and not isinstance(infer, torch.nn.Module) else None


class ParameterArrays:
    """`arrays()` gives the parameters (with `buffers` the buffers) by name as numpy arrays on the memory where they lie
    now; do not write to them.

    Keep one on the module, made at the end of its `__init__`. The parameters must be on the CPU.
    """

    def __init__(self, module: torch.nn.Module, buffers: bool = False) -> None:
        self._parameters: dict[str, torch.Tensor] = dict(
            module.named_buffers() if buffers else module.named_parameters()
        )
        self._kept: dict[tuple[int, ...], dict[str, NDArray[Any]]] = {}

    def __call__(self) -> dict[str, NDArray[Any]]:
        # A view keeps its memory alive: nothing else can come to lie at an address that is kept here.
        places = tuple([parameter.data_ptr() for parameter in self._parameters.values()])
        arrays = self._kept.get(places)
        if arrays is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            arrays = {name: np.asarray(parameter.detach().numpy()) for name, parameter in self._parameters.items()}
            self._kept[places] = arrays
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the module looks at its own parameters; copies of the views would be of nobody's.
        return {"_parameters": self._parameters, "_kept": {}}
