"""The engine: decides, records, and takes new weights the moment they are published.

The same object serves a script, an ASGI application or a threaded server. A decision never waits for the trainer
and does not notice if it is gone.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.application import Verdict
from ..shared.experience import WAIT_FLOOR
from ..shared.instance import Instance
from ..shared.lane import Lane
from ..shared.rate_limit import RateLimit
from ..shared.records import KEY_BYTES, PENDING_KEY_BYTES, SEND, WAIT, encode_key, is_finite_record
from ..shared.replay import buffer_stats
from ..shared.sampler import WEAK_MEMORY
from ..shared.stats import seconds_since
from ..shared.weights import Subscriber
from .coupled import CoupledTrainer
from .policy import Draw, Policy

log = logging.getLogger(__name__)

_OPEN = Verdict(send=True, reason="no_gate", expected_reward=0.0)
_EXPIRY_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine decided for one observation.

    `probability` is that of the whole action, `head_probabilities` of each choice, `confidence` of the first;
    `expected_reward` may be -inf. `version` is the model version that decided. `last_reward` is the actual reward of
    the key's previous decision (None for the first), `recent_rewards` the last ten of the key, oldest first.
    """

    key: str
    action: tuple[int, ...]
    probability: float
    head_probabilities: tuple[float, ...]
    confidence: float
    send: bool
    reason: str
    expected_reward: float
    components: tuple[float, ...]
    version: int
    timestamp: float
    last_reward: float | None = None
    last_components: dict[str, float] | None = None
    recent_rewards: tuple[float, ...] = ()


@dataclass(slots=True)
class _Remembered:
    """What is kept of a key between two observations."""

    encoded: bytes
    rewards: deque[float]
    context: NDArray[Any] | None = None
    action: tuple[int, ...] = ()
    executed: bool = False


