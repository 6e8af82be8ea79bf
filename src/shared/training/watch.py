"""The learning watch: what whoever trains notices about its own learning, written to the control segment.

It only states facts: how many steps in a row were refused, raised or left the parameters where they were, how much of
what was decided never came in as an experience. learning_reasons.py says from when on a fact is a reason.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ..memory import layout
from ..memory.control import Control
from ..weights.flat_model import FlatModel

STILL = 1e-9
"""Parameters that a step moves by less than this share of their norm stand still."""
_SMALLEST_RMS = 0.1
"""The norm of parameters that are smaller than this on average is taken as if they were not: they may start at zero."""
_BLOCK = 1 << 12
"""Bytes compared at once: in a model that learns, the first block has moved and the rest is not looked at."""
_PARALLEL, _SHORTER = 0.9999, 0.97
"""Steps that coast: cosine to the step before, and length as a share of its length, at most."""
_COASTING = 100
"""Steps for which a movement of less than a tenth of that before it began to coast still counts as coasting: it is lost
in rounding before it ends."""
_FACTS = (
    "refused_in_row",
    "failed_in_row",
    "loss_not_finite",
    "still_in_row",
    "unsampled_ticks",
    "unsampled",
    "rejected_in_row",
    "untrained_in_row",
    "rewarded",
    "unrewarded",
    "rewards_missing",
    "rewards_found",
    "rewards_lost",
    "rewards_unmatched",
)
_COUNTED = (
    "head",
    "rejected",
    "untrained",
    "send",
    "wait",
    "reward_count",
    "expired",
    "superseded",
    "dropped",
    "defaulted",
    "partial",
    "unmatched",
    "late",
)
_WINDOW = 200
"""Settled decisions that the share of missing rewards is taken of, and rewards that of those for no decision."""
_ENOUGH = 30
"""With fewer nothing is said."""
_AT_ONCE = 10
"""What one tick weighs at most in that share: a thousand decisions given up at once are an event, not a habit."""
_ACTIVE = 60.0
"""Seconds after the last decision that was sent for which missing rewards are told: an idle instance is well."""


class LearningWatch:
    """Keeps the facts of one instance. Only whoever trains it has one; counts in a row outlive a restart."""

    def __init__(self, control: Control, flat: FlatModel, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = control.words
        self._at = {name: layout.offset(f"trainer.{name}") >> 3 for name in _FACTS}
        self._flat = flat
        self._clock = clock
        self._parameters = parameter_bytes(flat)
        self._coast = Coast(self._parameters)
        lanes = range(control.get("lanes"))
        self._words = [[layout.offset(f"lane.{lane}.{name}") >> 3 for lane in lanes] for name in _COUNTED]
        self._seen = self._totals()
        self._head_at_batch = self._head()
        self._settled, self._rewards = Share(), Share()
        self._sent_at = clock()

    def trained(self, loss: float, before: torch.Tensor, steps: int = 1) -> None:
        """`steps` steps were published, the last one with this loss.

        `before` (uint8 [bytes], on the model's device) holds the weights before them.
        """
        self._set("refused_in_row", 0)
        self._set("failed_in_row", 0)
        self._sampled(loss)
        after = self._flat.flat
        is_coasting = self._coast.look(before, after)
        if not is_coasting and (self._coast.is_far or is_moved(self._parameters, before, after)):
            self._set("still_in_row", 0)
        else:
            self._count("still_in_row", steps)

    def refused(self, loss: float) -> None:
        """A step was made and its candidate refused."""
        self._count("refused_in_row")
        self._sampled(loss)

    def failed(self) -> None:
        """A step raised."""
        self._count("failed_in_row")

    def skipped(self, readable: int, needed: int) -> None:
        """A tick found no batch of `needed` experiences, while the rings held `readable` ones."""
        fresh = min(readable, self._head() - self._head_at_batch)
        if fresh >= needed:
            self._count("unsampled_ticks")
            self._set("unsampled", fresh)

    def _sampled(self, loss: float) -> None:
        self._set("unsampled_ticks", 0)
        self._head_at_batch = self._head()
        if math.isfinite(loss):
            self._set("loss_not_finite", 0)
        else:
            self._count("loss_not_finite")

    def tick(self) -> None:
        """Take in what became of the decisions since the last tick, at each lane."""
        totals = self._totals()
        new = {name: max(0, total - self._seen[name]) for name, total in totals.items()}
        self._seen = totals
        for name in ("rejected", "untrained"):
            field = f"{name}_in_row"
            self._set(field, 0 if new["head"] else self._get(field) + new[name])
        if new["send"]:
            self._sent_at = self._clock()
        self._settled.add(new["reward_count"], new["expired"] + new["superseded"] + new["dropped"])
        # What earned the default got no reward: its own may be among those that found nothing.
        found = max(0, new["reward_count"] - new["defaulted"]) + new["partial"]
        # A host may report one for a decision that was held back, too: that is no harm.
        self._rewards.add(found, max(0, new["unmatched"] + new["late"] - new["wait"]))
        self._tell(self._settled, "rewarded", "unrewarded", "rewards_missing")
        self._tell(self._rewards, "rewards_found", "rewards_lost", "rewards_unmatched")

    def _tell(self, share: Share, good: str, bad: str, ticks: str) -> None:
        is_active = self._clock() - self._sent_at < _ACTIVE
        self._set(good, share.good)
        self._set(bad, share.bad)
        self._set(ticks, self._get(ticks) + 1 if is_active and share.is_mostly_bad else 0)

    def _get(self, name: str) -> int:
        return self._shared[self._at[name]]

    def _set(self, name: str, value: int) -> None:
        self._shared[self._at[name]] = value

    def _count(self, name: str, amount: int = 1) -> None:
        self._shared[self._at[name]] += amount

    def _head(self) -> int:
        return sum(self._shared[at] for at in self._words[0])

    def _totals(self) -> dict[str, int]:
        words = self._shared
        return {name: sum(words[at] for at in places) for name, places in zip(_COUNTED, self._words, strict=True)}


class Share:
    """The share of what went wrong, of the newest `_WINDOW` things that went well or wrong."""

    def __init__(self) -> None:
        self._ticks: deque[tuple[int, int, float]] = deque()
        self._weight = 0.0

    def add(self, good: int, bad: int) -> None:
        """What one tick brought."""
        ticks = self._ticks
        if good or bad:
            ticks.append((good, bad, min(1.0, _AT_ONCE / (good + bad))))
        self._weight = sum((good + bad) * share for good, bad, share in ticks)
        while ticks and self._weight - (ticks[0][0] + ticks[0][1]) * ticks[0][2] >= _WINDOW:
            good, bad, share = ticks.popleft()
            self._weight -= (good + bad) * share

    @property
    def good(self) -> int:
        """Things that went well."""
        return sum(good for good, _, _ in self._ticks)

    @property
    def bad(self) -> int:
        """Things that went wrong."""
        return sum(bad for _, bad, _ in self._ticks)

    @property
    def is_mostly_bad(self) -> bool:
        """True if clearly more than half went wrong: by chance a small sample is off by some 1 / sqrt(n)."""
        wrong = sum(bad * share for _, bad, share in self._ticks)
        return self._weight >= _ENOUGH and wrong / self._weight > 0.5 + 1.0 / math.sqrt(self._weight)


def parameter_bytes(flat: FlatModel) -> list[tuple[int, int, torch.dtype]]:
    """Where the parameters lie in the flat buffer: start, end, dtype; of a model without parameters, its buffers.

    Buffers beside parameters do not count: running statistics move although nothing is learned.
    """
    names = {flat.layout.stored_name(name) for name, _ in flat.model.named_parameters()}
    tensors = flat.state()
    return [
        (spec.offset, spec.offset + spec.length, tensors[spec.name].dtype)
        for spec in flat.layout.specs
        if spec.length and (spec.name in names or not names)
    ]


class Coast:
    """Tells steps that only coast: an optimiser with momentum goes on for long after the last gradient reached it.

    Each such step has the direction of the one before and is shorter by the momentum. Looked at in one block of the
    largest parameter.
    """

    def __init__(self, parameters: list[tuple[int, int, torch.dtype]]) -> None:
        floats = [place for place in parameters if place[2].is_floating_point]
        start, end, self._dtype = max(floats, key=lambda place: place[1] - place[0], default=(0, 0, torch.float32))
        self._place = slice(start, min(end, start + _BLOCK))
        self._last: NDArray[np.float32] = np.zeros(0, np.float32)
        self._length = self._began = 0.0
        self._coasted = 0
        self.is_far = False
        """True if the last step moved the block: then nothing else need be looked at."""

    def look(self, before: torch.Tensor, after: torch.Tensor) -> bool:
        """Take in one step's movement (uint8 [bytes] each); True if it coasts."""
        moved = self._movement(before, after)
        length, last = math.sqrt(moved @ moved), self._length
        is_coasting = (
            0.0 < length <= _SHORTER * last
            and moved.size == self._last.size > 1
            and float(moved @ self._last) >= _PARALLEL * length * last
        )
        if is_coasting:
            self._began = self._began or last
            self._coasted = 1
        elif self._began and length < 0.1 * self._began and self._coasted < _COASTING:
            is_coasting = True
            self._coasted += 1
        else:
            self._began = 0.0
        self._last, self._length = moved, length
        return is_coasting

    def _movement(self, before: torch.Tensor, after: torch.Tensor) -> NDArray[np.float32]:
        if self._dtype == torch.float32 and before.device.type == after.device.type == "cpu":
            old = before.numpy()[self._place].view(np.float32)
            moved: NDArray[np.float32] = after.numpy()[self._place].view(np.float32) - old
            self.is_far = _is_far(moved, old)
            return moved
        place = self._place
        difference = after[place].view(self._dtype) - before[place].view(self._dtype)
        return np.asarray(difference.float().cpu().numpy(), np.float32)


def is_moved(parameters: list[tuple[int, int, torch.dtype]], before: torch.Tensor, after: torch.Tensor) -> bool:
    """True if any block of the parameters differs by more than STILL of its norm; `before`, `after` uint8 [bytes]."""
    if before.device.type == after.device.type == "cpu" and all(dtype == torch.float32 for _, _, dtype in parameters):
        old, new = before.numpy(), after.numpy()
        return any(
            _is_far(new[low:high].view(np.float32) - old[low:high].view(np.float32), old[low:high].view(np.float32))
            for low, high, _ in _blocks(parameters)
        )
    return any(
        _differs(before[low:high].view(dtype), after[low:high].view(dtype)) for low, high, dtype in _blocks(parameters)
    )


def _blocks(parameters: list[tuple[int, int, torch.dtype]]) -> Iterator[tuple[int, int, torch.dtype]]:
    for start, end, dtype in parameters:
        for low in range(start, end, _BLOCK):
            yield low, min(end, low + _BLOCK), dtype


def _is_far(moved: NDArray[np.float32], old: NDArray[np.float32]) -> bool:
    """As `_differs`; in numpy, since that takes a third of the time of torch on so few numbers."""
    norm = max(math.sqrt(old @ old), _SMALLEST_RMS * math.sqrt(old.size))
    return not math.sqrt(moved @ moved) <= STILL * norm


def _differs(old: torch.Tensor, new: torch.Tensor) -> bool:
    if not new.is_floating_point():
        return not torch.equal(old, new)
    old, new = old.float(), new.float()
    norm = max(float(torch.linalg.vector_norm(old)), _SMALLEST_RMS * math.sqrt(old.numel()))
    return not float(torch.dist(new, old)) <= STILL * norm
