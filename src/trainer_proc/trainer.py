"""The continuous trainer: at each tick sample, train, guard, publish, record.

The loop never touches the decision path: it reads the rings without a lock and publishes through the weights slots.
"""

from __future__ import annotations

import logging
import threading
import time

import torch

from ..shared.config import ContinuousTrainingConfig
from ..shared.errors import CheckpointError, TandemError
from ..shared.learning import Learner, history_row, load_learner, make_batch, training_rewards
from ..shared.metrics import TrainingMetrics
from ..shared.replay import ExperienceReplayBuffer
from ..shared.weights import FlatModel, Publisher, Subscriber
from .guard import find_fault

log = logging.getLogger(__name__)

_SLICE = 0.05
"""Longest sleep, seconds: commands and stop requests are seen this fast."""


class TrainerFailed(TandemError):
    """Too many training steps failed in a row."""


class ContinuousTrainer:
    """Trains `model` on experiences of `buffer` every `training_interval` and publishes each successful step.

    `run()` is the loop of the trainer process; `start()` and `stop()` run the same loop on a daemon thread of the
    calling process. The newest published weights are taken over at construction, and optimiser state from the newest
    good checkpoint, so a restart goes on where the last trainer stopped.
    """

    def __init__(
        self,
        model: torch.nn.Module | FlatModel,
        buffer: ExperienceReplayBuffer,
        config: ContinuousTrainingConfig | None = None,
    ) -> None:
        self.buffer = buffer
        self.instance = buffer.instance
        self.control = buffer.control
        self.config = config or self.instance.config.trainer
        self.device = choose_device(self.config.device)
        module = model.model if isinstance(model, FlatModel) else model
        self.flat = FlatModel(module.to(self.device), self.device)
        slots = self.instance.open_slots(self.flat.layout)
        self._publisher = Publisher(slots)
        self._published = Subscriber(slots)
        self._staging = torch.empty(
            self.flat.layout.data_bytes, dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        self._take_published()
        self.learner = self._build_learner()
        self._checkpoints = self.instance.checkpoints()
        self._resume_optimiser()
        self.metrics = TrainingMetrics(self.control)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._next_checkpoint = time.monotonic() + self.config.checkpoint_interval
        self._saved_version = self.model_version

    @property
    def model_version(self) -> int:
        """The newest published version: one more for each successful step."""
        return self._publisher.version

    @property
    def is_running(self) -> bool:
        """True while the thread that `start` made lives."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Run the loop on a daemon thread. A second call warns and does nothing."""
        if self.is_running:
            log.warning("the trainer is running already")
            return
        self._stopping = False
        self._thread = threading.Thread(target=self.run, name="tandem-trainer", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Ask the loop to end and wait up to `timeout` seconds; True if it ended. Idempotent, `start` works again."""
        self._stopping = True
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                log.warning("the trainer did not stop within %g s", timeout)
                return False
            self._thread = None
        return True

    def request_stop(self) -> None:
        """Ask the loop to end after the current step. Safe in a signal handler: it only sets a flag."""
        self._stopping = True

    def run(self) -> None:
        """The loop: until a stop is asked for. Raises TrainerFailed after `max_failures` failed steps in a row."""
        interval = self.config.training_interval
        next_tick = time.monotonic() + interval
        while not self._stopping:
            self._beat()
            now = time.monotonic()
            if self.control.get("command.pause") or now < next_tick:
                time.sleep(max(0.0, min(_SLICE, next_tick - now)) or _SLICE)
                continue
            for _ in range(self.config.steps_per_interval):
                if not self._tick():
                    break
            self._checkpoint_if_due()
            missed = int((time.monotonic() - next_tick) / interval)
            if missed:
                # No backlog: the missed ticks are gone.
                self.metrics.count("overruns", missed)
                log.warning("version %d: a step overran its interval; %d tick(s) skipped", self.model_version, missed)
            next_tick += (missed + 1) * interval
        self.checkpoint()

    def _beat(self) -> None:
        self.control.add("trainer.progress")
        self.control.set("trainer.progress_ns", time.monotonic_ns())
        self.metrics.refresh_rate()

    def _tick(self) -> bool:
        """One step, survived and counted if it fails; False if there was nothing to train on."""
        try:
            trained = self.train_step()
        except Exception:
            self._failures += 1
            self.metrics.count("total_errors")
            log.exception("version %d: training step failed (%d in a row)", self.model_version, self._failures)
            self._go_back()
            if self._failures >= self.config.max_failures:
                raise TrainerFailed(
                    f"{self._failures} training steps failed in a row; the last error is above"
                ) from None
            return False
        self._failures = 0
        return trained

    def train_step(self) -> bool:
        """Sample, step, guard, publish, record. False if too few experiences are there: no version, no metrics."""
        reader, config = self.buffer.reader, self.config
        rows = reader.sample(config.batch_size)
        self.control.set("metrics.total_sampled", reader.sampled)
        self.control.set("metrics.torn_rows", reader.torn)
        if len(rows) < config.min_batch_size:
            self.metrics.count("skipped_steps")
            return False
        started = time.perf_counter()
        rewards = training_rewards(rows, config)
        result = self.learner.step(make_batch(rows, rewards, self.device))
        fault = find_fault(self.flat)
        if fault is not None:
            self.metrics.count("refused")
            log.error("version %d: the candidate was refused: %s", self.model_version, fault)
            self._go_back()
            return False
        version = self.model_version + 1
        self._publish(version)
        row = history_row(version, rows, rewards, result, (time.perf_counter() - started) * 1e3)
        self.metrics.record(row)
        log.info(
            "version %d: loss %.4f, reward %.3f, batch %d, %.1f ms",
            version, result.loss, row["reward"], len(rows), row["step_ms"],
        )  # fmt: skip
        return True

    def _publish(self, version: int) -> None:
        if self.device.type == "cpu":
            self._publisher.publish(self.flat.flat, version)
        else:
            self._staging.copy_(self.flat.flat)
            self._publisher.publish(self._staging, version)

    def _take_published(self) -> None:
        """Load the newest published weights; nobody else publishes, so the slot is quiet."""
        self._published.version = -1
        if not self._published.refresh(self._staging):
            raise TrainerFailed("the newest published weights cannot be read; restart the instance")
        self.flat.flat.copy_(self._staging)

    def _go_back(self) -> None:
        """Return to the published weights with a fresh optimiser: the failed step may have spoilt both."""
        self._take_published()
        self.learner = self._build_learner()
        self._resume_optimiser()

    def _build_learner(self) -> Learner:
        learner: Learner = load_learner(self.config.learner)(
            self.flat.model, self.instance.application.heads, self.config
        )
        return learner

    def _resume_optimiser(self) -> None:
        checkpoint = self._checkpoints.newest()
        if checkpoint is None:
            return
        try:
            self.learner.load_state(checkpoint.load_optimiser())
            log.info("version %d: optimiser state of checkpoint %d taken over", self.model_version, checkpoint.version)
        except (CheckpointError, KeyError, ValueError, IndexError) as error:
            log.error("checkpoint %d: its optimiser state is left out: %s", checkpoint.version, error)

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() >= self._next_checkpoint:
            self._next_checkpoint = time.monotonic() + self.config.checkpoint_interval
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save model and optimiser if there is anything new; a full disk is logged, not raised."""
        version = self.model_version
        if version == self._saved_version:
            return
        details = {
            "config": self.config.to_dict(),
            "application": self.instance.application.name,
            "metrics": {
                name: self.control.get(f"metrics.{name}") for name in ("average_loss", "mean_reward", "total_steps")
            },
        }
        try:
            self._checkpoints.save(version, self.flat.state(), self.learner.state(), details)
            self._checkpoints.prune(self.config.checkpoints_kept)
        except CheckpointError as error:
            log.error("version %d: no checkpoint: %s", version, error)
            return
        self._saved_version = version
        log.info("version %d: checkpoint saved", version)


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises TandemError if CUDA is asked for and not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise TandemError("trainer.device: cuda is not available on this machine (allowed: auto, cpu)")
    return torch.device("cuda" if name != "cpu" and available else "cpu")
