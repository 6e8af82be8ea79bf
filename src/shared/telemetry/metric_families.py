"""Every metric of `GET /metrics`: name, meaning, and where in shared memory its values come from.

Plain data and standard library only; prometheus.py turns it into what Prometheus reads, and docs/metrics.md is printed
from it (`python -m tandem.reference.metrics`). Values are computed from the control segment alone, so every
server process of an instance answers the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..memory import layout
from ..memory.control import Control
from ..memory.processes import is_same_process
from .learning_reasons import NAMES, learning_reasons

Sample = tuple[tuple[str, ...], float]
"""Values of the labels, and the value."""

PROCESSES = ("trainer", "inference", "supervisor")
OUTCOMES = ("completed", "expired", "superseded", "dropped", "rejected", "lost")
BOUNDS = tuple(16e-6 * 2 ** (bucket / 2) for bucket in range(layout.LATENCY_BUCKETS - 1))
"""Upper bounds in seconds of all duration buckets but the last, which is open."""


@dataclass(frozen=True)
class Family:
    """One metric: `kind` is counter, gauge, histogram or info; a counter's samples get the suffix `_total`.

    `read` gives the samples; of a histogram the value is (counts of all buckets, sum in seconds).
    """

    name: str
    kind: str
    help: str
    source: str
    labels: tuple[str, ...]
    read: Callable[[Control], Iterable[tuple[tuple[str, ...], Any]]]

    @property
    def shown(self) -> str:
        """The name as Prometheus stores it."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def lanes_in_use(control: Control) -> list[int]:
    """The lanes that a server process ever claimed."""
    return [index for index in range(control.get("lanes")) if control.get(f"lane.{index}.claims")]


def _age(monotonic_ns: int) -> float:
    """Seconds since; NaN for 0 (never)."""
    return max(0.0, (time.monotonic_ns() - monotonic_ns) / 1e9) if monotonic_ns else math.nan


def _field(name: str, kind: str, help: str, field: str, scale: float = 1.0) -> Family:
    def read(control: Control) -> Iterator[Sample]:
        yield (), control.get(field) * scale

    return Family(name, kind, help, f"`{field}`", (), read)


def _learned(name: str, help: str, field: str, scale: float = 1.0) -> Family:
    """A gauge that means nothing before the first training step."""

    def read(control: Control) -> Iterator[Sample]:
        yield (), control.get(field) * scale if control.get("metrics.total_steps") else math.nan

    return Family(name, "gauge", help, f"`{field}`", (), read)


def _lane(
    name: str, kind: str, help: str, field: str, read_lane: Callable[[Control, int], float] | None = None
) -> Family:
    def read(control: Control) -> Iterator[Sample]:
        for lane in lanes_in_use(control):
            value = control.get(f"lane.{lane}.{field}") if read_lane is None else read_lane(control, lane)
            yield (str(lane),), value

    source = field if "`" in field else f"`lane.<k>.{field}`"
    return Family(name, kind, help, source, ("lane",), read)


def _information(control: Control) -> Iterator[Sample]:
    schema = control.schema
    yield (control.instance, str(schema["application"]), str(control.get("layout_version"))), 1.0


def _model_age(control: Control) -> Iterator[Sample]:
    yield (), _age(control.get("published_ns"))


def _trainer_enabled(control: Control) -> Iterator[Sample]:
    yield (), float(control.schema["config"]["trainer"]["enabled"])


def _problems(control: Control) -> Iterator[Sample]:
    found = learning_reasons(control)
    for name in NAMES:
        yield (name,), float(name in found)


def _lag(control: Control) -> Iterator[Sample]:
    stepped = control.get("metrics.total_steps")
    for statistic in ("mean", "max"):
        yield (statistic,), control.get(f"metrics.lag_{statistic}") if stepped else math.nan


def _decisions(control: Control) -> Iterator[Sample]:
    for lane in lanes_in_use(control):
        for gate in ("send", "wait"):
            yield (str(lane), gate), control.get(f"lane.{lane}.{gate}")


def _outcomes(control: Control) -> Iterator[Sample]:
    for lane in lanes_in_use(control):
        for outcome in OUTCOMES:
            yield (str(lane), outcome), control.get(f"lane.{lane}.{outcome}")


