"""The choice watch: which choices of the action heads were taken once and are never taken any more.

A policy that prefers one choice is right to take the others seldom, and a situation that does not occur needs no
choice of its own. So a choice counts as abandoned only if it was not taken in the newest decisions although it used to
be, and if the policy of now would not take it in the very situation in which it was taken last.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...shared.application import ActionHead, Application
from ...shared.experiences.records import SEND
from ...shared.memory.control import Control
from ...shared.weights.flat_model import FlatModel

log = logging.getLogger(__name__)

_EVERY = 10
"""Ticks from one look to the next; what came in between is taken in at once, which costs a tenth."""
_WINDOW, _PER_CHOICE = 500, 20
"""Newest decisions in which a choice must not have been taken: 500, and 20 for each choice of its head."""
_EXPECTED = 20
"""Times that it would have been taken among them at its former rate."""
_CHANCE = 0.001
_TAKES = 20
"""Newest rewards of a choice that its mean is taken of, up to twice as many."""
_AT_ONCE = 64
"""Choices of a head that are looked at in one go."""
_LARGEST = 1_000_000
"""Numbers stored of a head's situations; a head of more choices times features is not watched."""


class _Head:
    """What is known of one head's choices, each an array over them."""

    def __init__(self, size: int, features: int) -> None:
        self.window = max(_WINDOW, _PER_CHOICE * size)
        self.count = np.zeros(size, np.int64)
        self.taken_at = np.zeros(size, np.int64)
        self.situation = np.zeros((size, features), np.float32)
        self.rewards = np.zeros(size)
        self.rewarded = np.zeros(size)

    def add(self, rows: NDArray[Any], choices: NDArray[np.int64], seen: int) -> None:
        """Take in records (structured [n]) and the choice of each; `seen` decisions came before them."""
        size = len(self.count)
        self.count += np.bincount(choices, minlength=size)
        self.taken_at[choices] = seen + np.arange(1, len(rows) + 1)
        self.situation[choices] = rows["observation"]
        sent = rows["decision"] == SEND
        self.rewards += np.bincount(choices[sent], rows["actual_reward"][sent], size)
        self.rewarded += np.bincount(choices[sent], minlength=size)
        many = self.rewarded > 2 * _TAKES
        share = _TAKES / self.rewarded[many]
        self.rewards[many] *= share
        self.rewarded[many] *= share

    def missed(self, seen: int) -> NDArray[np.int64]:
        """The choices that were not taken lately although they would have been at their former rate."""
        expected = self.count * self.window / np.maximum(self.taken_at, 1)
        late = (seen - self.taken_at >= self.window) & (self.count >= _EXPECTED) & (expected >= _EXPECTED)
        return np.flatnonzero(late)[:_AT_ONCE]

    def mean(self, choice: int) -> float:
        """What the choice earned when it was taken last; NaN if it never was rewarded."""
        return float(self.rewards[choice] / self.rewarded[choice]) if self.rewarded[choice] else math.nan


class ChoiceWatch:
    """Writes to the control segment how many choices are abandoned, and which of them earned most."""

    def __init__(self, control: Control, flat: FlatModel, application: Application) -> None:
        self._control = control
        self._flat = flat
        self._kinds = application.heads
        self._sizes = [head.size for head in application.heads]
        self._features = len(application.features)
        self._restart()

    def _restart(self) -> None:
        self._generation = self._control.get("generation")
        self._seen = self._ticks = 0
        self._recent = (0.0, 0.0)
        self._fresh: list[NDArray[Any]] = []
        features = self._features
        self._heads = {
            index: _Head(size, features)
            for index, size in enumerate(self._sizes)
            if size > 1 and size * features <= _LARGEST and type(self._kinds[index]) is ActionHead
        }
        self._control.set("trainer.abandoned", 0)

    def tick(self, rows: NDArray[Any]) -> None:
        """Take in the records (structured [n]) that are new since the last tick, and look at them now and then."""
        if self._control.get("generation") != self._generation:
            self._restart()
        if len(rows):
            self._fresh.append(rows)
        self._ticks += 1
        if self._ticks % _EVERY:
            return
        try:
            if self._fresh:
                # As words: field by field it would take ten times as long.
                words = np.concatenate([rows.view(np.int64) for rows in self._fresh])
                self._add(words.view(self._fresh[0].dtype))
            self._check()
        except Exception:
            log.exception("the choices of the newest decisions could not be looked at")
        self._fresh.clear()

    def _add(self, rows: NDArray[Any]) -> None:
        for index, head in self._heads.items():
            choices = rows["action"][:, index].astype(np.int64)
            known = (choices >= 0) & (choices < len(head.count))
            head.add(rows[known], choices[known], self._seen)
        self._seen += len(rows)
        sent = rows["decision"] == SEND
        count, total = self._recent[0] + np.count_nonzero(sent), self._recent[1] + rows["actual_reward"][sent].sum()
        share = min(1.0, _WINDOW / count) if count > 2 * _WINDOW else 1.0
        self._recent = (count * share, float(total) * share)

    def _check(self) -> None:
        found = [
            (head.mean(choice), index, choice)
            for index, head in self._heads.items()
            for choice in self._abandoned(index, head)
        ]
        control = self._control
        if found:
            earned, index, choice = max(found, key=lambda item: -math.inf if math.isnan(item[0]) else item[0])
            count, total = self._recent
            control.set("trainer.abandoned_head", index)
            control.set("trainer.abandoned_choice", choice)
            control.set("trainer.abandoned_window", self._heads[index].window)
            control.set("trainer.abandoned_reward", earned)
            control.set("trainer.recent_reward", total / count if count else math.nan)
        control.set("trainer.abandoned", len(found))

    def _abandoned(self, index: int, head: _Head) -> list[int]:
        missed = head.missed(self._seen)
        if not len(missed):
            return []
        model = self._flat.model
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                situations = torch.from_numpy(head.situation[missed]).to(self._flat.flat.device)
                chances = torch.softmax(model(situations)[index].float(), dim=1).cpu().numpy()
        finally:
            model.train(was_training)
        return [int(choice) for row, choice in enumerate(missed) if chances[row, choice] < _CHANCE]
