"""Where each tensor of a model lies in its flat buffer, and the .safetensors header that says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ModelMismatch
from .model_tensors import carried_tensors, check_overlaps, check_tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
"""torch dtype of each safetensors name."""
_DATA_ALIGNMENT = 4096


@dataclass(frozen=True)
class TensorSpec:
    """One tensor's place in the flat buffer: name, safetensors dtype, shape, byte offset and length."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    def describe(self) -> str:
        """`trunk.0.weight F32 [32, 28]`."""
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class WeightsLayout:
    """Where each tensor of a model lies in the flat buffer, widest dtypes first so that all are aligned.

    Tied tensors are stored once; `aliases` maps the other names to the stored one.
    """

    specs: tuple[TensorSpec, ...]
    aliases: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, model: torch.nn.Module) -> WeightsLayout:
        """The layout of a model's parameters and buffers.

        Raises ModelMismatch, naming the tensor, for one that cannot be shared: of another dtype, without a shape or
        values yet, or one that shares memory with another or itself in any way but being the same.
        """
        stored: dict[tuple[Any, ...], str] = {}
        aliases, tensors = [], []
        for name, tensor in carried_tensors(model).items():
            check_tensor(name, tensor)
            if tensor.dtype not in _DTYPES:
                raise ModelMismatch(
                    f"{name}: dtype {tensor.dtype} cannot be shared; use one of {', '.join(TORCH_DTYPES)}"
                )
            place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.device)
            identity = place if tensor.numel() else (name,)
            if identity in stored:
                aliases.append((name, stored[identity]))
                continue
            stored[identity] = name
            tensors.append((name, tensor))
        check_overlaps(tensors)
        tensors.sort(key=lambda item: (-item[1].element_size(), item[0]))
        specs, offset = [], 0
        for name, tensor in tensors:
            length = tensor.numel() * tensor.element_size()
            specs.append(TensorSpec(name, _DTYPES[tensor.dtype], tuple(tensor.shape), offset, length))
            offset += length
        return cls(tuple(specs), tuple(aliases))

    def stored_name(self, name: str) -> str:
        """The name under which a tensor is stored: its own, or that of the tensor it is tied to."""
        return dict(self.aliases).get(name, name)

    @property
    def data_bytes(self) -> int:
        """Length of the flat buffer."""
        return self.specs[-1].offset + self.specs[-1].length if self.specs else 0

    def header(self) -> bytes:
        """The .safetensors header (length and JSON), padded so that the tensors start on a page."""
        table: dict[str, Any] = {
            spec.name: {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [spec.offset, spec.offset + spec.length],
            }
            for spec in self.specs
        }
        if self.aliases:
            table["__metadata__"] = dict(self.aliases)
        text = json.dumps(table, separators=(",", ":")).encode()
        text = text.ljust(-(-(8 + len(text)) // _DATA_ALIGNMENT) * _DATA_ALIGNMENT - 8)
        return len(text).to_bytes(8, "little") + text

    def schema(self) -> list[list[Any]]:
        """What another process needs to compare layouts."""
        return [[spec.name, spec.dtype, list(spec.shape)] for spec in self.specs]

    def check(self, other: WeightsLayout, what: str) -> None:
        """Raise ModelMismatch naming the first tensor in which `other` (called `what`) differs."""
        for ours, theirs in zip(self.specs, other.specs, strict=False):
            if (ours.name, ours.dtype, ours.shape) != (theirs.name, theirs.dtype, theirs.shape):
                raise ModelMismatch(f"{what} has {theirs.describe()} where the model has {ours.describe()}")
        if len(self.specs) != len(other.specs):
            longer = max((self, other), key=lambda item: len(item.specs))
            extra = longer.specs[min(len(self.specs), len(other.specs))].describe()
            raise ModelMismatch(f"only {'the model' if longer is self else what} has {extra}")

    def views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors as views of `flat` (uint8 [data_bytes])."""
        return {
            spec.name: flat[spec.offset : spec.offset + spec.length].view(TORCH_DTYPES[spec.dtype]).view(spec.shape)
            for spec in self.specs
        }
