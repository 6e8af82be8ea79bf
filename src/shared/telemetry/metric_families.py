"""Every metric of `GET /metrics`: name, meaning, and where in shared memory its values come from.

Plain data and standard library only; prometheus.py turns it into what Prometheus reads, and docs/metrics.md is printed
from it (`python -m tandem.reference.metrics`). Values are of one reading of the control
segment (snapshot.py), so every server process of an instance answers the same, and as every other surface.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..memory import layout
from ..memory.durations import DECISION, FRESHNESS, Scale
from .lane_reading import LaneReading
from .learning_reasons import NAMES
from .process_reading import ProcessReading
from .snapshot import Snapshot

Sample = tuple[tuple[str, ...], float]
"""Values of the labels, and the value."""

OUTCOMES = ("completed", "expired", "superseded", "dropped", "rejected", "lost")


@dataclass(frozen=True)
class Family:
    """One metric: `kind` is counter, gauge, histogram or info; a counter's samples get the suffix `_total`.

    `read` gives the samples; of a histogram the value is (scale, counts of all buckets, sum in seconds).
    """

    name: str
    kind: str
    help: str
    source: str
    labels: tuple[str, ...]
    read: Callable[[Snapshot], Iterable[tuple[tuple[str, ...], Any]]]

    @property
    def shown(self) -> str:
        """The name as Prometheus stores it."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def _or_nan(value: float | None) -> float:
    """NaN in place of None (unknown)."""
    return math.nan if value is None else value


def _value(name: str, kind: str, help: str, source: str, read: Callable[[Snapshot], float]) -> Family:
    """A metric without labels."""
    return Family(name, kind, help, f"`{source}`", (), lambda snapshot: [((), read(snapshot))])


def _number(name: str, kind: str, help: str, field: str) -> Family:
    return _value(name, kind, help, field, lambda snapshot: snapshot.numbers[field])


def _metric(name: str, kind: str, help: str, metric: str, scale: float = 1.0) -> Family:
    return _value(name, kind, help, f"metrics.{metric}", lambda snapshot: snapshot.metrics[metric] * scale)


def _learned(name: str, help: str, metric: str, scale: float = 1.0) -> Family:
    """A gauge that means nothing before the trainer's first step."""
    return _value(name, "gauge", help, f"metrics.{metric}", lambda snapshot: _or_nan(snapshot.learned(metric)) * scale)


def _guard(name: str, help: str, metric: str) -> Family:
    """A gauge of the reward guard, which says itself what it does not know; it means nothing before the first step."""

    def read(snapshot: Snapshot) -> float:
        return float(snapshot.metrics[metric]) if snapshot.metrics["total_steps"] else math.nan

    return _value(name, "gauge", help, f"metrics.{metric}", read)


def _lane(
    name: str, kind: str, help: str, field: str, read_lane: Callable[[LaneReading], float] | None = None
) -> Family:
    def read(snapshot: Snapshot) -> Iterator[Sample]:
        for lane in snapshot.lanes:
            yield (str(lane.index),), lane.values[field] if read_lane is None else read_lane(lane)

    source = field if "`" in field else f"`lane.<k>.{field}`"
    return Family(name, kind, help, source, ("lane",), read)


def _information(snapshot: Snapshot) -> Iterator[Sample]:
    yield (snapshot.instance, str(snapshot.schema["application"]), str(layout.LAYOUT_VERSION)), 1.0


def _trainer_enabled(snapshot: Snapshot) -> Iterator[Sample]:
    yield (), float(snapshot.schema["config"]["trainer"]["enabled"])


def _problems(snapshot: Snapshot) -> Iterator[Sample]:
    for name in NAMES:
        yield (name,), float(name in snapshot.reasons)


def _lag(snapshot: Snapshot) -> Iterator[Sample]:
    for statistic in ("mean", "max"):
        yield (statistic,), _or_nan(snapshot.learned(f"lag_{statistic}"))


def _decisions(snapshot: Snapshot) -> Iterator[Sample]:
    for lane in snapshot.lanes:
        for gate in ("send", "wait"):
            yield (str(lane.index), gate), lane.values[gate]