def _durations(control: Control) -> Iterator[tuple[tuple[str, ...], tuple[list[int], float]]]:
    for lane in lanes_in_use(control):
        counts = [control.get(f"lane.{lane}.latency_{bucket}") for bucket in range(layout.LATENCY_BUCKETS)]
        yield (str(lane),), (counts, control.get(f"lane.{lane}.latency_sum_ns") * 1e-9)


def _size(control: Control, lane: int) -> float:
    held = control.get(f"lane.{lane}.head") - control.get(f"lane.{lane}.floor")
    return float(max(0, min(held, control.get("capacity"))))


def _overwritten(control: Control, lane: int) -> float:
    return float(max(0, control.get(f"lane.{lane}.head") - control.get("capacity")))


def _lane_up(control: Control, lane: int) -> float:
    return float(is_same_process(control.get(f"lane.{lane}.owner"), control.get(f"lane.{lane}.owner_ticks")))


def _lane_age(control: Control, lane: int) -> float:
    return _age(control.get(f"lane.{lane}.progress_ns"))


def _identity(process: str) -> str:
    return "supervisor" if process == "supervisor" else f"process.{process}"


def _process_up(control: Control) -> Iterator[Sample]:
    for process in PROCESSES:
        prefix = _identity(process)
        yield (process,), float(is_same_process(control.get(f"{prefix}.pid"), control.get(f"{prefix}.start_ticks")))


def _process_state(control: Control) -> Iterator[Sample]:
    for process in PROCESSES[:2]:
        state = control.get(f"process.{process}.state")
        for index, name in enumerate(layout.STATES):
            yield (process, name), float(index == state)


def _restarts(control: Control) -> Iterator[Sample]:
    for process in PROCESSES[:2]:
        yield (process,), control.get(f"process.{process}.restarts")


def _progress_age(control: Control) -> Iterator[Sample]:
    yield ("trainer",), _age(control.get("trainer.progress_ns"))
    newest = max((control.get(f"lane.{lane}.progress_ns") for lane in lanes_in_use(control)), default=0)
    yield ("inference",), _age(newest)
    yield ("supervisor",), _age(control.get("supervisor.progress_ns"))


def _process_uptime(control: Control) -> Iterator[Sample]:
    for process in PROCESSES[:2]:
        yield (process,), _age(control.get(f"process.{process}.started_ns"))


