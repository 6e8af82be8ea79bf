"""The engine: decides, records, and takes new weights the moment they are published.

The same object serves a script, an ASGI application or a threaded server. A decision never waits for the trainer
and does not notice if it is gone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.application import Gate
from ..shared.errors import PolicyUnavailable, TandemError
from ..shared.experiences.lane import Lane
from ..shared.experiences.records import PENDING_KEY_BYTES, SEND, WAIT, encode_key
from ..shared.experiences.replay import buffer_stats
from ..shared.features import FeatureEncoder
from ..shared.instance import Instance
from ..shared.memory import layout
from ..shared.memory.claim import Refusal, disown_after_fork
from ..shared.memory.interruptible_lock import OwnedLock
from ..shared.memory.segments import instance_name
from ..shared.rate_limit import RateLimit
from ..shared.telemetry.stats import seconds_since
from ..shared.values import BAD_DATA, FLOAT32_TINY, as_number, as_text, fits_float32, shown
from .application_hooks import ApplicationHooks, failed_reward
from .coupled import CoupledTrainer
from .decision import Decision
from .decision_log import DecisionLog
from .forks import FORKED
from .health import Health
from .live_model import LiveModel
from .policy import Draw, Policy
from .recorder import Recorder
from .turn import Turn, as_action, as_turn, make_turn, remember, without_repetition

log = logging.getLogger(__name__)

_IN_PLACE_TRIES = 4


class Engine:
    """The inference side of one instance, in one process. Safe to call from several threads.

    `decide` raises only if it is given what cannot be used or the policy itself fails; any other failure degrades
    the decision, is counted in the lane's `errors` and logged at a limited rate.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.control = instance.control
        self.config = instance.config
        self.application = instance.application
        self._encoder = FeatureEncoder(self.application.encode, self.application.features)
        self._failed_reward = failed_reward(self.application)
        self.lane = Lane.claim(self.control, instance.records, self.config.trainer.lock_timeout)
        self._width = len(self.application.features)
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
            [head.name for head in self.application.heads],
        )
        self._hooks = ApplicationHooks(
            self.application, self._handled, settings.gate_leak_probability, self.policy.rng.random
        )
        self._lock: Any = OwnedLock()
        self._warn = RateLimit(10.0)
        self._decision_log = DecisionLog(self.config.logging.decisions_every)
        self._coupled: CoupledTrainer | None = None
        self._refresh()
        self._coupled = None if self.config.trainer.enabled else CoupledTrainer(instance, self._flat, self._slots)
        self._recorder = Recorder(instance, self.lane, None if self._coupled is None else self._train_coupled)
        self._health = Health(self)
        self._generation_word = layout.offset("generation") >> 3
        self._generation = self.control.get("generation")
        self._config_revision = 0
        if self.control.get("trainer.config_revision"):
            self._reload()
        disown_after_fork(self)

    @classmethod
    def attach(cls, instance: str | None = None, timeout: float | None = None) -> Engine:
        """Attach to a running instance and claim a writer lane.

        Without a name it is the one in the environment's TANDEM_INSTANCE, which `ctl` sets for what it starts, else
        `default`. Waits up to `timeout` seconds (default 30) for the instance to appear. Raises SegmentMissing,
        SegmentInvalid, LayoutMismatch, ApplicationError, or LaneBusy if every lane has a living owner.
        """
        return cls(Instance(instance_name(instance), timeout=30.0 if timeout is None else timeout))

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.control.instance

    @property
    def gate(self) -> Gate | None:
        """The application's gate, if it has one."""
        return self._hooks.gate

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

    @property
    def is_orphaned(self) -> bool:
        """True if the instance was stopped under this engine: it still decides, but nobody learns from it any more.

        Close it and attach again to join the instance's next start.
        """
        return self.control.is_removed

    def get_model_for_inference(self) -> torch.nn.Module:
        """The model with the newest weights. It is the engine's own: a later decision may give it newer ones."""
        with self._lock:
            self._refresh()
        return self._flat.model

    def decide(self, key: str, observation: Any, territory_id: str = "") -> Decision:
        """Decide for one observation of `key`, and record the decision.

        If the application computes rewards, the key's previous decision is completed by this observation first.
        `territory_id` is what the experience will carry (default: the key).

        Raises ValueError, before anything is recorded or remembered, for a key or territory that is no text and for an
        observation that is not F finite numbers (naming the feature) or that the application cannot encode;
        FloatingPointError if the policy's logits are not numbers or mask every choice; PolicyUnavailable.
        """
        results: list[Any] = [None]
        self._decide_batch([make_turn(0, key, observation, territory_id)], results)
        decision = results[0]
        if type(decision) is not Decision:
            raise decision
        self._decision_log.write(results)
        return decision

    def decide_many(self, requests: Sequence[tuple[str, Any, str]]) -> list[Decision | Exception]:
        """`decide` for several (key, observation, territory_id) in one forward pass, in their order.

        Whatever is wrong with one request gives its exception in its place; the others are decided. A key that comes
        twice is decided twice, one after the other.
        """
        results: list[Any] = []
        turns = []
        for request in requests:
            try:
                turns.append(as_turn(len(results), request))
                results.append(None)
            except ValueError as error:
                results.append(error)
        for batch in without_repetition(turns):
            self._decide_batch(batch, results)
        self._decision_log.write(results)
        return results

    def _decide_batch(self, turns: Sequence[Turn], results: list[Any]) -> None:
        """Put the decision of each turn, or its exception, into `results`. No key comes twice."""
        started = time.perf_counter_ns()
        with self._lock:
            self._notice_reset()
            self._recorder.collect()
            turns, features = self._encode(turns, results)
            for turn in turns:
                remember(turn, self._recorder, self._hooks)
            # The model gets a copy: what is recorded is what was encoded, whatever happens to either.
            draws = self._act(features.copy()) if turns else []
            try:
                for row, turn in enumerate(turns):
                    draw = draws[row]
                    results[turn.position] = self._settle(turn, features[row], draw) if type(draw) is Draw else draw
            finally:
                share = (time.perf_counter_ns() - started) // (len(turns) or 1)
                for turn in turns:
                    decision = results[turn.position]
                    if type(decision) is Decision:
                        self.lane.count_decision(SEND if decision.send else WAIT, decision.version, share)

    def _encode(self, turns: Sequence[Turn], results: list[Any]) -> tuple[list[Turn], NDArray[np.float32]]:
        """The turns that can be encoded, and their features float32[B, F], which are nobody else's memory."""
        features = np.empty((len(turns), self._width), np.float32)
        encoded: list[Turn] = []
        for turn in turns:
            try:
                self._encoder.write(turn.observation, features[len(encoded)])
            except Exception as error:
                results[turn.position] = error
            else:
                encoded.append(turn)
        return encoded, features if len(encoded) == len(features) else features[: len(encoded)]

    def _act(self, features: NDArray[np.float32]) -> Sequence[Draw | Exception]:
        """Draw actions with the newest weights, all with the same version's."""
        for _ in range(_IN_PLACE_TRIES):
            self._refresh()
            draws = self.policy.act_many(features)
            if self._live.is_whole():
                return draws
            self.lane.count("refresh_misses")
        text = f"the weights changed during each of {_IN_PLACE_TRIES} forward passes; raise weights.slots"
        return [PolicyUnavailable(text)] * len(features)

    def _settle(self, turn: Turn, features: NDArray[np.float32], draw: Draw) -> Decision:
        """Let the gate judge one action, and record it."""
        version, timestamp, remembered = self._live.version, time.time(), turn.remembered
        verdict = self._hooks.evaluate(turn.observation, draw.action, turn.key, version)
        try:
            context = self._hooks.context(turn.observation)
            if not self._recorder.record(
                remembered,
                context,
                features,
                draw if draw.probability >= FLOAT32_TINY else draw.storable,
                verdict,
                version,
                timestamp,
                turn.territory_id,
            ):
                self._warn.warning(log, "version %d: a decision with a value that is not finite is not stored", version)
        except BaseException as error:
            # What is remembered must not be an older decision that this one took the place of.
            remembered.context, remembered.action, remembered.executed = None, (), False
            if not isinstance(error, BAD_DATA):
                raise
            self._handled("a decision could not be recorded")
        if verdict.send:
            self._hooks.sent(turn.key, draw.action)
        rewards = tuple(remembered.rewards)
        return Decision.of(
            turn.key,
            draw,
            verdict,
            version,
            timestamp,
            last_reward=rewards[-1] if turn.last_components is not None else None,
            last_components=turn.last_components,
            recent_rewards=rewards,
        )

    def reward(self, key: str, value: float) -> bool:
        """The reward of the key's pending decision came in: any real number of Python, numpy or torch.

        False (counted) if none is pending, or if it is not finite as float32. Raises ValueError for a value that is no
        number and a key that is no text.
        """
        key, number = as_text("key", key), as_number("reward", value)
        encoded = encode_key(key, PENDING_KEY_BYTES)
        with self._lock:
            if fits_float32(number):
                return self._recorder.reward(encoded, number)
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
        key, choices = as_text("key", key), as_action(action)
        with self._lock:
            remembered = self._recorder.known(key)
            if remembered is None or not remembered.executed or remembered.action != choices:
                self.lane.count("unmatched")
                return False
            remembered.executed = False
            self._hooks.failed(key, choices)
            return self._recorder.reward(remembered.encoded, self._failed_reward)

    def forget(self, key: str) -> None:
        """The key will not come back: its pending decision is dropped. Raises ValueError for a key that is no text."""
        key = as_text("key", key)
        with self._lock:
            self._recorder.forget(key)
            self._hooks.forget(key)

    def reset(self) -> int:
        """New random weights and empty buffers, by way of the trainer; the version number never goes back.

        Returns the published version, which the trainer raises within moments.
        """
        with self._lock:
            self._generation = self.control.get("generation") + 1
            self._clear()
        if self._coupled is not None:
            with self._lock:
                self._coupled.reset()
                self._refresh()
        else:
            self.control.command("reset")
        return self.model_version

    def _clear(self) -> None:
        self._recorder.clear()
        self._hooks.clear()

    def _notice_reset(self) -> None:
        """Forget as well if another server process or an operator has reset the instance."""
        generation = self.control.words[self._generation_word]
        if generation > self._generation:
            self._generation = generation
            self._clear()

    def troubles(self) -> list[str]:
        """Why the instance is degraded while decisions go on; empty if it is not."""
        return self._health.troubles()

    def get_stats(self) -> dict[str, Any]:
        """Counts over all lanes (see `replay.buffer_stats`) and under `lane` those of this process."""
        return {**buffer_stats(self.control), "lane": {"index": self.lane.index, **self.control.lane(self.lane.index)}}

    def beat(self) -> None:
        """Say that the server's main loop makes progress, and drop what has waited too long. Call it twice a second."""
        with self._lock:
            self.lane.beat()
        if self.control.get("trainer.config_revision") != self._config_revision:
            self._reload()
        with self._lock:
            self._notice_reset()
            self._recorder.collect()
            self._recorder.expire()
            if self._coupled is not None:
                self._coupled.beat()
        self._health.look()

    def _reload(self) -> None:
        """Take over the settings that may change while the instance runs."""
        self._config_revision = self.control.get("trainer.config_revision")
        try:
            config = self.instance.config_in_force()
        except (OSError, ValueError, TandemError) as error:
            self._warn.warning(log, "the reloaded settings are left out: %s", error)
            return
        settings = config.inference
        with self._lock:
            self.policy.temperature = settings.temperature
            self.policy.floor = settings.exploration_floor
            self._recorder.reconfigure(settings.pending_timeout, config.trainer.train_on_wait)

    def mark_ready(self) -> None:
        """Say that the server answers requests."""
        with self._lock:
            self.lane.check()
            self.control.set(f"lane.{self.lane.index}.ready", os.getpid())

    def close(self) -> None:
        """Give the lane back; every call that would write raises TandemError from then on. Idempotent.

        Pending decisions stay for the lane's next owner.
        """
        # A decision that another thread is in the middle of is finished first, unless it takes for ever.
        lock = self._lock
        held = not isinstance(lock, Refusal) and lock.acquire(timeout=self.config.trainer.lock_timeout)
        if not isinstance(lock, Refusal):
            self._lock = Refusal(f"this engine of instance {self.name!r} was closed; attach another (Engine.attach)")
        self.lane.release()
        if held:
            lock.release()

    def disown(self) -> None:
        """Become useless in a forked child: the lock raises when it is taken, and the lane stays the parent's."""
        self._lock = FORKED
        self.lane.disown()

    def _train_coupled(self, row: np.void) -> None:
        assert self._coupled is not None
        try:
            self._coupled.train(row)
        except Exception:
            self._handled("a coupled training step failed")

    def _refresh(self) -> None:
        if self._coupled is not None and self._coupled.is_trainer:
            # The weights in use are the ones that were trained: they are the newest already.
            self._live.trained(self.model_version)
            return
        taken = self._live.refresh()
        if taken:
            self.lane.count("refreshes")
        elif taken is None:
            self.lane.count("refresh_misses")

    def _handled(self, what: str) -> None:
        self.lane.count("errors")
        self._warn.exception(log, "version %d: %s", self._live.version, what)
