"""The training statistics that every surface shows, computed from shared memory only."""

from __future__ import annotations

import math
import time
from typing import Any

from ..experiences.replay import buffer_stats
from ..memory import layout
from ..memory.control import Control


def seconds_since(monotonic_ns: int) -> float | None:
    """Age of a moment on the monotonic clock in seconds; None for 0 (never)."""
    return max(0.0, (time.monotonic_ns() - monotonic_ns) / 1e9) if monotonic_ns else None


def training_stats(control: Control) -> dict[str, Any]:
    """`GET /api/training/stats`: state of trainer, buffer and model, JSON-ready (requirement 8.4).

    `average_loss` is null before the first step. When training is disabled, `enabled` is false and all counts that
    belong to the trainer are zero.
    """
    config = control.schema["config"]
    metrics = {name: control.get(name) for name, *_ in _metric_fields()}
    steps = metrics["metrics.training_steps"]
    version = control.get("version")
    age = seconds_since(control.get("trainer.progress_ns"))
    enabled = bool(config["trainer"]["enabled"])
    running = enabled and age is not None and age < config["supervisor"]["hang_timeout"]
    uptime = seconds_since(metrics["metrics.started_ns"]) or 0.0

    def optional(name: str) -> float | None:
        value = metrics[name]
        return value if steps and math.isfinite(value) else None

    return {
        "enabled": enabled,
        "is_running": running,
        "model_version": version,
        "training": {
            "is_running": running,
            "model_version": version,
            "training_steps": steps,
            "total_steps": metrics["metrics.total_steps"],
            "total_samples_trained": metrics["metrics.total_samples"],
            "total_errors": metrics["metrics.total_errors"],
            "steps_per_second": metrics["metrics.steps_per_second"] if running else 0.0,
            "average_loss": optional("metrics.average_loss"),
            "average_batch_size": metrics["metrics.average_batch_size"],
            "training_time_ms": metrics["metrics.last_step_ms"],
            "average_step_time_ms": metrics["metrics.average_step_ms"],
            "skipped_steps": metrics["metrics.skipped_steps"],
            "overruns": metrics["metrics.overruns"],
            "uptime_seconds": uptime,
            "paused": bool(control.get("command.pause")),
            "mean_reward": optional("metrics.mean_reward"),
            "actual_reward": optional("metrics.actual_reward"),
            "entropy": optional("metrics.entropy"),
            "gradient_norm": optional("metrics.gradient_norm"),
            "clipped_share": optional("metrics.clipped_share"),
            "policy_lag": {"mean": optional("metrics.lag_mean"), "max": optional("metrics.lag_max")},
            "refused": metrics["metrics.refused"],
            "shortened": metrics["metrics.shortened"],
            "clipped_rewards": metrics["metrics.clipped_rewards"],
            "left_out": metrics["metrics.left_out"],
            "torn_rows": metrics["metrics.torn_rows"],
        },
        "buffer": buffer_stats(control),
        "model": {
            "model_version": version,
            "steps_per_second": metrics["metrics.steps_per_second"] if running else 0.0,
            "age_seconds": seconds_since(control.get("published_ns")),
            "generation": control.get("generation"),
            "rollbacks": control.get("rollbacks"),
            "restored_version": control.get("restored_version"),
        },
        "config": config,
    }


def _metric_fields() -> list[layout.Field]:
    return next(fields for title, _, _, fields in layout.GROUPS if title == "trainer")
