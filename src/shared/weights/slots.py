"""Versioned weights in shared memory: slots of torch shared tensors, each guarded by a sequence counter.

The trainer publishes version v into slot v mod K: it makes the slot's sequence odd (2v-1), copies, stores the checksum,
makes the sequence 2v and only then raises the version counter. A reader that sees version v takes the slot only if its
sequence is exactly 2v before and after the copy; otherwise it keeps what it has and looks again at the next
decision. Nobody waits. If the trainer dies half way, the counter still names an older slot that is whole.

A slot's segment is a `.safetensors` image. The parameters of a model are views of one flat buffer, so that taking
a version is one copy.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import LayoutMismatch, ModelMismatch, SegmentInvalid, TandemError
from ..memory import layout
from ..memory.claim import WORD
from ..memory.control import Control
from ..memory.segments import TRAINER_SEGMENT, claim_segment, create, segment_facts, segment_path
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
_TORCH = {name: dtype for dtype, name in _DTYPES.items()}
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
                raise ModelMismatch(f"{name}: dtype {tensor.dtype} cannot be shared; use one of {', '.join(_TORCH)}")
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
            spec.name: flat[spec.offset : spec.offset + spec.length].view(_TORCH[spec.dtype]).view(spec.shape)
            for spec in self.specs
        }


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
                spec.name: torch.empty(spec.shape, dtype=_TORCH[spec.dtype])
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


def as_words(flat: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A CPU byte tensor as 64-bit words, without the last incomplete one."""
    return flat.numpy()[: flat.numel() // 8 * 8].view(np.uint64)


def checksum(flat: torch.Tensor) -> int:
    """xor of a CPU byte tensor as 64-bit words, the last one zero padded: any single flipped bit changes it."""
    words = as_words(flat)
    value = int(np.bitwise_xor.reduce(words)) if words.size else 0
    tail = flat.numpy()[words.size * 8 :].tobytes()
    return value ^ int.from_bytes(tail, "little")


def create_slots(control: Control, weights: WeightsLayout, slots: int, mode: int = 0o600) -> None:
    """Create the slots' segments; the header's first 8 bytes, without which nobody loads them, come last."""
    header = weights.header()
    for index in range(slots):
        descriptor = create(control.instance, f"weights{index}", len(header) + weights.data_bytes, mode)
        try:
            os.pwrite(descriptor, header[8:], 8)
            os.pwrite(descriptor, header[:8], 0)
        finally:
            os.close(descriptor)


class Slots:
    """The weights slots of an instance, mapped: `data[j]` is a torch shared tensor (uint8 [bytes]).

    Raises SegmentMissing, ForeignFile, SegmentInvalid, or LayoutMismatch if the slots were made for another model.
    """

    def __init__(self, control: Control, weights: WeightsLayout) -> None:
        self.control = control
        self.count: int = control.get("slots")
        header = weights.header()
        size = len(header) + weights.data_bytes
        self.data: list[torch.Tensor] = []
        for index in range(self.count):
            path = segment_path(control.instance, f"weights{index}")
            # from_file would create a missing file and grow a short one: look first.
            actual = segment_facts(control.instance, f"weights{index}").st_size
            if actual != size:
                raise SegmentInvalid(path, f"is {actual} bytes long and should be {size}")
            whole = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
            if whole[: len(header)].numpy().tobytes() != header:
                raise LayoutMismatch(path, "was made for another model")
            self.data.append(whole[len(header) :])
        self.sequence_words = [layout.offset(f"slot.{j}.sequence") >> 3 for j in range(self.count)]


def claim_trainer(instance: str) -> int | None:
    """Hold the flock of whoever trains: its descriptor, or None if another holds it.

    A publisher that was made before this one's claim publishes no more, should its process still live.
    """
    descriptor = claim_segment(instance, TRAINER_SEGMENT)
    if descriptor is not None:
        control = Control.attach(instance, check_schema=False)
        word = layout.offset("trainer.claims") >> 3
        control.words[word] = (control.words[word] + 1) & WORD
        control.close()
    return descriptor


class Publisher:
    """The trainer's end: publishes versions. One per instance: make it after `claim_trainer`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._control = slots.control
        self._words = slots.control.words
        self._version_word = layout.offset("version") >> 3
        self._claims_word = layout.offset("trainer.claims") >> 3
        self._claim: int = self._words[self._claims_word]

    @property
    def version(self) -> int:
        """The newest published version."""
        return int(self._words[self._version_word])

    def publish(self, flat: torch.Tensor, version: int) -> None:
        """Publish `flat` (uint8 [bytes], CPU) as `version`, which must be above the published one (or 0, at creation).

        The order of the stores is the protocol. An exception or a kill between any two of them leaves every
        announced version readable. Raises TandemError if another trainer has taken over.
        """
        if self._words[self._claims_word] != self._claim:
            raise TandemError(
                f"instance {self._control.instance!r}: another trainer has taken over; nothing is published"
            )
        if version <= self.version and version != 0:
            raise ValueError(f"version {version} is not above the published version {self.version}")
        index = version % self._slots.count
        slot, words = self._slots.data[index], self._words
        sequence_word = self._slots.sequence_words[index]
        words[sequence_word] = max(0, 2 * version - 1)
        slot.copy_(flat)
        words[sequence_word + 1] = checksum(slot)
        words[sequence_word] = 2 * version
        words[self._version_word] = version
        self._control.set("published_ns", time.monotonic_ns())
        self._control.set("published_at", time.time())


class Subscriber:
    """A reader's end: finds and copies new versions. Never waits, never takes an older version.

    `version` is the one taken last (-1: none). With `verify` a copy is also compared with the slot's checksum: where
    loads may pass loads, the sequence alone proves nothing.
    """

    def __init__(self, slots: Slots, verify: bool = False) -> None:
        self._slots = slots
        self._words = slots.control.words
        self._version_word = layout.offset("version") >> 3
        self._verify = verify
        self.version = -1
        self._word = 0
        self._announced = 0

    def newest(self) -> int | None:
        """Index of the slot that holds a version newer than the one taken; -1 if nothing is new.

        None if that slot is being written already: the next look will find a newer version elsewhere.
        """
        words = self._words
        version = words[self._version_word]
        if version == self.version:
            return -1
        index: int = version % self._slots.count
        self._word, self._announced = self._slots.sequence_words[index], version
        return index if version > self.version and self.is_whole() else None

    def hold(self, index: int) -> torch.Tensor:
        """The slot that `newest` found (uint8 [bytes]), to be read in place.

        What was computed from it counts only if `is_whole` afterwards.
        """
        self.version = self._announced
        return self._slots.data[index]

    def is_whole(self) -> bool:
        """True if the slot that `newest` found still holds the version that was announced then."""
        return bool(self._words[self._word] == 2 * self._announced)

    def refresh(self, target: torch.Tensor) -> bool | None:
        """Copy the newest version into `target` (uint8 [bytes]): True if taken, False if nothing is new.

        None if the slot was being written: `target` may hold anything then, and the next call looks again.
        """
        index = self.newest()
        if index is None or index < 0:
            return None if index is None else False
        target.copy_(self._slots.data[index])
        if not self.is_whole() or (self._verify and checksum(target) != self._words[self._word + 1]):
            return None
        self.version = self._announced
        return True