def _outcomes(snapshot: Snapshot) -> Iterator[Sample]:
    for lane in snapshot.lanes:
        for outcome in OUTCOMES:
            yield (str(lane.index), outcome), lane.values[outcome]


def _durations(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], tuple[Scale, list[int], float]]]:
    for lane in snapshot.lanes:
        yield (str(lane.index),), (DECISION, lane.latency_counts, lane.values["latency_sum_ns"] * 1e-9)


def _freshness(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], tuple[Scale, list[int], float]]]:
    for lane in snapshot.lanes:
        yield (str(lane.index),), (FRESHNESS, lane.freshness_counts, lane.values["freshness_sum_ns"] * 1e-9)


def _children(snapshot: Snapshot) -> tuple[ProcessReading, ...]:
    return snapshot.trainer, *snapshot.workers


def _processes(snapshot: Snapshot) -> tuple[ProcessReading, ...]:
    return *_children(snapshot), snapshot.supervisor


def _process(
    name: str, help: str, source: str, read: Callable[[ProcessReading], float], kind: str = "gauge",
    processes: Callable[[Snapshot], tuple[ProcessReading, ...]] = _processes,
) -> Family:  # fmt: skip
    def read_all(snapshot: Snapshot) -> Iterator[Sample]:
        for process in processes(snapshot):
            yield (process.name,), read(process)

    return Family(name, kind, help, source, ("process",), read_all)


def _process_state(snapshot: Snapshot) -> Iterator[Sample]:
    for process in _children(snapshot):
        for name in layout.STATES:
            yield (process.name, name), float(name == process.state)


