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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.application import Verdict
from ..shared.errors import PolicyUnavailable
from ..shared.experience import WAIT_FLOOR
from ..shared.instance import Instance
from ..shared.lane import Lane
from ..shared.rate_limit import RateLimit
from ..shared.records import KEY_BYTES, PENDING_KEY_BYTES, SEND, WAIT, encode_key, is_finite_record
from ..shared.replay import buffer_stats
from ..shared.stats import seconds_since
from .coupled import CoupledTrainer
from .policy import Draw, Policy
from .subscriber import LiveModel

log = logging.getLogger(__name__)

_UNDECIDED = RuntimeError("not decided")
_IN_PLACE_TRIES = 4
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
        size = self._flat.layout.data_bytes
        in_place = self.config.trainer.enabled and size >= self.config.weights.in_place_bytes
        self._live = LiveModel(self._flat, self._slots, in_place)
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
        decision = self.decide_many([(key, observation, territory_id)])[0]
        if isinstance(decision, Exception):
            raise decision
        return decision

    def decide_many(self, requests: Sequence[tuple[str, Any, str]]) -> list[Decision | Exception]:
        """`decide` for several (key, observation, territory_id) in one forward pass, in their order.

        An observation that cannot be encoded gives its exception in its place; the others are decided. A key that
        comes twice is decided twice, one after the other.
        """
        results: list[Decision | Exception] = []
        while len(results) < len(requests):
            seen: set[str] = set()
            batch = []
            for request in requests[len(results) :]:
                if request[0] in seen:
                    break
                seen.add(request[0])
                batch.append(request)
            results += self._decide_batch(batch)
        return results

    def _decide_batch(self, requests: Sequence[tuple[str, Any, str]]) -> list[Decision | Exception]:
        started = time.perf_counter_ns()
        results: list[Decision | Exception] = []
        with self._lock:
            self._collect()
            encoded, chosen = [], []
            for key, observation, _ in requests:
                try:
                    encoded.append(self.application.encode(observation))
                except Exception as error:
                    results.append(error)
                    continue
                remembered = self._recall(key)
                chosen.append((remembered, self._complete(remembered, observation)))
                results.append(_UNDECIDED)
            draws = iter(self._act(np.stack(encoded)) if encoded else ())
            pairs = iter(chosen)
            for position, (key, observation, territory_id) in enumerate(requests):
                if results[position] is _UNDECIDED:
                    remembered, components = next(pairs)
                    results[position] = self._settle(
                        key, observation, territory_id or key, remembered, components, encoded.pop(0), next(draws)
                    )
            share = (time.perf_counter_ns() - started) // max(1, len(requests))
            for result in results:
                if isinstance(result, Decision):
                    self.lane.count_decision(SEND if result.send else WAIT, result.version, share)
        return results

    def _act(self, features: NDArray[np.float32]) -> list[Draw]:
        """Draw actions with the newest weights, all with the same version's."""
        for _ in range(_IN_PLACE_TRIES):
            self._refresh()
            draws = self.policy.act_many(features)
            if self._live.is_whole():
                return draws
            self.lane.count("refresh_misses")
        raise PolicyUnavailable(
            f"the weights changed during each of {_IN_PLACE_TRIES} forward passes; raise weights.slots"
        )

    def _settle(
        self,
        key: str,
        observation: Any,
        territory_id: str,
        remembered: _Remembered,
        last_components: dict[str, float] | None,
        features: NDArray[np.float32],
        draw: Draw,
    ) -> Decision:
        """Judge and record one action."""
        version, timestamp = self._live.version, time.time()
        verdict = self._judge(observation, draw.action, key, version)
        try:
            self._record(remembered, observation, features, draw, verdict, version, timestamp, territory_id)
        except Exception:
            self._survived("a decision could not be recorded")
        if verdict.send and self.gate is not None:
            self._guarded("the gate's bookkeeping failed", self.gate.sent, key, draw.action)
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
            self._collect()
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
            remembered = self._adopted.pop(encoded, None)
            if remembered is None:
                # Decided by another server process, perhaps; its pending table is as readable as our own.
                entry = self.lane.post.find(encoded)
                empty = _Remembered(encoded, deque(maxlen=10))
                remembered = empty if entry is None else self._remember(encoded, entry)
            if len(self._remembered) >= self.config.inference.max_keys:
                self._drop(next(iter(self._remembered)))
            self._remembered[key] = remembered
        else:
            self._remembered.move_to_end(key)
        return remembered

    def _drop(self, key: str) -> None:
        remembered = self._remembered.pop(key, None)
        encoded = remembered.encoded if remembered else encode_key(key, PENDING_KEY_BYTES)
        self._adopted.pop(encoded, None)
        with self.lane.hold() as held:
            if held:
                self.lane.drop(encoded)
        if self.gate is not None:
            self._guarded("the gate could not forget a key", self.gate.forget, key)

    def _adopt_pending(self) -> dict[bytes, _Remembered]:
        """What the lane's previous owner left pending, ready to be completed by the next observation of its key."""
        entries = ((key, self.lane.pending.entry(key)) for key in self.lane.pending.keys())  # noqa: SIM118 - not a dict
        return {key: self._remember(key, entry) for key, entry in entries if entry is not None}

    def _remember(self, encoded: bytes, entry: np.void) -> _Remembered:
        dtype = self.application.context_dtype
        context = None if dtype is None else np.frombuffer(entry["context"].tobytes(), dtype, 1).reshape(())
        action = tuple(int(choice) for choice in entry["action"])
        return _Remembered(encoded, deque(maxlen=10), context, action, True)

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
        lane = self.lane
        if not lane.acquire():
            return False
        try:
            row = lane.complete(encoded, value)
            if row is None:
                entry = lane.post.find(encoded)
                if entry is None:
                    lane.count("unmatched")
                    return False
                lane.forward(int(entry["ticket"]), value)
                return True
        finally:
            lane.unlock()
        if self._coupled is not None:
            self._train_coupled(row)
        return True

    def _collect(self) -> None:
        """Complete what was rewarded at other server processes."""
        if not self.lane.post.waiting or not self.lane.acquire():
            return
        try:
            rows = self.lane.collect()
        finally:
            self.lane.unlock()
        if self._coupled is not None:
            for row in rows:
                self._train_coupled(row)

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
        if not lane.acquire():
            return
        try:
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
        finally:
            lane.unlock()

    def _train_coupled(self, row: np.void) -> None:
        assert self._coupled is not None
        self._guarded("a coupled training step failed", self._coupled.train, row)

    def _refresh(self) -> None:
        taken = self._live.refresh()
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
        self._warn.exception(log, "version %d: %s", self._live.version, what)
