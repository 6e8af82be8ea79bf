"""What a step is trained on: sampled records that were let in, and which of them spoil a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.experiences.sampler import ReplayReader
from ..shared.experiences.strategies import Prioritized
from ..shared.learning import Batch, StepResult, make_batch, training_rewards
from ..shared.memory.control import Control
from .guards.intake import Intake, find_spoilers

_MOST_NEW = 10_000
"""New records of one lane that are taken in at once."""


class Batches:
    """Draws batches from the rings of all lanes. `rows` are the records (structured [n]) of the last one."""

    def __init__(self, control: Control, reader: ReplayReader, intake: Intake, device: torch.device) -> None:
        self._control = control
        self._reader = reader
        self._intake = intake
        self._device = device
        self.rows: NDArray[Any] | None = None
        self.observed: dict[int, int] = {}
        """Number of the newest record of each lane that `new` gave."""

    def draw(self, config: ContinuousTrainingConfig, size: int = 0) -> NDArray[Any] | None:
        """The next batch of records, `size` or `batch_size` of them, or None if there are too few to train on."""
        reader = self._reader
        rows = reader.sample(size or config.batch_size)
        self._control.set("metrics.total_sampled", reader.sampled)
        self._control.set("metrics.torn_rows", reader.torn)
        self.rows = None
        if len(rows) >= config.min_batch_size:
            admitted = self._intake.admit(rows)
            self.rows = admitted if len(admitted) else None
        return self.rows

    def new(self) -> NDArray[Any] | None:
        """Records that are newer than those `observed`, which they are from now on, or None."""
        rows = self._reader.newer_than(self.observed, _MOST_NEW)
        admitted = self._intake.admit(rows) if len(rows) else rows
        return admitted if len(admitted) else None

    def resume(self, manifest: Mapping[str, Any]) -> None:
        """Go on with `new` where a checkpoint was made: its learner has seen nothing since."""
        found = manifest.get("observed")
        self.observed = {int(lane): int(number) for lane, number in found.items()} if isinstance(found, dict) else {}

    def rewards(self, rows: NDArray[Any], config: ContinuousTrainingConfig) -> NDArray[np.float32]:
        """The training reward of each record: float32[n]."""
        return training_rewards(rows, config, self._intake.gated)

    def tensors(self, rows: NDArray[Any], rewards: NDArray[np.float32]) -> Batch:
        """The batch that a learner takes, on the device where training runs."""
        return make_batch(rows, rewards, self._device, self._reader.records)

    def learned(self, rows: NDArray[Any], result: StepResult) -> None:
        """Tell a strategy that draws by loss what the losses were."""
        strategy = self._reader.strategy
        if isinstance(strategy, Prioritized) and result.losses is not None:
            strategy.update(self._reader, rows, np.nan_to_num(result.losses))

    def leave_out_spoilers(self, in_vain: int, passes: Callable[[NDArray[Any]], bool]) -> None:
        """After `in_vain` steps in a row that came to nothing: look which records are to blame, and leave them out.

        `passes(rows)` says whether a step on these succeeds.
        """
        # At the second in a row, the fourth, the eighth: a search costs some steps.
        if self.rows is not None and in_vain >= 2 and in_vain & (in_vain - 1) == 0:
            self._intake.leave_out(find_spoilers(self.rows, passes))
