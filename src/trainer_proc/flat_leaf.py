"""Parameters as one flat leaf that shares their memory, with their gradients views of its own.

The optimiser, the norm and the zeroing then take one call each in place of one for each parameter. Nothing stops a
model from giving a parameter another gradient (`zero_grad()`) or other memory (`p.data = ...`, `model.to(...)`), which
would cut it off from the leaf without an error: the leaf looks before and after each backward pass, and mends it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Joined:
    """`leaves` is what the optimiser gets: one flat leaf, or, if they are not all float32 on one device, themselves."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.leaves = parameters
        self._flat: Tensor | None = None
        if not parameters or any(p.dtype != torch.float32 or p.device != parameters[0].device for p in parameters):
            return
        if not _in_one_storage(parameters):
            _pack(parameters)
        self._places = _places(parameters)
        self._length = max(place + p.numel() for place, p in zip(self._places, parameters, strict=True))
        self._flat = self._leaf().requires_grad_()
        self.leaves = [self._flat]
        self._join_gradients()

    def _leaf(self) -> Tensor:
        """The stretch of the storage in which the parameters lie: float32 [length]."""
        first = min(self.parameters, key=Tensor.storage_offset)
        flat = torch.empty(0, dtype=torch.float32, device=first.device)
        flat.set_(first.untyped_storage(), first.storage_offset(), (self._length,))  # type: ignore[call-overload]
        return flat

    def _join_gradients(self) -> None:
        assert self._flat is not None
        self._gradient = torch.zeros_like(self._flat)
        self._views = [
            self._gradient[place : place + p.numel()].view(p.shape)
            for place, p in zip(self._places, self.parameters, strict=True)
        ]
        self._addresses = self._all_addresses()

    def _all_addresses(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self.parameters, *self._views)]

    def zero(self) -> None:
        """Zero the gradients, directly before the backward pass, and mend what was cut off."""
        if self._flat is None:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.zero_()
            return
        if self._all_addresses() != self._addresses:
            self._follow()
        self._gradient.zero_()
        self._flat.grad = self._gradient
        for parameter, view in zip(self.parameters, self._views, strict=True):
            if parameter.grad is not view:
                parameter.grad = view

    def collect(self) -> None:
        """After the backward pass: gradients that something replaced meanwhile come back into the leaf's."""
        if self._flat is None:
            return
        for parameter, view in zip(self.parameters, self._views, strict=True):
            gradient = parameter.grad
            if gradient is view:
                continue
            if gradient is None:
                view.zero_()
            else:
                view.copy_(gradient)
            parameter.grad = view

    def _follow(self) -> None:
        """Go where the parameters went together, or fetch back those that went alone."""
        assert self._flat is not None
        with torch.no_grad():
            if _in_one_storage(self.parameters) and _places(self.parameters) == self._places:
                self._flat.data = self._leaf()
            else:
                for place, parameter in zip(self._places, self.parameters, strict=True):
                    home = self._flat.data[place : place + parameter.numel()].view(parameter.shape)
                    if parameter.data_ptr() != home.data_ptr():
                        home.copy_(parameter)
                        parameter.grad = None
                        parameter.data = home
        self._join_gradients()


def descend(loss: Tensor, joined: Sequence[Joined], optimiser: torch.optim.Optimizer, clip: float) -> float:
    """One step down the loss; the norm of the first's gradient, which is clipped to `clip`, before it was."""
    for each in joined:
        each.zero()
    loss.backward()  # type: ignore[no-untyped-call]
    for each in joined:
        each.collect()
    norm = nn.utils.clip_grad_norm_(joined[0].leaves, clip)
    optimiser.step()
    return float(norm)


def adam_state(optimiser: torch.optim.Optimizer, leaves: Sequence[Tensor]) -> dict[str, Tensor]:
    """Adam's moments and step counts, named by the leaves' positions."""
    return {
        f"adam.{index}.{name}": torch.as_tensor(value)
        for index, leaf in enumerate(leaves)
        for name, value in optimiser.state.get(leaf, {}).items()
    }


def load_adam_state(optimiser: torch.optim.Optimizer, leaves: Sequence[Tensor], state: dict[str, Tensor]) -> None:
    """Take back what `adam_state` gave, among others; nothing if it does not fit.

    Raises ValueError, naming the first difference, or IndexError.
    """
    loaded: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if not key.startswith("adam."):
            continue
        _, position, name = key.split(".", 2)
        leaf = leaves[int(position)]
        if value.ndim and value.shape != leaf.shape:
            raise ValueError(f"{key} has shape {list(value.shape)}, the parameter {list(leaf.shape)}")
        loaded.setdefault(int(position), {})[name] = value.clone().to(leaf.device)
    for index, values in loaded.items():
        optimiser.state[leaves[index]] = values


def _places(parameters: list[Tensor]) -> list[int]:
    """Where each parameter begins, counted from the first one in their storage."""
    offsets = [int(parameter.storage_offset()) for parameter in parameters]
    return [offset - min(offsets) for offset in offsets]


def _in_one_storage(parameters: list[Tensor]) -> bool:
    return (
        len({parameter.untyped_storage().data_ptr() for parameter in parameters}) == 1
        and len({parameter.dtype for parameter in parameters}) == 1
        and all(parameter.is_contiguous() for parameter in parameters)
    )


def _pack(parameters: list[Tensor]) -> None:
    """Move the parameters into one storage of their own."""
    packed = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    at = 0
    for parameter in parameters:
        parameter.data = packed[at : at + parameter.numel()].view(parameter.shape)
        at += parameter.numel()
