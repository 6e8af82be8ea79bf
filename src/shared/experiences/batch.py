"""Room for a batch of records, allocated once: the gathered words, and every field as a view of them.

A sample is one gather into these words; the training tensors are views, so that nothing is copied record by record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .records import SEND, RecordLayout


class BatchRoom:
    """Memory for up to `capacity` records. With `pinned` a copy to a CUDA device need not wait.

    `words` is int64 [capacity, words per record] (numpy) and `rows` the same memory as structured array [capacity].
    """

    def __init__(self, records: RecordLayout, capacity: int, pinned: bool = False) -> None:
        self.records = records
        self.capacity = capacity
        self.tensor = torch.zeros((capacity, records.record.itemsize // 8), dtype=torch.int64, pin_memory=pinned)
        self.words: NDArray[np.int64] = self.tensor.numpy()
        self.rows: NDArray[Any] = self.words.view(records.record).reshape(-1)


class RecordTensors:
    """The fields of gathered words (int64 [n, words per record], on any device) as tensors that share their memory.

    observations float32[n, features], actions int32[n, heads], expected, actual (NaN: none), probabilities, confidences
    float32[n], versions int64[n], sent bool[n].
    """

    def __init__(self, records: RecordLayout, words: torch.Tensor) -> None:
        floats, integers = words.view(torch.float32), words.view(torch.int32)

        def at(field: str) -> int:
            return int(records.record.fields[field][1]) // 4  # type: ignore[index]

        observation, action = at("observation"), at("action")
        self.observations = floats[:, observation : observation + records.features]
        self.actions = integers[:, action : action + records.heads]
        self.expected = floats[:, at("expected_reward")]
        self.actual = floats[:, at("actual_reward")]
        self.probabilities = floats[:, at("probability")]
        self.confidences = floats[:, at("confidence")]
        self.versions = words[:, at("version") // 2]
        self.sent = integers[:, at("decision")] == SEND
