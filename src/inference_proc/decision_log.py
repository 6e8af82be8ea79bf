"""Log lines of decisions: every Nth one, or each of them at level debug."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .decision import Decision

log = logging.getLogger(__name__)

_KEY_SHOWN = 64


class DecisionLog:
    """Logs one decision in `every` (0: none) at level info, and all of them if level debug is on."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._count = 0

    def write(self, results: Sequence[Decision | Exception]) -> None:
        """The lines of one batch; costs nothing worth mentioning if none is wanted."""
        is_debugging = log.isEnabledFor(logging.DEBUG)
        if not is_debugging and not self._every:
            return
        for decision in results:
            if not isinstance(decision, Decision):
                continue
            self._count += 1
            if self._every and self._count % self._every == 0:
                _write(logging.INFO, decision)
            elif is_debugging:
                _write(logging.DEBUG, decision)


def _write(level: int, decision: Decision) -> None:
    key, outcome = decision.key[:_KEY_SHOWN], "SEND" if decision.send else "WAIT"
    data = {
        "key": key,
        "outcome": outcome,
        "reason": decision.reason,
        "action": list(decision.action),
        "confidence": decision.confidence,
        "expected_reward": decision.expected_reward,
        "last_reward": decision.last_reward,
    }
    log.log(
        level,
        "version %d: key %r: %s (%s), action %s, expected reward %.3f",
        decision.version, key, outcome, decision.reason, decision.action, decision.expected_reward,
        extra={"data": data},
    )  # fmt: skip
