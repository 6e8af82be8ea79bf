"""The continuous trainer: at each tick sample, train, guard, publish, record.

The loop never touches the decision path: it reads the rings without a lock and publishes through the weights slots. If
it dies at any point, the newest published version stays in force, and the next trainer goes on from it.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.errors import CheckpointError, TandemError
from ..shared.experiences.strategies import Prioritized
from ..shared.learning import Learner, StepResult, event_row, history_row, make_batch, training_rewards
from ..shared.rate_limit import RateLimit
from ..shared.replay import ExperienceReplayBuffer
from ..shared.telemetry.training_metrics import TrainingMetrics
from ..shared.training.watch import LearningWatch
from ..shared.weights.checkpoints import Checkpoint
from ..shared.weights.flat_model import FlatModel
from .candidate import RANDOM, Candidate, TrainerFailed
from .checkpoint_policy import CheckpointPolicy
from .command_answers import Commands
from .devices import choose_device
from .guards.choice_watch import ChoiceWatch
from .guards.intake import Intake, find_spoilers
from .guards.reward_guard import RewardGuard, RewardScores

log = logging.getLogger(__name__)

_SLICE = 0.05
"""Longest sleep, seconds: commands and stop requests are seen this fast."""

__all__ = ["ContinuousTrainer", "TrainerFailed"]


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
        self.candidate = Candidate(self.instance, module, self.config, self.device)
        self._slots = self.candidate.slots
        self.checkpoints = CheckpointPolicy(self.instance.checkpoints(), self.control, self.config)
        self.intake = Intake(self.control, self.instance.application)
        window, first = self.config.live_guard_window, self._first_version()
        self._scores = RewardScores(self.control, buffer.reader, window, first, self.intake.bounds, self.intake.check)
        self._reward_guard = RewardGuard(self.config)
        self._resume()
        self.metrics = TrainingMetrics(self.control)
        self.watch = LearningWatch(self.control, self.flat)
        self._choices = ChoiceWatch(self.control, self.flat, self.instance.application)
        self._commands = Commands(self)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._warn = RateLimit(10.0)
        self._rows: NDArray[Any] | None = None
        self._next_checkpoint = time.monotonic() + self.config.checkpoint_interval
        if self.control.get("trainer.config_revision"):
            self._take_reloaded()

    def _take_reloaded(self) -> None:
        try:
            self.configure(self.instance.config_in_force().trainer)
        except (OSError, ValueError, TandemError) as error:
            log.error("version %d: the reloaded settings are left out: %s", self.model_version, error)

    @property
    def model_version(self) -> int:
        """The newest published version: one more for each successful step."""
        return self.candidate.version

    @property
    def flat(self) -> FlatModel:
        """The model in training."""
        return self.candidate.flat

    @property
    def learner(self) -> Learner:
        """The learner in use: another one after each way back."""
        return self.candidate.learner

    @property
    def is_running(self) -> bool:
        """True while the thread that `start` made lives."""
        return self._thread is not None and self._thread.is_alive()

    def _in_force(self) -> torch.Tensor:
        return self.candidate.in_force()

    def start(self) -> None:
        """Run the loop on a daemon thread. A second call warns and does nothing."""
        if self.is_running:
            log.warning("the trainer is running already")
            return
        self._stopping = False
        self._thread = threading.Thread(target=self._run_on_thread, name="tandem-trainer", daemon=True)
        self._thread.start()

    def _run_on_thread(self) -> None:
        try:
            self.run()
        except TrainerFailed as error:
            log.error("the trainer has ended: %s", error)

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
        next_tick = time.monotonic() + self.config.training_interval
        while not self._stopping:
            self._beat()
            now = time.monotonic()
            if self.control.get("command.pause") or now < next_tick:
                time.sleep(max(0.0, min(_SLICE, next_tick - now)) or _SLICE)
                continue
            self._watch()
            for _ in range(self.config.steps_per_interval):
                if not self._tick() or self._stopping:
                    break
                self._beat()
                if self.control.get("command.pause"):
                    break
            self._checkpoint_if_due()
            interval = self.config.training_interval
            missed = int((time.monotonic() - next_tick) / interval)
            if missed:
                # No backlog: the missed ticks are gone.
                self.metrics.count("overruns", missed)
                log.warning("version %d: a step overran its interval; %d tick(s) skipped", self.model_version, missed)
            next_tick += (missed + 1) * interval
        self.checkpoint()

    def _progress(self) -> None:
        self.control.add("trainer.progress")
        self.control.set("trainer.progress_ns", time.monotonic_ns())

    def _beat(self) -> None:
        self._progress()
        self.metrics.refresh_rate()
        self._commands.poll()

    def _tick(self) -> bool:
        """One step, survived and counted if it fails; False if there was nothing to train on."""
        try:
            trained = self.train_step()
        except Exception as error:
            self._failures += 1
            self.metrics.count("total_errors")
            self.watch.failed()
            log.exception("version %d: training step failed (%d in a row)", self.model_version, self._failures)
            self._go_back()
            if self._failures >= self.config.max_failures:
                raise TrainerFailed(
                    f"{self._failures} training steps failed in a row (trainer.max_failures); the last one: {error!r}"
                ) from error
            return False
        if trained:
            self._failures = 0
        return trained

    def train_step(self) -> bool:
        """Sample, train, guard, publish and record once. False if it was skipped or the candidate refused."""
        rows = self._rows = self._sample()
        if rows is None:
            self.metrics.count("skipped_steps")
            self.watch.skipped(self.buffer.reader.size(), self.config.min_batch_size)
            return False
        started = time.perf_counter()
        rewards = training_rewards(rows, self.config, self.intake.gated)
        batch = make_batch(rows, rewards, self.device)
        result = self.candidate.step(batch)
        fault = self.candidate.find_fault(batch.observations)
        if fault is not None:
            self.metrics.count("refused")
            self.watch.refused(result.loss)
            log.error("version %d: the candidate was refused: %s", self.model_version, fault)
            self._go_back()
            return False
        self._tell_strategy(rows, result)
        version = self.model_version + 1
        row = history_row(version, rows, rewards, result)
        in_force = self.candidate.in_force()
        in_force = self.candidate.in_force()
        self._publish(version)
        # Directly after: a trainer that is killed in between leaves a version without its row.
        row["step_ms"] = (time.perf_counter() - started) * 1e3
        self.metrics.record(row)
        self.candidate.remember_good()
        # Another slot than the one that was published into.
        self.watch.trained(result.loss, in_force)
        log.info(
            "version %d: loss %.4f, reward %.3f, batch %d, %.1f ms",
            version, result.loss, row["reward"], len(rows), row["step_ms"],
            extra={"data": {name: value for name, value in row.items() if name not in ("version", "time", "event")}},
        )  # fmt: skip
        return True

    def _sample(self) -> NDArray[Any] | None:
        """The next batch of records (structured [n]), or None if there are too few to train on."""
        reader = self.buffer.reader
        rows = reader.sample(self.config.batch_size)
        self.control.set("metrics.total_sampled", reader.sampled)
        self.control.set("metrics.torn_rows", reader.torn)
        if len(rows) < self.config.min_batch_size:
            return None
        rows = self.intake.admit(rows)
        return rows if len(rows) else None

    def _tell_strategy(self, rows: NDArray[Any], result: StepResult) -> None:
        strategy = self.buffer.reader.strategy
        if isinstance(strategy, Prioritized) and result.losses is not None:
            strategy.update(self.buffer.reader, rows, np.nan_to_num(result.losses))

    def _go_back(self) -> None:
        """Leave a step that came to nothing behind; if the next one did too, look whether some experience spoils it."""
        in_vain, rows = self.candidate.in_vain, self._rows
        self.candidate.go_back()
        # At the second in a row, the fourth, the eighth: a search costs some steps.
        if rows is not None and in_vain >= 2 and in_vain & (in_vain - 1) == 0:
            self.intake.leave_out(find_spoilers(rows, self._passes))

    def _passes(self, rows: NDArray[Any]) -> bool:
        self._progress()
        rewards = training_rewards(rows, self.config, self.intake.gated)
        return self.candidate.trial(make_batch(rows, rewards, self.device))

    def checkpoint(self, restored: int = 0) -> bool:
        """Save model, optimiser and random state if there is anything new; False if the disk refused."""
        self.candidate.settle()
        optimiser = {**self.learner.state(), RANDOM: torch.get_rng_state()}
        details = {"application": self.instance.application.name, "sampler": self._sampler_state()}
        score, version = self._scores.score(), self.model_version
        if not self.checkpoints.save(
            version, self.flat.state(), optimiser, details, score, restored, self._reward_guard.best_version
        ):
            return False
        if not restored:
            self._reward_guard.kept(version, score)
        return True

    def roll_back(self, checkpoint: Checkpoint, reason: str) -> int:
        """Publish a checkpoint's weights under the next version, take its optimiser state, and return that version.

        Raises CheckpointError if it cannot be read or belongs to another model; nothing changes then.
        """
        self.candidate.take_checkpoint(checkpoint)
        source = int(checkpoint.manifest.get("restored") or checkpoint.version)
        self.control.add("rollbacks")
        self.control.set("restored_version", checkpoint.version)
        version = self._publish_other(event=1)
        self._reward_guard.restart(checkpoint.version)
        log.warning("version %d: rolled back to checkpoint %d (%s)", version, checkpoint.version, reason)
        self.checkpoint(restored=source)
        return version

    def reset(self) -> int:
        """Publish fresh weights under the next version; what older versions decided is not trained on any more.

        The weights of now are saved first, so that a rollback can bring them back.
        """
        self.checkpoint()
        generation = self.control.get("generation") + 1
        seed = -1 if self.config.seed < 0 else self.config.seed + generation
        self.candidate.take_fresh(seed)
        self.control.set("generation", generation)
        self.control.set("first_version", self.model_version + 1)
        version = self._publish_other(event=2)
        self._reward_guard.restart()
        log.warning("version %d: reset to fresh weights (generation %d)", version, generation)
        self.checkpoint()
        return version

    def configure(self, config: ContinuousTrainingConfig) -> None:
        """Take over the settings that may change while the instance runs; the others stay as they are."""
        names = [field.name for field in dataclasses.fields(config) if field.metadata["reloadable"]]
        self.config = dataclasses.replace(self.config, **{name: getattr(config, name) for name in names})
        for part in (self.checkpoints, self._reward_guard):
            part.config = self.config
        self._scores.resize(self.config.live_guard_window)
        self.candidate.configure(self.config)
        log.info("version %d: settings were reloaded", self.model_version)

    def _watch(self) -> None:
        """Take in what became of the decisions. What fails is counted and logged; training goes on without it."""
        try:
            self._judge_live_decisions()
        except TrainerFailed:
            raise
        except Exception:
            self.metrics.count("total_errors")
            self._warn.exception(log, "what live decisions earned could not be judged")

    def _judge_live_decisions(self) -> None:
        """Take in what live decisions earned, and roll back if that is clearly less than it was."""
        self.watch.tick()
        new = self._scores.read_new()
        self._choices.tick(self._scores.fresh)
        score = self._scores.score()
        self.metrics.record_live(score, self._reward_guard.best, self._reward_guard.best_version)
        version = self._reward_guard.judge(score, new)
        if not version or score is None:
            return
        best = self._reward_guard.best
        checkpoint = self.checkpoints.find(version)
        if checkpoint is not None and not self.checkpoints.is_sound(checkpoint):
            checkpoint = self.checkpoints.best()
        reason = f"live decisions earn {score.mean:.3f}, and earned {best.mean if best else 0.0:.3f}"
        self._reward_guard.restart()
        if checkpoint is None:
            log.error("version %d: %s, but checkpoint %d is gone or damaged", self.model_version, reason, version)
            return
        try:
            self.roll_back(checkpoint, reason)
            self.metrics.count("guard_rollbacks")
        except CheckpointError as error:
            log.error("version %d: %s, but %s", self.model_version, reason, error)

    def _publish(self, version: int) -> None:
        self.candidate.publish(version)

    def _publish_other(self, event: int) -> int:
        """Publish weights that did not come from a step, and begin the comparisons anew."""
        version = self.model_version + 1
        self._publish(version)
        self.candidate.remember_good()
        self._scores.restart(version)
        self.metrics.record_event(event_row(version, event))
        return version

    def _resume(self) -> None:
        """Take over what the newest good checkpoint has besides the weights."""
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            return
        try:
            state = checkpoint.load_optimiser()
        except CheckpointError as error:
            log.error("version %d: no optimiser state: %s", self.model_version, error)
            return
        random = state.get(RANDOM)
        self.candidate.take_state(state, f"that of checkpoint {checkpoint.version}")
        if checkpoint.version == self.model_version:
            self.checkpoints.saved_version = checkpoint.version
            if random is not None:
                torch.set_rng_state(random)
            if checkpoint.manifest.get("sampler"):
                self.buffer.reader.rng.bit_generator.state = checkpoint.manifest["sampler"]
        self.candidate.remember_good()
        log.info("version %d: optimiser state of checkpoint %d taken over", self.model_version, checkpoint.version)

    def _sampler_state(self) -> Any:
        return self.buffer.reader.rng.bit_generator.state

    def _first_version(self) -> int:
        return int(self.control.get("first_version"))

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() >= self._next_checkpoint:
            self._next_checkpoint = time.monotonic() + self.config.checkpoint_interval
            self.checkpoint()
