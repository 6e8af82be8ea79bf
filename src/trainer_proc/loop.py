"""The training loop: ticks on the monotonic clock, without a backlog, and what becomes of steps that fail."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.errors import TandemError
from ..shared.memory.control import Control
from ..shared.telemetry.training_metrics import TrainingMetrics

log = logging.getLogger(__name__)

_SLICE = 0.05
"""Longest sleep, seconds: commands and stop requests are seen this fast."""


class TrainerFailed(TandemError):
    """The trainer cannot go on."""


class Work(Protocol):
    """What the loop drives."""

    config: ContinuousTrainingConfig

    @property
    def model_version(self) -> int:
        """The newest published version."""

    def poll(self) -> None:
        """Carry out what an operator asked for."""

    def look(self) -> None:
        """Take in what became of the decisions."""

    def is_early(self) -> bool:
        """True if a tick should come before its time."""

    def plan_tick(self) -> int:
        """Steps of the tick that begins now."""

    def train(self, most: int) -> int:
        """Steps taken and published, up to `most`; 0 if there was nothing to train on or the candidate was refused."""

    def step_failed(self) -> None:
        """The step raised: go back to what was before it."""

    def checkpoint(self) -> bool:
        """Save what is new."""


class TrainingLoop:
    """Ticks every `training_interval`, in the calling thread (`run`) or on a daemon thread of its own (`start`)."""

    def __init__(self, work: Work, control: Control, metrics: TrainingMetrics) -> None:
        self._work = work
        self._control = control
        self._metrics = metrics
        self._stopping = False
        self.thread: threading.Thread | None = None
        self.beside: Callable[[], None] = lambda: None
        """Called between two steps and twenty times a second at least, also while training is paused."""
        self._failures = 0
        self._next_checkpoint = time.monotonic() + work.config.checkpoint_interval

    @property
    def is_running(self) -> bool:
        """True while the thread that `start` made lives."""
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> None:
        """Run on a daemon thread. A second call warns and does nothing."""
        if self.is_running:
            log.warning("the trainer is running already")
            return
        self._stopping = False
        self.thread = threading.Thread(target=self._run_on_thread, name="tandem-trainer", daemon=True)
        self.thread.start()

    def _run_on_thread(self) -> None:
        try:
            self.run()
        except TrainerFailed as error:
            log.error("the trainer has ended: %s", error)

    def stop(self, timeout: float) -> bool:
        """Ask for the end and wait up to `timeout` seconds; True if it came. Idempotent, `start` works again."""
        self._stopping = True
        thread = self.thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                log.warning("the trainer did not stop within %g s", timeout)
                return False
            self.thread = None
        return True

    def request_stop(self) -> None:
        """Ask for the end after the current step. Safe in a signal handler: it only sets a flag."""
        self._stopping = True

    def run(self) -> None:
        """Tick until a stop is asked for. Raises TrainerFailed after `max_failures` failed steps in a row."""
        work = self._work
        next_tick = time.monotonic() + work.config.training_interval
        next_early = 0.0
        while not self._stopping:
            self.beat()
            now = time.monotonic()
            is_early = now < next_tick and now >= next_early and work.is_early()
            if self._control.get("command.pause") or (now < next_tick and not is_early):
                time.sleep(max(0.0, min(_SLICE, next_tick - now)) or _SLICE)
                continue
            work.look()
            next_early = now + work.config.early_interval
            if is_early:
                next_tick = now
            self._train(work.plan_tick())
            self._checkpoint_if_due()
            next_tick += (self._missed(next_tick) + 1) * work.config.training_interval
        work.checkpoint()

    def _train(self, steps: int) -> None:
        while steps > 0 and (taken := self.tick(steps)):
            steps -= taken
            if self._stopping:
                break
            self.beat()
            if self._control.get("command.pause"):
                break

    def _missed(self, next_tick: float) -> int:
        """Ticks that passed while this one was worked on: there is no backlog, they are gone and counted."""
        missed = int((time.monotonic() - next_tick) / self._work.config.training_interval)
        if missed:
            self._metrics.count("overruns", missed)
            version = self._work.model_version
            log.warning("version %d: a step overran its interval; %d tick(s) skipped", version, missed)
        return missed

    def progress(self) -> None:
        """Say that the loop turns."""
        self._control.add("trainer.progress")
        self._control.set("trainer.progress_ns", time.monotonic_ns())

    def beat(self) -> None:
        """What happens between two steps: a sign of life, the rate, an operator's commands."""
        self.progress()
        self._metrics.refresh_rate()
        self.beside()
        self._work.poll()

    def tick(self, most: int = 1) -> int:
        """The steps of one publication, counted if one fails; 0 if there was nothing to train on."""
        work = self._work
        try:
            taken = work.train(most)
        except Exception as error:
            self._failures += 1
            self._metrics.count("total_errors")
            log.exception("version %d: training step failed (%d in a row)", work.model_version, self._failures)
            work.step_failed()
            if self._failures >= work.config.max_failures:
                raise TrainerFailed(
                    f"{self._failures} training steps failed in a row (trainer.max_failures); the last one: {error!r}"
                ) from error
            return 0
        if taken:
            self._failures = 0
        return taken

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() >= self._next_checkpoint:
            self._next_checkpoint = time.monotonic() + self._work.config.checkpoint_interval
            self._work.checkpoint()
