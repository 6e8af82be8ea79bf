"""The statistics that REST, the game's protocol and the dashboard show, JSON-ready, of one reading."""

from __future__ import annotations

from typing import Any

from ..memory.control import Control
from .process_reading import seconds_since
from .snapshot import Snapshot

_SUMMED = (
    "decided",
    "expired",
    "superseded",
    "dropped",
    "rejected",
    "lost",
    "untrained",
    "defaulted",
    "partial",
    "displaced",
    "unmatched",
    "late",
    "repeated",
    "refused_rewards",
    "forwarded",
    "delivered",
    "damaged",
    "errors",
)
_SINCE_THE_FIRST_STEP = ("average_loss", "mean_reward", "actual_reward", "entropy", "gradient_norm", "clipped_share")


def training_stats(control: Control) -> dict[str, Any]:
    """`GET /api/training/stats`: state of trainer, buffer and model (requirement 8.4).

    `average_loss` is null before the first step. When training is disabled, `enabled` is false and all counts that
    belong to the trainer are zero.
    """
    return stats_of(Snapshot(control), control.schema["config"])


def stats_of(snapshot: Snapshot, config: dict[str, Any]) -> dict[str, Any]:
    """As `training_stats`, of a reading that was taken already; `config` is the instance's configuration."""
    enabled = bool(config["trainer"]["enabled"])
    is_running = enabled and snapshot.trainer.is_progressing(config["supervisor"]["hang_timeout"])
    rate = snapshot.metrics["steps_per_second"] if is_running else 0.0
    return {
        "enabled": enabled,
        "is_running": is_running,
        "model_version": snapshot.version,
        "training": {
            "is_running": is_running,
            "model_version": snapshot.version,
            "steps_per_second": rate,
            "paused": snapshot.is_paused,
            "uptime_seconds": _uptime(snapshot, enabled),
            **_training(snapshot),
        },
        "buffer": buffer_of(snapshot),
        "model": {
            "model_version": snapshot.version,
            "steps_per_second": rate,
            "age_seconds": snapshot.model_age_s,
            "generation": snapshot.numbers["generation"],
            "rollbacks": snapshot.numbers["rollbacks"],
            "restored_version": snapshot.numbers["restored_version"],
        },
        "config": config,
    }


def _uptime(snapshot: Snapshot, enabled: bool) -> float:
    """Seconds that the trainer lives; 0 if it does not. In coupled training since the server began to train."""
    seconds = snapshot.trainer.uptime_s if enabled else seconds_since(snapshot.metrics["started_ns"])
    return seconds or 0.0


def _training(snapshot: Snapshot) -> dict[str, Any]:
    metrics, learned = snapshot.metrics, snapshot.learned
    return {
        "training_steps": metrics["training_steps"],
        "total_steps": metrics["total_steps"],
        "total_samples_trained": metrics["total_samples"],
        "total_errors": metrics["total_errors"],
        "average_batch_size": metrics["average_batch_size"],
        "training_time_ms": metrics["last_step_ms"],
        "average_step_time_ms": metrics["average_step_ms"],
        "skipped_steps": metrics["skipped_steps"],
        "idle_ticks": metrics["idle_ticks"],
        "bounded_ticks": metrics["bounded_ticks"],
        "logged": metrics["logged"],
        "unlogged": metrics["unlogged"],
        "log_failures": metrics["log_failures"],
        "overruns": metrics["overruns"],
        **{name: learned(name) for name in _SINCE_THE_FIRST_STEP},
        "policy_lag": {"mean": learned("lag_mean"), "max": learned("lag_max")},
        "freshness": {
            "count": sum(snapshot.freshness_counts),
            "p50_seconds": snapshot.freshness(0.5),
            "p99_seconds": snapshot.freshness(0.99),
        },
        "refused": metrics["refused"],
        "shortened": metrics["shortened"],
        "clipped_rewards": metrics["clipped_rewards"],
        "left_out": metrics["left_out"],
        "torn_rows": metrics["torn_rows"],
    }


def buffer_stats(control: Control) -> dict[str, Any]:
    """Counts over all lanes that were ever claimed, from shared memory only.

    `decided = completed + pending + expired + superseded + dropped + rejected + lost` and `total_added = size +
    overwritten + cleared` hold at any quiet moment.
    """
    return buffer_of(Snapshot(control))


def buffer_of(snapshot: Snapshot) -> dict[str, Any]:
    """As `buffer_stats`, of a reading that was taken already."""
    total, size, capacity = snapshot.total, snapshot.size, snapshot.total_capacity
    added, cleared = total("head"), sum(lane.cleared for lane in snapshot.lanes)
    return {
        "size": size,
        "buffer_size": size,
        "capacity": capacity,
        "utilization": size / capacity,
        "pending_count": total("pending"),
        "completed_count": size,
        "total_added": added,
        "total_sampled": snapshot.metrics["total_sampled"],
        "send_count": total("send"),
        "wait_count": total("wait"),
        "overwritten": added - size - cleared,
        "cleared": cleared,
        **{name: total(name) for name in _SUMMED},
        "completed": total("completed"),
        "lanes": max(1, len(snapshot.lanes)),
    }
