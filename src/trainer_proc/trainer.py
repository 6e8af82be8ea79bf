"""The continuous trainer: at each tick sample, train, guard, publish, record.

The loop (loop.py) never touches the decision path: it reads the rings without a lock and publishes through the weights
slots. If it dies at any point, the newest published version stays in force, and the next trainer goes on from it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.errors import CheckpointError, TandemError
from ..shared.instance import Instance
from ..shared.learning import Batch, Learner, StepResult, event_row, history_row
from ..shared.memory.control import Control
from ..shared.rate_limit import RateLimit
from ..shared.replay import ExperienceReplayBuffer
from ..shared.telemetry.training_metrics import TrainingMetrics
from ..shared.training.watch import LearningWatch
from ..shared.weights.checkpoints import Checkpoint
from ..shared.weights.flat_model import FlatModel
from .batches import Batches
from .candidate import RANDOM, Candidate
from .checkpoint_policy import CheckpointPolicy
from .command_answers import Commands
from .devices import choose_device
from .guards.decision_watch import DecisionWatch
from .guards.intake import Intake
from .loop import TrainerFailed, TrainingLoop
from .pace import Pace

log = logging.getLogger(__name__)

__all__ = ["ContinuousTrainer", "TrainerFailed"]


@dataclasses.dataclass
class _Step:
    """A step that was taken and not published yet: its records (structured [n]), their rewards, what came of it."""

    rows: NDArray[Any]
    rewards: NDArray[np.float32]
    batch: Batch
    result: StepResult
    drawn_ns: int
    seconds: float


# Many methods: those of the loop that it drives and of the commands that it carries out, besides its own.
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
        self.config = config or self.instance.config.trainer
        self.device = choose_device(self.config.device)
        module = model.model if isinstance(model, FlatModel) else model
        self.candidate = Candidate(self.instance, module, self.config, self.device)
        self.checkpoints = CheckpointPolicy(self.instance.checkpoints(), self.control, self.config)
        intake = Intake(self.control, self.instance.application)
        self._batches = Batches(self.control, buffer.reader, intake, self.device)
        self._decisions = DecisionWatch(self.instance, self.config, buffer.reader, intake, self.flat)
        self._resume()
        self.metrics = TrainingMetrics(self.control)
        self.watch = LearningWatch(self.control, self.flat)
        self._pace = Pace(self.control, hasattr(self.learner, "experiences"))
        self._batch_size = 0
        self._tell_at = 0.0
        self._commands = Commands(self)
        self._warn = RateLimit(10.0)
        self.loop = TrainingLoop(self, self.control, self.metrics)
        if self.control.get("trainer.config_revision"):
            self._take_reloaded()

    def _take_reloaded(self) -> None:
        try:
            self.configure(self.instance.config_in_force().trainer)
        except (OSError, ValueError, TandemError) as error:
            log.error("version %d: the reloaded settings are left out: %s", self.model_version, error)

    @property
    def instance(self) -> Instance:
        """The instance that is trained."""
        return self.buffer.instance

    @property
    def control(self) -> Control:
        """Its control segment."""
        return self.buffer.control

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
        return self.loop.is_running

    def start(self) -> None:
        """Run the loop on a daemon thread. A second call warns and does nothing."""
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Ask the loop to end and wait up to `timeout` seconds; True if it ended. Idempotent, `start` works again."""
        return self.loop.stop(timeout)

    def request_stop(self) -> None:
        """Ask the loop to end after the current step. Safe in a signal handler: it only sets a flag."""
        self.loop.request_stop()

    def run(self) -> None:
        """The loop: until a stop is asked for. Raises TrainerFailed after `max_failures` failed steps in a row."""
        self.loop.run()

    def poll(self) -> None:
        """Carry out what an operator asked for, if anything."""
        self._commands.poll()

    def is_early(self) -> bool:
        """True if so much is new that the next tick should not wait for its time."""
        return self.config.steps_per_interval == "auto" and self._pace.is_early()

    def plan_tick(self) -> int:
        """Steps of the tick that begins now: `steps_per_interval`, or, where the data set the pace, by what is new."""
        fixed = self.config.steps_per_interval
        if not isinstance(fixed, str):
            self._batch_size = self.config.batch_size
            return fixed
        steps, self._batch_size = self._pace.plan(self.config)
        if not steps:
            self.metrics.count("idle_ticks")
        elif self._pace.is_bounded:
            self.metrics.count("bounded_ticks")
        return steps

    def train_step(self) -> bool:
        """Sample, train, guard, publish and record once. False if it was skipped or the candidate refused."""
        self._batch_size = self.config.batch_size
        return self.train(1) > 0

    def train(self, most: int) -> int:
        """Take up to `most` steps, guard what came of them, publish it once and record each; how many they were.

        0 if there was nothing to train on or the candidate was refused.
        """
        steps = self._steps(self._together(most))
        if not steps:
            self.metrics.count("skipped_steps")
            self.watch.skipped(self.buffer.reader.size(), self.config.min_batch_size)
            return 0
        started, last = time.perf_counter(), steps[-1]
        fault = self.candidate.find_fault(last.batch.inputs, len(steps))
        if fault is not None:
            self.metrics.count("refused")
            self.watch.refused(last.result.loss)
            log.error("version %d: the candidate was refused: %s", self.model_version, fault)
            self._go_back()
            return 0
        rows = [
            history_row(version, step.rows, step.rewards, step.result, step.seconds * 1e3)
            for version, step in enumerate(steps, self.model_version + 1)
        ]
        in_force = self.candidate.in_force()
        self.candidate.publish(self.model_version + len(steps), last.drawn_ns)
        # Directly after: a trainer that is killed in between leaves versions without their rows.
        last.seconds += time.perf_counter() - started
        rows[-1]["step_ms"] = last.seconds * 1e3
        for row in rows:
            self.metrics.record(row)
        self.candidate.remember_good()
        # Another slot than the one that was published into.
        self.watch.trained(last.result.loss, in_force, len(steps))
        for step in steps:
            self._batches.learned(step.rows, step.result)
        self._tell(rows[-1], len(last.rows))
        self._pace.took(sum(step.seconds for step in steps) / len(steps))
        return len(steps)

    def _together(self, most: int) -> int:
        """Steps of the next publication. Alone after one that came to nothing, to find what is to blame."""
        return 1 if self.candidate.in_vain else self._pace.together(most)

    def _steps(self, count: int) -> list[_Step]:
        """Take `count` steps, fewer if experiences are too few or a loss is not finite."""
        steps: list[_Step] = []
        while len(steps) < count:
            drawn_ns = time.monotonic_ns()
            rows = self._batches.draw(self.config, self._batch_size)
            if rows is None:
                break
            started = time.perf_counter()
            if not steps:
                self.candidate.begin()
                self._observe()
            rewards = self._batches.rewards(rows, self.config)
            batch = self._batches.tensors(rows, rewards)
            if hasattr(self.learner, "experiences"):
                self.learner.experiences = self.buffer.reader.size()
            result = self.candidate.step(batch)
            steps.append(_Step(rows, rewards, batch, result, drawn_ns, time.perf_counter() - started))
            if not math.isfinite(result.loss):
                break
        return steps

    def _observe(self) -> None:
        """Let a learner that sees each experience once, too, see those that are new."""
        observe = getattr(self.learner, "observe", None)
        if observe is None:
            return
        rows = self._batches.new()
        if rows is not None:
            observe(self._batches.tensors(rows, self._batches.rewards(rows, self.config)))

    def _tell(self, row: dict[str, float], size: int) -> None:
        """A line for each publication, from the last row of the history, at level info at most one a second."""
        now = time.monotonic()
        level = logging.INFO if now >= self._tell_at else logging.DEBUG
        self._tell_at = now + 1.0 if level == logging.INFO else self._tell_at
        log.log(
            level, "version %d: loss %.4f, reward %.3f, batch %d, %.1f ms",
            row["version"], row["loss"], row["reward"], size, row["step_ms"],
            extra={"data": {name: value for name, value in row.items() if name not in ("version", "time", "event")}},
        )  # fmt: skip

    def step_failed(self) -> None:
        """The step raised: go back to what was before it."""
        self.watch.failed()
        self._go_back()

    def _go_back(self) -> None:
        """Leave a step that came to nothing behind; if the next one did too, look whether some experience spoils it."""
        in_vain = self.candidate.in_vain
        self.candidate.go_back()
        self._batches.leave_out_spoilers(in_vain, self._passes)

    def _passes(self, rows: NDArray[Any]) -> bool:
        self.loop.progress()
        return self.candidate.trial(self._batches.tensors(rows, self._batches.rewards(rows, self.config)))

    def look(self) -> None:
        """Take in what became of the decisions, and roll back if they earn clearly less than they did.

        What fails is counted and logged; training goes on without it.
        """
        try:
            worse = self._decisions.look(self.watch, self.metrics)
            if worse is not None:
                self._roll_back_to(*worse)
        except TrainerFailed:
            raise
        except Exception:
            self.metrics.count("total_errors")
            self._warn.exception(log, "what decisions earned could not be looked at")

    def _roll_back_to(self, version: int, reason: str) -> None:
        checkpoint = self.checkpoints.find(version)
        if checkpoint is not None and not self.checkpoints.is_sound(checkpoint):
            checkpoint = self.checkpoints.best()
        if checkpoint is None:
            log.error("version %d: %s, but checkpoint %d is gone or damaged", self.model_version, reason, version)
            return
        try:
            self.roll_back(checkpoint, reason)
            self.metrics.count("guard_rollbacks")
        except CheckpointError as error:
            log.error("version %d: %s, but %s", self.model_version, reason, error)

    def checkpoint(self, restored: int = 0) -> bool:
        """Save model, optimiser and random state if there is anything new; False if the disk refused."""
        self.candidate.settle()
        optimiser = {**self.learner.state(), RANDOM: torch.get_rng_state()}
        sampler = self.buffer.reader.rng.bit_generator.state
        details = {
            "application": self.instance.application.name,
            "sampler": sampler,
            "observed": self._batches.observed,
        }
        score, version, guard = self._decisions.score(), self.model_version, self._decisions.guard
        state = self.flat.state()
        if not self.checkpoints.save(version, state, optimiser, details, score, restored, guard.best_version):
            return False
        if not restored:
            guard.saved(version, score)
        return True

    def roll_back(self, checkpoint: Checkpoint, reason: str) -> int:
        """Publish a checkpoint's weights under the next version, take its optimiser state, and return that version.

        Raises CheckpointError if it cannot be read or belongs to another model; nothing changes then.
        """
        self.candidate.take_checkpoint(checkpoint)
        self._batches.resume(checkpoint.manifest)
        source = int(checkpoint.manifest.get("restored") or checkpoint.version)
        self.control.add("rollbacks")
        self.control.set("restored_version", checkpoint.version)
        version = self._publish_other(event=1)
        self._decisions.guard.restart(checkpoint.version)
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
        self._decisions.guard.restart()
        log.warning("version %d: reset to fresh weights (generation %d)", version, generation)
        self.checkpoint()
        return version

    def configure(self, config: ContinuousTrainingConfig) -> None:
        """Take over the settings that may change while the instance runs; the others stay as they are."""
        names = [field.name for field in dataclasses.fields(config) if field.metadata["reloadable"]]
        self.config = dataclasses.replace(self.config, **{name: getattr(config, name) for name in names})
        self.checkpoints.config = self.config
        self._decisions.configure(self.config)
        self.candidate.configure(self.config)
        log.info("version %d: settings were reloaded", self.model_version)

    def _publish_other(self, event: int) -> int:
        """Publish weights that did not come from a step, and begin the comparisons anew."""
        version = self.model_version + 1
        self.candidate.publish(version)
        self.candidate.remember_good()
        self._decisions.restart(version)
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
        self._batches.resume(checkpoint.manifest)
        if checkpoint.version == self.model_version:
            self.checkpoints.saved_version = checkpoint.version
            if random is not None:
                torch.set_rng_state(random)
            if checkpoint.manifest.get("sampler"):
                self.buffer.reader.rng.bit_generator.state = checkpoint.manifest["sampler"]
        self.candidate.remember_good()
        log.info("version %d: optimiser state of checkpoint %d taken over", self.model_version, checkpoint.version)