GROUPS: tuple[tuple[str, tuple[Family, ...]], ...] = (
    ("The instance and its model", (
        Family("tandem_instance", "info", "What this instance is; always 1.", "the schema",
               ("name", "application", "layout_version"), _information),
        _field("tandem_model_version", "gauge", "Version of the newest published weights.", "version"),
        Family("tandem_model_version_age_seconds", "gauge", "Seconds since that version was published.",
               "`published_ns`", (), _model_age),
        _field("tandem_model_published_timestamp_seconds", "gauge", "When it was published, seconds since 1970.",
               "published_at"),
        _field("tandem_model_rollbacks", "counter", "Rollbacks, asked for or made by the live guard.", "rollbacks"),
        _field("tandem_model_guard_rollbacks", "counter", "Rollbacks that the live guard made by itself.",
               "metrics.guard_rollbacks"),
        _field("tandem_model_resets", "counter", "Resets to fresh weights.", "generation"),
        _field("tandem_model_restored_version", "gauge", "Version that the newest rollback restored; 0: none yet.",
               "restored_version"),
        _field("tandem_model_checkpoints_unsaved", "gauge", "Checkpoints in a row that could not be saved; 0: the last"
               " one was.", "trainer.unsaved"),
    )),
    ("Training", (
        Family("tandem_trainer_enabled", "gauge", "1 if a trainer process learns, 0 if training is coupled to the"
               " server.", "the schema", (), _trainer_enabled),
        _field("tandem_trainer_paused", "gauge", "1 while an operator has paused training.", "command.pause"),
        _field("tandem_training_steps", "counter", "Successful training steps.", "metrics.total_steps"),
        _field("tandem_training_experiences", "counter", "Experiences trained on; one counts each time.",
               "metrics.total_samples"),
        _field("tandem_training_sampled", "counter", "Rows sampled by this trainer process, trained on or not.",
               "metrics.total_sampled"),
        _field("tandem_training_torn_rows", "counter", "Rows given up because they were overwritten while read.",
               "metrics.torn_rows"),
        _field("tandem_training_errors", "counter", "Training steps that raised.", "metrics.total_errors"),
        _field("tandem_training_skipped", "counter", "Ticks with fewer experiences than trainer.min_batch_size.",
               "metrics.skipped_steps"),
        _field("tandem_training_overruns", "counter", "Ticks missed because a step took longer than the interval.",
               "metrics.overruns"),
        _field("tandem_training_refused", "counter", "Candidates that the publish guard refused.", "metrics.refused"),
        Family("tandem_learning_problem", "gauge", "1 while this keeps the instance from learning, as `/health` says"
               " in words.", "`trainer.*`, see shared/learning_reasons.py", ("problem",), _problems),
        _field("tandem_training_refused_in_row", "gauge", "Candidates refused since the last successful step.",
               "trainer.refused_in_row"),
        _field("tandem_training_errors_in_row", "gauge", "Steps that raised since the last successful one.",
               "trainer.failed_in_row"),
        _field("tandem_training_still_in_row", "gauge", "Successful steps in a row that did not move the parameters.",
               "trainer.still_in_row"),
        _field("tandem_learning_choices_abandoned", "gauge", "Choices that were taken and are never taken any more.",
               "trainer.abandoned"),
        _field("tandem_training_shortened", "counter", "Steps that moved too far, as the refused one before, and were"
               " shortened.", "metrics.shortened"),
        _field("tandem_training_clipped_rewards", "counter", "Experiences whose reward lay outside the declared or"
               " learned range.", "metrics.clipped_rewards"),
        _field("tandem_training_left_out", "counter", "Experiences not trained on: absurd numbers, or a step with them"
               " fails.", "metrics.left_out"),
        _field("tandem_training_steps_per_second", "gauge", "Steps per second over the last 60 s.",
               "metrics.steps_per_second"),
        _learned("tandem_training_loss", "Mean loss of the last 100 steps.", "metrics.average_loss"),
        _learned("tandem_training_reward", "Mean training reward of the last 100 steps.", "metrics.mean_reward"),
        _learned("tandem_training_actual_reward", "Mean actual reward of the executed decisions in the last 100 steps.",
                 "metrics.actual_reward"),
        _learned("tandem_training_entropy_nats", "Mean entropy of the policy in the last step.", "metrics.entropy"),
        _learned("tandem_training_gradient_norm", "Norm of the gradient before clipping, last step.",
                 "metrics.gradient_norm"),
        _learned("tandem_training_clipped_ratio", "Share of importance weights that were clipped, last step.",
                 "metrics.clipped_share"),
        Family("tandem_training_lag_versions", "gauge", "Versions between decision and training, last step.",
               "`metrics.lag_mean`, `metrics.lag_max`", ("statistic",), _lag),
        _learned("tandem_training_batch_size", "Mean batch size of the last 100 steps.", "metrics.average_batch_size"),
        _learned("tandem_training_step_seconds", "Mean duration of the last 100 steps.", "metrics.average_step_ms",
                 1e-3),
        _learned("tandem_training_last_step_seconds", "Duration of the last step.", "metrics.last_step_ms", 1e-3),
        _learned("tandem_live_pass_ratio", "Share of decisions that the gate let through, in the live guard's window.",
                 "metrics.pass_rate"),
        _learned("tandem_live_reward", "Mean actual reward of executed decisions in that window.",
                 "metrics.live_reward"),
        _learned("tandem_live_score", "Mean actual reward in that window, a blocked decision counting 0.",
                 "metrics.live_score"),
        _learned("tandem_live_best_score", "Score of the best version kept, to which the live guard compares.",
                 "metrics.live_best"),
        _field("tandem_live_best_version", "gauge", "That version; 0: none yet.", "metrics.live_best_version"),
    )),
    ("Decisions", (
        Family("tandem_decisions", "counter", "Decisions by what the gate said.", "`lane.<k>.send`, `lane.<k>.wait`",
               ("lane", "gate"), _decisions),
        Family("tandem_decision_duration_seconds", "histogram", "Time from observation to decision.",
               "`lane.<k>.latency_<i>`, `lane.<k>.latency_sum_ns`", ("lane",), _durations),
        _lane("tandem_decision_errors", "counter", "Failures on the decision path that were survived.", "errors"),
        _lane("tandem_decision_version", "gauge", "Version that made the lane's newest decision.", "version"),
        _lane("tandem_decision_lock_timeouts", "counter", "Calls that gave up on the process-local lock.",
              "lock_timeouts"),
        _lane("tandem_weights_refreshes", "counter", "Times new weights were taken.", "refreshes"),
        _lane("tandem_weights_refresh_misses", "counter", "Decisions that kept their weights because the slot was being"
              " written.", "refresh_misses"),
        _lane("tandem_rewards", "counter", "Actual rewards that completed a decision.", "reward_count"),
        _lane("tandem_rewards_accumulated", "gauge", "Sum of the actual rewards; falls with a negative one.",
              "reward_sum"),
        _lane("tandem_rewards_unmatched", "counter", "Rewards that found no pending decision.", "unmatched"),
        _lane("tandem_rewards_refused", "counter", "Rewards that were refused because they are not finite as float32.",
              "refused_rewards"),
        _lane("tandem_rewards_delivered", "counter", "Rewards that came in at another server process.", "delivered"),
        _lane("tandem_rewards_forwarded", "counter", "Rewards that were sent on to the server process that decided.",
              "forwarded"),
        _lane("tandem_rewards_repeated", "counter", "Rewards refused because the decision had one already.",
              "repeated"),
        _lane("tandem_memory_damaged", "counter", "Things in shared memory that made no sense and were skipped.",
              "damaged"),
    )),
    ("Experiences", (
        _lane("tandem_experiences_decided", "counter", "Decisions recorded. At any quiet moment the sum of"
              " tandem_experiences_settled_total and tandem_buffer_pending.", "decided"),
        Family("tandem_experiences_settled", "counter", "Recorded decisions by how they ended.",
               ", ".join(f"`lane.<k>.{outcome}`" for outcome in OUTCOMES), ("lane", "outcome"), _outcomes),
        _lane("tandem_experiences_untrained", "counter", "Blocked decisions counted and not stored"
              " (trainer.train_on_wait: false).", "untrained"),
        _lane("tandem_buffer_size", "gauge", "Completed experiences in the ring.",
              "`lane.<k>.head`, `lane.<k>.floor`", _size),
        _lane("tandem_buffer_capacity", "gauge", "Experiences that the ring holds.", "`capacity`",
              lambda control, lane: float(control.get("capacity"))),
        _lane("tandem_buffer_pending", "gauge", "Decisions that wait for their reward.", "pending"),
        _lane("tandem_buffer_pending_capacity", "gauge", "Decisions that may wait at once.", "`pending_capacity`",
              lambda control, lane: float(control.get("pending_capacity"))),
        _lane("tandem_buffer_added", "counter", "Completed experiences ever put into the ring.", "head"),
        _lane("tandem_buffer_overwritten", "counter", "Experiences that newer ones took the place of.",
              "`lane.<k>.head` above `capacity`", _overwritten),
    )),
    ("Processes", (
        Family("tandem_process_up", "gauge", "1 if the supervised process lives.", "`process.<name>.pid`",
               ("process",), _process_up),
        Family("tandem_process_state", "gauge", "1 for the state in which the supervisor sees the process.",
               "`process.<name>.state`", ("process", "state"), _process_state),
        Family("tandem_process_restarts", "counter", "Times the supervisor started the process again.",
               "`process.<name>.restarts`", ("process",), _restarts),
        Family("tandem_process_uptime_seconds", "gauge", "Seconds since the process was started.",
               "`process.<name>.started_ns`", ("process",), _process_uptime),
        Family("tandem_process_progress_age_seconds", "gauge", "Seconds since the last turn of its main loop.",
               "`trainer.progress_ns`, the newest `lane.<k>.progress_ns`, `supervisor.progress_ns`",
               ("process",), _progress_age),
        _lane("tandem_lane_up", "gauge", "1 if a server process owns the lane.", "`lane.<k>.owner`", _lane_up),
        _lane("tandem_lane_progress_age_seconds", "gauge", "Seconds since the last turn of the owner's main loop.",
              "`lane.<k>.progress_ns`", _lane_age),
    )),
)  # fmt: skip

FAMILIES = tuple(family for _, families in GROUPS for family in families)