GROUPS: tuple[tuple[str, tuple[Family, ...]], ...] = (
    ("The instance and its model", (
        Family("tandem_instance", "info", "What this instance is; always 1.", "the schema",
               ("name", "application", "layout_version"), _information),
        _value("tandem_model_version", "gauge", "Version of the newest published weights.", "version",
               lambda snapshot: snapshot.version),
        _value("tandem_model_version_age_seconds", "gauge", "Seconds since that version was published.",
               "published_ns", lambda snapshot: _or_nan(snapshot.model_age_s)),
        _number("tandem_model_published_timestamp_seconds", "gauge", "When it was published, seconds since 1970.",
               "published_at"),
        _number("tandem_model_rollbacks", "counter", "Rollbacks, asked for or made by the reward guard.", "rollbacks"),
        _metric("tandem_model_guard_rollbacks", "counter", "Rollbacks that the reward guard made by itself.",
               "guard_rollbacks"),
        _number("tandem_model_resets", "counter", "Resets to fresh weights.", "generation"),
        _number("tandem_model_restored_version", "gauge", "Version that the newest rollback restored; 0: none yet.",
               "restored_version"),
        _number("tandem_model_checkpoints_unsaved", "gauge", "Checkpoints in a row that could not be saved; 0: the last"
               " one was.", "trainer.unsaved"),
    )),
    ("Training", (
        Family("tandem_trainer_enabled", "gauge", "1 if a trainer process learns, 0 if training is coupled to the"
               " server.", "the schema", (), _trainer_enabled),
        _value("tandem_trainer_paused", "gauge", "1 while an operator has paused training.", "command.pause",
               lambda snapshot: float(snapshot.is_paused)),
        _metric("tandem_training_steps", "counter", "Successful training steps.", "total_steps"),
        _metric("tandem_training_experiences", "counter", "Experiences trained on; one counts each time.",
               "total_samples"),
        _metric("tandem_training_sampled", "counter", "Rows sampled by this trainer process, trained on or not.",
               "total_sampled"),
        _metric("tandem_training_torn_rows", "counter", "Rows given up because they were overwritten while read.",
               "torn_rows"),
        _metric("tandem_training_errors", "counter", "Training steps that raised.", "total_errors"),
        _metric("tandem_training_skipped", "counter", "Ticks with fewer experiences than trainer.min_batch_size.",
               "skipped_steps"),
        _metric("tandem_training_idle_ticks", "counter", "Ticks at which training rested, as nothing had been new for a"
                " while.", "idle_ticks"),
        _metric("tandem_decision_log_records", "counter", "Decisions written to the decision log.", "logged"),
        _metric("tandem_decision_log_lost", "counter", "Decisions that were overwritten before they could be logged.",
                "unlogged"),
        _metric("tandem_decision_log_failures", "counter", "Failures to write the decision log.", "log_failures"),
        _metric("tandem_training_bounded_ticks", "counter", "Ticks whose budget (trainer.tick_budget) did not allow the"
                " steps that the data asked for.", "bounded_ticks"),
        _metric("tandem_training_overruns", "counter", "Ticks missed because a step took longer than the interval.",
               "overruns"),
        _metric("tandem_training_refused", "counter", "Candidates that the publish guard refused.", "refused"),
        Family("tandem_learning_problem", "gauge", "1 while this keeps the instance from learning, as `/health` says"
               " in words.", "`trainer.*`, see shared/telemetry/learning_reasons.py", ("problem",), _problems),
        _number("tandem_training_refused_in_row", "gauge", "Candidates refused since the last successful step.",
               "trainer.refused_in_row"),
        _number("tandem_training_errors_in_row", "gauge", "Steps that raised since the last successful one.",
               "trainer.failed_in_row"),
        _number("tandem_training_still_in_row", "gauge", "Successful steps in a row that did not move the parameters.",
               "trainer.still_in_row"),
        _number("tandem_learning_choices_abandoned", "gauge", "Choices that were taken and are never taken any more.",
               "trainer.abandoned"),
        _metric("tandem_training_shortened", "counter", "Steps that moved too far, as the refused one before, and were"
               " shortened.", "shortened"),
        _metric("tandem_training_clipped_rewards", "counter", "Experiences whose reward lay outside the declared or"
               " learned range.", "clipped_rewards"),
        _metric("tandem_training_left_out", "counter", "Experiences not trained on: absurd numbers, or a step with them"
               " fails.", "left_out"),
        _metric("tandem_training_steps_per_second", "gauge", "Steps per second over the last 60 s.",
               "steps_per_second"),
        _learned("tandem_training_loss", "Mean loss of the last 100 steps.", "average_loss"),
        _learned("tandem_training_reward", "Mean training reward of the last 100 steps.", "mean_reward"),
        _learned("tandem_training_actual_reward", "Mean actual reward of the executed decisions in the last 100 steps.",
                 "actual_reward"),
        _learned("tandem_training_entropy_nats", "Mean entropy of the policy in the last step.", "entropy"),
        _learned("tandem_training_gradient_norm", "Norm of the gradient before clipping, last step.",
                 "gradient_norm"),
        _learned("tandem_training_clipped_ratio", "Share of importance weights that were clipped, last step.",
                 "clipped_share"),
        Family("tandem_training_lag_versions", "gauge", "Versions between decision and training, last step.",
               "`metrics.lag_mean`, `metrics.lag_max`", ("statistic",), _lag),
        _learned("tandem_training_batch_size", "Mean batch size of the last 100 steps.", "average_batch_size"),
        _learned("tandem_training_step_seconds", "Mean duration of the last 100 steps.", "average_step_ms",
                 1e-3),
        _learned("tandem_training_last_step_seconds", "Duration of the last step.", "last_step_ms", 1e-3),
        _guard("tandem_live_pass_ratio", "Share of decisions that the gate let through, in the reward guard's window.",
               "pass_rate"),
        _guard("tandem_live_reward", "Mean actual reward of executed decisions in that window.",
               "live_reward"),
        _guard("tandem_live_score", "Mean actual reward in that window, a blocked decision counting 0.",
               "live_score"),
        _guard("tandem_live_best_score", "Score of the best version saved, to which the reward guard compares.",
               "live_best"),
        _metric("tandem_live_best_version", "gauge", "That version; 0: none yet.", "live_best_version"),
    )),
    ("Decisions", (
        Family("tandem_decisions", "counter", "Decisions by what the gate said.", "`lane.<k>.send`, `lane.<k>.wait`",
               ("lane", "gate"), _decisions),
        Family("tandem_decision_duration_seconds", "histogram", "Time from observation to decision.",
               "`lane.<k>.latency_<i>`, `lane.<k>.latency_sum_ns`", ("lane",), _durations),
        Family("tandem_freshness_seconds", "histogram", "Time from a reward's arrival to the first decision by weights"
               " that were trained after it.", "`lane.<k>.freshness_<i>`, `lane.<k>.freshness_sum_ns`", ("lane",),
               _freshness),
        _lane("tandem_decision_errors", "counter", "Failures on the decision path that were handled.", "errors"),
        _lane("tandem_decision_version", "gauge", "Version that made the lane's newest decision.", "version"),
        _lane("tandem_decision_lock_timeouts", "counter", "Calls that gave up on the process-local lock.",
              "lock_timeouts"),
        _lane("tandem_weights_refreshes", "counter", "Times new weights were taken.", "refreshes"),
        _lane("tandem_weights_refresh_misses", "counter", "Decisions that kept their weights because the slot was being"
              " written.", "refresh_misses"),
        _lane("tandem_rewards", "counter", "Decisions that were completed with an actual reward or the default.",
              "reward_count"),
        _lane("tandem_rewards_accumulated", "gauge", "Sum of the actual rewards; falls with a negative one.",
              "reward_sum"),
        _lane("tandem_rewards_unmatched", "counter", "Rewards that found no pending decision.", "unmatched"),
        _lane("tandem_rewards_late", "counter", "Rewards refused because their decision had been given up by then.",
              "late"),
        _lane("tandem_rewards_partial", "counter", "Rewards that were not the last of their decision.", "partial"),
        _lane("tandem_rewards_defaulted", "counter", "Decisions that earned the default reward, as none came in time.",
              "defaulted"),
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
              "`lane.<k>.head`, `lane.<k>.floor`",
              lambda lane: float(lane.size)),
        _lane("tandem_buffer_capacity", "gauge", "Experiences that the ring holds.", "`capacity`",
              lambda lane: float(lane.capacity)),
        _lane("tandem_buffer_pending", "gauge", "Decisions that wait for their reward.", "pending"),
        _lane("tandem_buffer_pending_capacity", "gauge", "Decisions that may wait at once.", "`pending_capacity`",
              lambda lane: float(lane.pending_capacity)),
        _lane("tandem_buffer_displaced", "counter", "Decisions that a full pending table had to give up for a newer"
              " one.", "displaced"),
        _lane("tandem_buffer_added", "counter", "Completed experiences ever put into the ring.", "head"),
        _lane("tandem_buffer_overwritten", "counter", "Experiences that newer ones took the place of.",
              "`lane.<k>.head` above `capacity`", lambda lane: float(lane.overwritten)),
    )),
    ("Processes", (
        _process("tandem_process_up", "1 if the process lives, whoever started it.",
                 "`process.<name>.pid`, or else `trainer.ready`, `lane.<k>.owner`",
                 lambda process: float(process.is_up)),
        Family("tandem_process_state", "gauge", "1 for the state of the process, the same as `ctl status` shows.",
               "`process.<name>.state`, or else as tandem_process_up", ("process", "state"), _process_state),
        _process("tandem_process_restarts", "Times the supervisor started the process again.",
                 "`process.<name>.restarts`", lambda process: process.restarts, kind="counter",
                 processes=_children),
        _process("tandem_process_uptime_seconds", "Seconds since the process started.",
                 "`process.<name>.start_ticks`, or else `lane.<k>.owner_ticks`",
                 lambda process: _or_nan(process.uptime_s), processes=_children),
        _process("tandem_process_progress_age_seconds", "Seconds since the last turn of its main loop.",
                 "`trainer.progress_ns`, `lane.<k>.progress_ns` of the server's lanes, `supervisor.progress_ns`",
                 lambda process: _or_nan(process.turned_s)),
        _lane("tandem_lane_up", "gauge", "1 if a server process owns the lane.", "`lane.<k>.owner`",
              lambda lane: float(lane.owner.pid is not None)),
        _lane("tandem_lane_progress_age_seconds", "gauge", "Seconds since the last turn of the owner's main loop.",
              "`lane.<k>.progress_ns`", lambda lane: _or_nan(lane.owner.turned_s)),
    )),
)  # fmt: skip

FAMILIES = tuple(family for _, families in GROUPS for family in families)
