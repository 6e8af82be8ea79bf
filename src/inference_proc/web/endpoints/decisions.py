"""The data of the decision dashboard: what was decided, what the gate said, how training goes.

Computed from the rings, a snapshot of the instance and the gate's statistics when it is asked for. Names of action
heads and gate components come from the application: a head `spawn_chunk` becomes `chunk_frequency`, one with labels
`spawn_type` becomes `type_counts`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ....shared.application import ActionHead
from ....shared.experiences.records import SEND
from ....shared.experiences.sampler import ReplayReader
from ....shared.memory.processes import own_uptime
from ....shared.messages.handler import MessageHandler
from ....shared.telemetry.stats import training_stats
from ..access import Access
from ..json_response import JSON, problem

if TYPE_CHECKING:
    from ...engine import Engine

_RECORDS = 2000
"""Newest records looked at; enough for a heatmap, and read in about a millisecond."""
_LISTED = 10
_REWARDS = 50
_HISTORY = 100


class NnDashboard:
    """Endpoints on one engine and what its message handler shows."""

    def __init__(self, engine: Engine, handler: MessageHandler, access: Access) -> None:
        self._engine = engine
        self._handler = handler
        self._access = access
        self._reader = ReplayReader(engine.control, engine.instance.records)

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("/api/nn-dashboard", self.show),
            Route("/api/nn-dashboard/reset", self.reset, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Everything at once."""
        return JSON(self.collect())

    async def reset(self, request: Request) -> Response:
        """Start the dashboard's counts again; nothing that is learned is touched."""
        if not self._access.may_change(request.scope):
            return problem(403, "this needs the token, or a request from this machine")
        since = time.time()
        # In shared memory, so that it does not matter which of several workers is asked next.
        self._engine.control.set("command.shown_since", since)
        return JSON({"status": "success", "message": "the dashboard starts again", "timestamp": since})

    def collect(self) -> dict[str, Any]:
        """The dashboard's data, ready for JSON."""
        rows = self._reader.recent(_RECORDS)
        since = self._engine.control.get("command.shown_since")
        if since:
            rows = rows[rows["timestamp"] >= since]
        panels = self._handler.panels()
        return {
            "timestamp": time.time(),
            "uptime_seconds": own_uptime(),
            "nn_decisions": decisions(rows, self._engine.application.heads),
            "gate_behavior": self._gate(rows, panels.pop("decision_reasons", {})),
            "training": self._training(rows),
            "entropy": entropy(rows, self._engine.application.heads, self._entropy_history()),
            **panels,
        }

    def _gate(self, rows: NDArray[Any], reasons: dict[str, int]) -> dict[str, Any]:
        gate = self._engine.gate
        statistics = gate.statistics() if gate is not None else {}
        recent = statistics.get("metrics", {}).get("recent", {})
        names = self._engine.application.gate_components
        return {
            "pass_rate": float(np.mean(rows["decision"] == SEND)) if len(rows) else 0.0,
            "decision_reasons": reasons,
            "avg_components": {
                name: float(rows["components"][:, index].mean()) if len(rows) else 0.0
                for index, name in enumerate(names)
            },
            "reward_history": rows["expected_reward"][-_REWARDS:].tolist(),
            "wait_streak": recent.get("wait_streak", 0),
            "time_since_last_action": recent.get("time_since_last_action"),
        }

    def _training(self, rows: NDArray[Any]) -> dict[str, Any]:
        stats = training_stats(self._engine.control)
        steps = stats["training"]["total_steps"]
        actual = rows["actual_reward"][~np.isnan(rows["actual_reward"])]
        history = self._engine.control.history(limit=_HISTORY)
        return {
            "loss_history": [row["loss"] for row in history if row["event"] == 0],
            "simulation_rewards": rows["expected_reward"][-_REWARDS:].tolist(),
            "real_rewards": actual[-_REWARDS:].tolist(),
            "total_steps": steps,
            "avg_loss": stats["training"]["average_loss"],
            "avg_reward": float(actual[-_HISTORY:].mean()) if len(actual) else None,
            "model_version": stats["model_version"],
            "buffer_size": stats["buffer"]["size"],
            "stats": {"training_count": steps},
        }

    def _entropy_history(self) -> list[float]:
        return [row["entropy"] for row in self._engine.control.history(limit=_HISTORY) if row["event"] == 0]


def decisions(rows: NDArray[Any], heads: tuple[ActionHead, ...]) -> dict[str, Any]:
    """Counts of `rows` by choice; `rows` is a structured array of records, oldest first."""
    names = [head.name.rpartition("_")[2] for head in heads]
    sent = rows["decision"] == SEND
    result: dict[str, Any] = {}
    for index, (name, head) in enumerate(zip(names, heads, strict=True)):
        chosen = rows["action"][:, index]
        counts = np.bincount(chosen, minlength=head.size)
        if head.labels:
            result[f"{name}_counts"] = dict(zip(head.labels, counts.tolist(), strict=True))
        else:
            passed = np.bincount(chosen[sent], minlength=head.size)
            result[f"{name}_frequency"] = counts.tolist()
            result[f"{name}_sent"] = passed.tolist()
            result[f"{name}_skipped"] = (counts - passed).tolist()
    bins = np.clip((rows["confidence"] * 10).astype(np.int64), 0, 9)
    result["confidence_histogram"] = np.bincount(bins, minlength=10).tolist()
    result["recent_decisions"] = _recent(rows, names, heads)
    return result


def _recent(rows: NDArray[Any], names: list[str], heads: tuple[ActionHead, ...]) -> list[dict[str, Any]]:
    """The newest decisions, newest first."""
    listed = []
    drawn = "value" if "value" in (rows.dtype.names or ()) else "action"
    for row in rows[-_LISTED:][::-1]:
        choices = {
            name: head.labels[choice] if head.labels else choice
            for name, head, choice in zip(names, heads, row[drawn].tolist(), strict=True)
        }
        listed.append(
            {
                **choices,
                "confidence": float(row["confidence"]),
                "sent": bool(row["decision"] == SEND),
                "expected_reward": float(row["expected_reward"]),
                "actual_reward": float(row["actual_reward"]),
                "version": int(row["version"]),
                "timestamp": float(row["timestamp"]),
            }
        )
    return listed


def entropy(rows: NDArray[Any], heads: tuple[ActionHead, ...], history: list[float]) -> dict[str, Any]:
    """How spread the choices of the first head are, in nats, and what that says about the policy.

    `ratio` is entropy over its maximum, the logarithm of the number of choices or of decisions, whichever is smaller;
    `effective_actions` is exp(entropy). Healthy from 0.5, a warning from 0.25, below that collapsed.
    """
    size = heads[0].size
    counts = np.bincount(rows["action"][:, 0], minlength=size)
    total = int(counts.sum())
    shares = counts[counts > 0] / max(1, total)
    current = float(-(shares * np.log(shares)).sum()) if total else 0.0
    most = float(np.log(max(1, min(size, total))))
    ratio = current / most if most else 1.0
    return {
        "current": current,
        "max": most,
        "ratio": ratio,
        "effective_actions": float(np.exp(current)),
        "total_actions": size,
        "history": history,
        "health": "healthy" if ratio >= 0.5 else "warning" if ratio >= 0.25 else "collapsed",
    }
