"""A model whose parameters and buffers are views of one flat buffer, so that taking a version is one copy."""

from __future__ import annotations

import torch

from .layout import TORCH_DTYPES, WeightsLayout
from .model_tensors import carried_tensors


class FlatModel:
    """A model whose parameters and buffers are views of one flat byte tensor, `flat` (uint8 [bytes])."""

    def __init__(self, model: torch.nn.Module, device: torch.device | None = None) -> None:
        self.model = model
        self.layout = WeightsLayout.of(model)
        tensors = carried_tensors(model)
        self._names = list(tensors)
        self._tensors = [(tensor, self.layout.stored_name(name)) for name, tensor in tensors.items()]
        self._private: dict[str, torch.Tensor] | None = None
        self._views: dict[int, list[torch.Tensor]] = {}
        flat = torch.empty(self.layout.data_bytes, dtype=torch.uint8, device=device)
        views = self.layout.views(flat)
        with torch.no_grad():
            for tensor, name in self._tensors:
                views[name].copy_(tensor)
        self.flat = flat
        self.bind(flat)

    def bind(self, flat: torch.Tensor) -> None:
        """Make `flat` (uint8 [bytes]) the memory of the parameters and buffers; its contents are taken as they are."""
        pointer = flat.data_ptr()
        views = self._views.get(pointer)
        if views is None:
            by_name = self.layout.views(flat)
            views = self._views[pointer] = [by_name[name] for _, name in self._tensors]
        for (tensor, _), view in zip(self._tensors, views, strict=True):
            tensor.data = view
        self.flat = flat

    def read_in_place(self, slot: torch.Tensor) -> None:
        """Make `slot` (uint8 [bytes]) the memory of the parameters, and copy the buffers out of it.

        A forward pass may write into a buffer; it must never write into what others read.
        """
        if self._private is None:
            parameters = {name for tensor, name in self._tensors if isinstance(tensor, torch.nn.Parameter)}
            self._private = {
                spec.name: torch.empty(spec.shape, dtype=TORCH_DTYPES[spec.dtype])
                for spec in self.layout.specs
                if spec.name not in parameters
            }
        self.bind(slot)
        views = self._views[slot.data_ptr()]
        for (tensor, name), view in zip(self._tensors, views, strict=True):
            if name in self._private:
                tensor.data = self._private[name].copy_(view)

    def cut_off(self) -> list[str]:
        """Names of the tensors that no longer lie in the flat buffer: replaced in the module, or moved elsewhere."""
        now = carried_tensors(self.model)
        views = self.layout.views(self.flat)
        return [
            name
            for name, (tensor, _) in zip(self._names, self._tensors, strict=True)
            if now.get(name) is not tensor
            or (tensor.numel() and tensor.data_ptr() != views[self.layout.stored_name(name)].data_ptr())
        ] + [name for name in now if name not in set(self._names)]

    def state(self) -> dict[str, torch.Tensor]:
        """The stored tensors by name, as views."""
        return self.layout.views(self.flat)
