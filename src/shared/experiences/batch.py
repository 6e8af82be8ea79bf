"""Room for a batch of records, allocated once: the gathered words, and every field as a view of them.

A sample is one gather into these words; the training tensors are views, so that nothing is copied record by record.
"""

from __future__ import annotations

from functools import cached_property
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
    float32[n], versions int64[n], sent bool[n], and, copied, allowed bool[n, choices]. With a CandidateHead also
    candidates float32[n, M, C] and mask bool[n, M] (which of them there were; copies), with a GaussianHead values
    float32[n, 1].
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
        self._records, self._words = records, words
        self.candidates: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        if records.candidates:
            begin, shape = at("candidates"), (records.candidates, records.candidate_features)
            self.candidates = floats[:, begin : begin + shape[0] * shape[1]].reshape(-1, *shape)
        if records.values:
            self.values = floats[:, at("value") : at("value") + records.values]

    @cached_property
    def allowed(self) -> torch.Tensor:
        """The choices that were allowed, bool[n, choices]. Made when it is asked for: it costs as much as a sample."""
        return _bits(self._records, self._words)

    @property
    def mask(self) -> torch.Tensor | None:
        """Which candidates there were, bool[n, M]; None without a CandidateHead."""
        return self.allowed if self._records.candidates else None


def _bits(records: RecordLayout, words: torch.Tensor) -> torch.Tensor:
    """The choices that were allowed, bool[n, choices], of words int64[n, words per record]."""
    begin = int(records.record.fields["allowed"][1])  # type: ignore[index]
    chunk = words.view(torch.uint8)[:, begin : begin + -(-records.choices // 8)]
    shifts = torch.arange(8, dtype=torch.uint8, device=words.device)
    return ((chunk[:, :, None] >> shifts) & 1).bool().flatten(1)[:, : records.choices]
