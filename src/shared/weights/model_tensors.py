"""A model's tensors: those that are carried (published and saved), and those that hide from it.

Carried are the parameters and the persistent buffers of registered modules. Everything else a model computes with, a
tensor kept as a plain attribute or a module in a list, is built anew in each process and never published.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import ModelMismatch
from .parameter_arrays import ParameterArrays

_MOST_OBJECTS = 20_000
"""So many objects are looked through for hidden state; a model that holds more is searched in part."""
_OF_TORCH = frozenset(vars(nn.Module()))


def carried_tensors(model: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by name, tied ones under each of their names: what is published and saved.

    In the order of `state_dict`, which itself is not asked: hooks may leave out or replace what it gives.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model._parameters.items():
        if parameter is not None:
            tensors[f"{prefix}{name}"] = parameter
    for name, buffer in model._buffers.items():
        if buffer is not None and name not in model._non_persistent_buffers_set:
            tensors[f"{prefix}{name}"] = buffer
    for name, child in model._modules.items():
        if child is not None:
            tensors.update(carried_tensors(child, f"{prefix}{name}."))
    return tensors


def check_tensor(name: str, tensor: torch.Tensor) -> None:
    """Raise ModelMismatch, naming the tensor, if its values cannot be kept as plain bytes."""
    if torch.nn.parameter.is_lazy(tensor):
        raise ModelMismatch(
            f"{name} has no shape yet (a lazy module): give the sizes, or call the model once when built"
        )
    if tensor.is_meta:
        raise ModelMismatch(f"{name} is on the device 'meta' and has no values: build the model on the CPU")
    if tensor.layout != torch.strided:
        raise ModelMismatch(f"{name}: layout {tensor.layout} cannot be shared; use a dense tensor")
    if tensor.numel() and _span(tensor) < tensor.numel():
        raise ModelMismatch(f"{name} {list(tensor.shape)} repeats its own memory (expand, as_strided): clone it")


def check_overlaps(tensors: list[tuple[str, torch.Tensor]]) -> None:
    """Raise ModelMismatch if two of these tensors share memory: as separate copies they would no longer be tied."""
    places = sorted(
        (str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + _span(tensor) * tensor.element_size(), name)
        for name, tensor in tensors
        if tensor.numel()
    )
    for (device, _, end, name), (next_device, start, _, other) in itertools.pairwise(places):
        if device == next_device and start < end:
            first, second = sorted((name, other))
            raise ModelMismatch(
                f"{second} shares memory with {first} in another shape or order (a transpose or a slice), and such a "
                f"tie would be cut: keep one of them and compute the other from it in forward"
            )


def _span(tensor: torch.Tensor) -> int:
    """How many elements of its storage a tensor that is not empty reaches over."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@dataclass(frozen=True)
class Hidden:
    """A tensor, numpy array or plain value that a model holds and that is not carried; `kind` says how it is held."""

    value: Any
    kind: str

    @property
    def is_trained(self) -> bool:
        """True for a tensor that asks for gradients of its own: nobody would train it."""
        return isinstance(self.value, torch.Tensor) and self.value.requires_grad and self.value.is_leaf

    def equals(self, other: Hidden | None) -> bool:
        """True if both hold the same, bit for bit."""
        if other is None or type(self.value) is not type(other.value):
            return False
        if isinstance(self.value, torch.Tensor):
            mine, theirs = self.value.detach(), other.value.detach()
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype or mine.layout != theirs.layout:
                return False
            return bool(mine.is_meta or _same_numbers(mine, theirs))
        if isinstance(self.value, np.ndarray):
            return bool(self.value.dtype == other.value.dtype and self.value.tobytes() == other.value.tobytes())
        return bool(self.value == other.value)


def _same_numbers(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    """True if both are equal, NaN in the same places included, or of a kind that torch cannot compare."""
    try:
        mine, theirs = mine.to_dense(), theirs.to_dense()
        return torch.equal(mine, theirs) or bool(((mine == theirs) | ((mine != mine) & (theirs != theirs))).all())
    except (RuntimeError, NotImplementedError):
        return True


def hidden_state(model: nn.Module) -> dict[str, Hidden]:
    """What a model holds and does not carry, by the path where it is found (`blocks[0].weight`)."""
    search = _Search(model)
    return dict(search.run())


class _Search:
    """A walk through everything that can be reached from a model's own attributes."""

    def __init__(self, model: nn.Module) -> None:
        self._registered = {id(module) for module in model.modules()}
        self._carried = {id(tensor) for tensor in carried_tensors(model).values()}
        self._seen: set[int] = set()
        self._model = model

    def run(self) -> Iterator[tuple[str, Hidden]]:
        for name, module in self._model.named_modules():
            yield from self._attributes(module, f"{name}." if name else "", "a plain attribute")

    def _attributes(self, module: nn.Module, prefix: str, kind: str) -> Iterator[tuple[str, Hidden]]:
        for name, buffer in module._buffers.items():
            if buffer is not None and id(buffer) not in self._carried:
                foreign = id(module) not in self._registered
                yield from self._look(buffer, prefix + name, kind if foreign else "a buffer with persistent=False")
        for name, value in vars(module).items():
            if name not in _OF_TORCH:
                yield from self._look(value, prefix + name, kind)

    def _look(self, value: Any, path: str, kind: str) -> Iterator[tuple[str, Hidden]]:
        if isinstance(value, bool | int | float | str):
            yield path, Hidden(value, kind)
            return
        if id(value) in self._seen or len(self._seen) > _MOST_OBJECTS:
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor | np.ndarray):
            if id(value) not in self._carried:
                yield path, Hidden(value, kind)
        elif isinstance(value, nn.Module):
            if id(value) not in self._registered:
                yield from self._foreign(value, path)
        else:
            for step, part in _parts(value):
                yield from self._look(part, path + step, kind)

    def _foreign(self, module: nn.Module, path: str) -> Iterator[tuple[str, Hidden]]:
        """A module that its owner does not know as one of its own."""
        kind = "of a module kept in a list, a dict or another object"
        for name, part in module.named_modules():
            prefix = f"{path}.{name}." if name else f"{path}."
            for parameter_name, parameter in part._parameters.items():
                if parameter is not None:
                    yield from self._look(parameter, prefix + parameter_name, kind)
            yield from self._attributes(part, prefix, kind)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, each with the text that leads from the object to it."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        yield from ((f"[{name}]", cell.cell_contents) for name, cell in _cells(value))
    elif not isinstance(value, type | ModuleType | ParameterArrays) and hasattr(value, "__dict__"):
        yield from ((f".{name}", part) for name, part in list(vars(value).items()))


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables of its surroundings that a function uses and that have a value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            _ = cell.cell_contents
        except ValueError:
            continue
        yield name, cell
