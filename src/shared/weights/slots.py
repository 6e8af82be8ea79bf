"""Versioned weights in shared memory: slots of torch shared tensors, each guarded by a sequence counter.

Publication p goes into slot p mod K. It may stand for several training steps: version v is the number of steps so far,
so versions have gaps and publications have none. The trainer makes the slot's sequence odd (2v-1), copies, stores the
checksum, makes the sequence 2v and only then raises the version counter. A reader that sees version v takes the slot
whose sequence is 2v, and only if it is still exactly that after the copy; otherwise it keeps what it has and looks
again at the next decision. Nobody waits. If the trainer dies half way, the counter still names an older slot that is
whole, and the next trainer writes into the slot that was left, so that no two slots ever claim the same version.

A slot's segment is a `.safetensors` image. The parameters of a model are views of one flat buffer, so that taking
a version is one copy.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from ..errors import LayoutMismatch, SegmentInvalid
from ..memory import layout
from ..memory.control import Control
from ..memory.segments import create, segment_facts, segment_path
from .layout import WeightsLayout


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

    def find(self, version: int) -> int:
        """Index of the slot that holds a version, whole; -1 if none does."""
        words, sequence = self.control.words, 2 * version
        for index, word in enumerate(self.sequence_words):
            if words[word] == sequence:
                return index
        return -1
