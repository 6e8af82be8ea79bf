"""What a host says of decisions that were made: what they earned, that they failed, that a key will not come back."""

from __future__ import annotations

import logging
from typing import Any

from ..shared.experiences.lane import Lane
from ..shared.experiences.records import PENDING_KEY_BYTES, encode_key
from ..shared.ids.decision_id import DecisionId
from ..shared.ids.rewards_by_id import Outcome
from ..shared.rate_limit import RateLimit
from ..shared.values import as_bool, as_number, as_text, fits_float32, id_hash, shown
from .application_hooks import ApplicationHooks
from .recorder import Recorder
from .turn import as_action

log = logging.getLogger(__name__)


class Feedback:
    """The part of an engine that takes rewards. The engine makes what it stands on."""

    lane: Lane
    _hooks: ApplicationHooks
    _lock: Any
    _recorder: Recorder
    _warn: RateLimit

    def reward_decision(
        self, decision_id: str, value: float, final: bool = True, reward_id: str | None = None
    ) -> Outcome:
        """A reward of the decision with this `Decision.id` came in, whichever process decided and whenever.

        As `reward`, and what became of it is said: a final reward counts once, a partial one (`final=False`) once for
        each `reward_id`. Raises ValueError as `reward`.
        """
        name, number = DecisionId.parse(as_text("decision_id", decision_id)), as_number("reward", value)
        is_final = as_bool("final", final)
        hashed = 0 if reward_id is None else id_hash(as_text("reward_id", reward_id))
        with self._lock:
            if name is None:
                self.lane.count("unmatched")
                return Outcome.UNKNOWN
            return self._recorder.reward_by_id(name, number, is_final, hashed)

    def waiting_id(self, key: str) -> str | None:
        """The id of the decision that waits under the key, wherever it was made; None if none does."""
        encoded = encode_key(as_text("key", key), PENDING_KEY_BYTES)
        with self._lock:
            entry = self.lane.pending.entry(encoded)
            if entry is None:
                entry = self.lane.forwarded.find(encoded)
            return None if entry is None else str(DecisionId(self.lane.control.get("series"), int(entry["ticket"])))

    def reward(self, key: str, value: float, final: bool = True) -> bool:
        """A reward of the key's pending decision came in: any real number of Python, numpy or torch.

        With `final=False` more may follow (a click, then a purchase): the decision goes on waiting, and earns all of
        them by `inference.reward_aggregation` once the last one comes or `pending_timeout` is over.

        False (counted) if none is pending, or if it is not finite as float32. Raises ValueError for a value that is no
        number, a key that is no text and a `final` that is no bool.
        """
        key, number, is_final = as_text("key", key), as_number("reward", value), as_bool("final", final)
        encoded = encode_key(key, PENDING_KEY_BYTES)
        with self._lock:
            if fits_float32(number):
                return self._recorder.reward(encoded, number, is_final)
            self.lane.count("refused_rewards")
        self._warn.warning(
            log, "key %s: a reward of %s was refused; it must be finite as float32", *map(shown, (key, value))
        )
        return False

    def failed(self, key: str, action: tuple[int, ...]) -> bool:
        """The client could not execute the action that was sent last under `key`.

        Its pending decision is completed with the application's failed reward, the gate's bookkeeping undone, and
        the next observation rewards nothing. False if the key's last decision was not this action. Raises ValueError
        for a key that is no text and an action that is not whole numbers.
        """
        key, choices = as_text("key", key), as_action(action, bool(self.lane.records.values))
        with self._lock:
            remembered = self._recorder.known(key)
            if remembered is None or not remembered.executed or remembered.action != choices:
                self.lane.count("unmatched")
                return False
            remembered.executed = False
            self._hooks.failed(key, choices)
            return self._recorder.reward(remembered.encoded, self._hooks.failed_reward)

    def forget(self, key: str) -> None:
        """The key will not come back: its pending decision waits no longer, and earns what it would at its timeout.

        Raises ValueError for a key that is no text.
        """
        key = as_text("key", key)
        with self._lock:
            self._recorder.forget(key)
            self._hooks.forget(key)
