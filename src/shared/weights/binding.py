"""Keeping a model's tensors in its flat buffer, whatever is done to the module.

What is published is the flat buffer. A parameter or buffer that was assigned anew, or given other memory
(`p.data = ...`, `model.to(...)`), would train beside it: its values are taken over, and the tensor that belongs there
is put back.
"""

from __future__ import annotations

from typing import Any

import torch

from .flat_model import FlatModel


class Binding:
    """Where a flat model's tensors belong: in which module, under which name, at which place of the flat buffer."""

    def __init__(self, flat: FlatModel) -> None:
        self._flat = flat
        start, end = flat.flat.data_ptr(), flat.flat.data_ptr() + flat.flat.numel()
        self._slots: list[tuple[Any, str, torch.Tensor, int, str]] = []
        for path, module in flat.model.named_modules():
            for holder in (module._parameters, module._buffers):
                for key, tensor in holder.items():
                    if tensor is not None and tensor.numel() and start <= tensor.data_ptr() < end:
                        name = f"{path}.{key}" if path else key
                        self._slots.append((holder, key, tensor, tensor.data_ptr() - start, name))

    def restore(self) -> list[str]:
        """Take back every tensor that has left the flat buffer, with its present values; returns their names.

        One that was replaced by None or by another shape is left alone: its values have no place.
        """
        start = self._flat.flat.data_ptr()
        left = [
            slot for slot in self._slots if slot[0].get(slot[1]) is not slot[2] or slot[2].data_ptr() != start + slot[3]
        ]
        return [slot[4] for slot in left if self._take_back(*slot[:4])]

    def _take_back(self, holder: Any, key: str, tensor: torch.Tensor, offset: int) -> bool:
        now = holder.get(key)
        if now is None or now.shape != tensor.shape:
            return False
        spec = next(spec for spec in self._flat.layout.specs if spec.offset == offset and spec.length)
        view = self._flat.state()[spec.name]
        with torch.no_grad():
            if now.data_ptr() != view.data_ptr():
                view.copy_(now)
            tensor.data = view
        holder[key] = tensor
        return True