class Engine:
    """The inference side of one instance, in one process. Safe to call from several threads.

    `decide` raises only if the observation cannot be encoded or the policy itself fails; any other failure
    degrades the decision, is counted in the lane's `errors` and logged at a limited rate.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.control = instance.control
        self.config = instance.config
        self.application = instance.application
        self.lane = Lane.claim(self.control, instance.records, self.config.trainer.lock_timeout)
        self._flat = instance.build_model()
        self._slots = instance.open_slots(self._flat.layout)
        self._subscriber = Subscriber(self._slots, verify=WEAK_MEMORY)
        settings = self.config.inference
        self.policy = Policy(
            self._flat.model,
            settings.temperature,
            settings.exploration_floor,
            None if settings.seed < 0 else settings.seed,
        )
        self.gate = self.application.build_gate() if self.application.build_gate else None
        self.reward_calculator = self.application.build_reward() if self.application.build_reward else None
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._adopted = self._adopt_pending()
        self._next_expiry = 0.0
        self._warn = RateLimit(10.0)
        self._refresh()
        self._coupled = None if self.config.trainer.enabled else CoupledTrainer(instance, self._flat, self._slots)

    @classmethod
    def attach(cls, instance: str = "default", timeout: float | None = None) -> Engine:
        """Attach to a running instance and claim a writer lane.

        Waits up to `timeout` seconds (default 30) for the instance to appear. Raises SegmentMissing, SegmentInvalid,
        LayoutMismatch, ApplicationError, or LaneBusy if every lane has a living owner.
        """
        return cls(Instance(instance, timeout=30.0 if timeout is None else timeout))

    @property
    def enabled(self) -> bool:
        """True if a trainer process learns; False if training is coupled to the observations."""
        return self._coupled is None

    @property
    def model_version(self) -> int:
        """The newest published version."""
        return int(self.control.get("version"))

    @property
    def trainer_alive(self) -> bool:
        """True if the trainer's loop made progress within `supervisor.hang_timeout`."""
        age = seconds_since(self.control.get("trainer.progress_ns"))
        return self.enabled and age is not None and age < self.config.supervisor.hang_timeout

    def get_model_for_inference(self) -> torch.nn.Module:
        """The model with the newest weights. It is the engine's own: a later decision may give it newer ones."""
        with self._lock:
            self._refresh()
        return self._flat.model

    def decide(self, key: str, observation: Any, territory_id: str = "") -> Decision:
        """Decide for one observation of `key`, and record the decision.

        If the application computes rewards, the key's previous decision is completed by this observation first.
        `territory_id` is what the experience will carry (default: the key).
        """
        started = time.perf_counter_ns()
        with self._lock:
            remembered = self._recall(key)
            last_components = self._complete(remembered, observation)
            self._refresh()
            version = self._subscriber.version
            features = self.application.encode(observation)
            draw = self.policy.act(features)
            verdict = self._judge(observation, draw.action, key, version)
            timestamp = time.time()
            try:
                self._record(remembered, observation, features, draw, verdict, version, timestamp, territory_id or key)
            except Exception:
                self._survived("a decision could not be recorded")
            if verdict.send and self.gate is not None:
                self._guarded("the gate's bookkeeping failed", self.gate.sent, key, draw.action)
            self.lane.count_decision(SEND if verdict.send else WAIT, version, time.perf_counter_ns() - started)
            rewards = tuple(remembered.rewards)
        return Decision(
            key=key,
            action=draw.action,
            probability=draw.probability,
            head_probabilities=draw.head_probabilities,
            confidence=draw.head_probabilities[0],
            send=verdict.send,
            reason=verdict.reason,
            expected_reward=verdict.expected_reward,
            components=verdict.components,
            version=version,
            timestamp=timestamp,
            last_reward=rewards[-1] if last_components is not None else None,
            last_components=last_components,
            recent_rewards=rewards,
        )

    def reward(self, key: str, value: float) -> bool:
        """The reward of the key's pending decision came in. False (counted) if none is pending or it is not finite."""
        if not math.isfinite(value):
            self._warn.warning(log, "key %r: a reward of %r was rejected; it must be finite", key, value)
            return False
        with self._lock:
            return self._complete_with(encode_key(key, PENDING_KEY_BYTES), value)

    def failed(self, key: str, action: tuple[int, ...]) -> bool:
        """The client could not execute the action that was sent last under `key`.

        Its pending decision is completed with the application's failed reward, the gate's bookkeeping undone, and
        the next observation rewards nothing. False if the key's last decision was not this action.
        """
        with self._lock:
            remembered = self._remembered.get(key)
            if remembered is None or not remembered.executed or remembered.action != tuple(action):
                self.lane.count("unmatched")
                return False
            remembered.executed = False
            if self.gate is not None:
                self._guarded("the gate's bookkeeping failed", self.gate.failed, key, remembered.action)
            return self._complete_with(remembered.encoded, self.application.failed_reward)

    def forget(self, key: str) -> None:
        """The key will not come back: its pending decision is dropped."""
        with self._lock:
            self._drop(key)

    def reset(self) -> int:
        """New random weights and empty buffers, by way of the trainer; the version number never goes back.

        Returns the published version, which the trainer raises within moments.
        """
        with self._lock, self.lane.hold() as held:
            if held:
                self.lane.clear()
            self._remembered.clear()
            if self.gate is not None:
                self._guarded("the gate could not be cleared", self.gate.clear)
        if self._coupled is not None:
            with self._lock:
                self._coupled.reset()
                self._refresh()
        else:
            self.control.command("reset")
        return self.model_version

    def get_stats(self) -> dict[str, Any]:
        """Counts over all lanes (see `replay.buffer_stats`) and under `lane` those of this process."""
        return {**buffer_stats(self.control), "lane": {"index": self.lane.index, **self.control.lane(self.lane.index)}}

    def beat(self) -> None:
        """Say that the server's main loop makes progress, and drop what has waited too long. Call it twice a second."""
        self.lane.beat()
        with self._lock:
            self._expire(time.time())

    def mark_ready(self) -> None:
        """Say that the server answers requests."""
        self.control.set(f"lane.{self.lane.index}.ready", os.getpid())

    def close(self) -> None:
        """Give the lane back. Pending decisions stay for its next owner. Idempotent."""
        self.lane.release()

    def _recall(self, key: str) -> _Remembered:
        remembered = self._remembered.get(key)
        if remembered is None:
            encoded = encode_key(key, PENDING_KEY_BYTES)
            remembered = self._adopted.pop(encoded, None) or _Remembered(encoded, deque(maxlen=10))
            if len(self._remembered) >= self.config.inference.max_keys:
                self._drop(next(iter(self._remembered)))
            self._remembered[key] = remembered
        else:
            self._remembered.move_to_end(key)
        return remembered

    def _drop(self, key: str) -> None:
        remembered = self._remembered.pop(key, None)
        encoded = remembered.encoded if remembered else encode_key(key, PENDING_KEY_BYTES)
        with self.lane.hold() as held:
            if held:
                self.lane.drop(encoded)
        if self.gate is not None:
            self._guarded("the gate could not forget a key", self.gate.forget, key)

    def _adopt_pending(self) -> dict[bytes, _Remembered]:
        """What the lane's previous owner left pending, ready to be completed by the next observation of its key."""
        adopted = {}
        dtype = self.application.context_dtype
        for encoded in self.lane.pending.keys():  # noqa: SIM118 - keys() is a list of its own
            entry = self.lane.pending.entry(encoded)
            if entry is None:
                continue
            context = None if dtype is None else np.frombuffer(entry["context"].tobytes(), dtype, 1)[0]
            action = tuple(int(choice) for choice in entry["action"])
            adopted[encoded] = _Remembered(encoded, deque(maxlen=10), context, action, True)
        return adopted

    def _complete(self, remembered: _Remembered, observation: Any) -> dict[str, float] | None:
        """Reward the key's previous decision by this observation; its components, or None if there was none."""
        calculator = self.reward_calculator
        if calculator is None or remembered.context is None:
            return None
        context, remembered.context = remembered.context, None
        try:
            value, components = calculator.reward(context, remembered.action, remembered.executed, observation)
        except Exception:
            self._survived("the reward of a decision could not be computed")
            return None
        remembered.rewards.append(value)
        if remembered.executed and self._complete_with(remembered.encoded, value) and self.gate is not None:
            self._guarded("the gate's bookkeeping failed", self.gate.rewarded, value)
        return components

    def _complete_with(self, encoded: bytes, value: float) -> bool:
        with self.lane.hold() as held:
            row = self.lane.complete(encoded, value) if held else None
        if row is not None and self._coupled is not None:
            self._train_coupled(row)
        return row is not None

    def _judge(self, observation: Any, action: tuple[int, ...], key: str, version: int) -> Verdict:
        if self.gate is None:
            return _OPEN
        try:
            return self.gate.evaluate(observation, action, key, version)
        except Exception:
            self._survived("the gate failed; the action is held back")
            return Verdict(False, "gate_error", -math.inf, (0.0,) * self.instance.records.components)

    def _record(
        self,
        remembered: _Remembered,
        observation: Any,
        features: NDArray[np.float32],
        draw: Draw,
        verdict: Verdict,
        version: int,
        timestamp: float,
        territory_id: str,
    ) -> None:
        lane = self.lane
        expected = verdict.expected_reward if verdict.expected_reward != -math.inf else WAIT_FLOOR
        components = verdict.components or (0.0,) * self.instance.records.components
        calculator = self.reward_calculator
        remembered.context = None if calculator is None else calculator.context(observation)
        remembered.action = draw.action
        remembered.executed = verdict.send
        with lane.hold() as held:
            if not held:
                return
            ticket = lane.next_ticket()
            if not is_finite_record(features, expected, *components):
                lane.count("rejected")
                self._warn.warning(log, "version %d: a decision with a value that is not finite is not stored", version)
                return
            payload = lane.records.pack(
                ticket,
                version,
                timestamp,
                expected,
                math.nan,
                draw.probability,
                draw.head_probabilities[0],
                SEND if verdict.send else WAIT,
                draw.action,
                features,
                components,
                encode_key(territory_id, KEY_BYTES),
            )
            if verdict.send:
                context = b"" if remembered.context is None else remembered.context.tobytes()
                lane.defer(ticket, payload, remembered.encoded, context)
            elif self.config.trainer.train_on_wait:
                number = lane.append(payload)
                if self._coupled is not None and verdict.expected_reward != -math.inf:
                    self._train_coupled(lane.record(number))
            else:
                lane.count("untrained")
                lane.count("completed")

    def _train_coupled(self, row: np.void) -> None:
        assert self._coupled is not None
        self._guarded("a coupled training step failed", self._coupled.train, row)

    def _refresh(self) -> None:
        taken = self._subscriber.refresh(self._flat.flat)
        if taken:
            self.lane.count("refreshes")
        elif taken is None:
            self.lane.count("refresh_misses")

    def _expire(self, now: float) -> None:
        if now < self._next_expiry:
            return
        self._next_expiry = now + _EXPIRY_INTERVAL
        with self.lane.hold() as held:
            expired = set(self.lane.expire(now - self.config.inference.pending_timeout)) if held else set()
        for encoded in expired:
            self._adopted.pop(encoded, None)
        if expired:
            for remembered in self._remembered.values():
                if remembered.encoded in expired:
                    # Too old to be rewarded, also by an observation that comes after all.
                    remembered.context = None

    def _guarded(self, what: str, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception:
            self._survived(what)

    def _survived(self, what: str) -> None:
        self.lane.count("errors")
        self._warn.exception(log, "version %d: %s", self._subscriber.version, what)
