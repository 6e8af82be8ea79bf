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

from ..shared.actions.offer import Choices
from ..shared.application import Gate
from ..shared.errors import TandemError
from ..shared.experiences.lane import Lane
from ..shared.experiences.records import SEND, WAIT
from ..shared.instance import Instance
from ..shared.memory.claim import Refusal, disown_after_fork
from ..shared.memory.interruptible_lock import OwnedLock
from ..shared.memory.segments import instance_name
from ..shared.rate_limit import RateLimit
from ..shared.telemetry.snapshot import read_trainer
from ..shared.telemetry.stats import buffer_stats
from ..shared.values import BAD_DATA
from .application_hooks import ApplicationHooks
from .coupled import CoupledTrainer
from .decision import Decision
from .decision_log import DecisionLog
from .feedback import Feedback
from .live_model import LivePolicy
from .policy import Draw, Policy
from .recorder import Recorder
from .turn import Turn, TurnEncoder, as_turn, make_turn, without_repetition
from .upkeep.changes import Changes
from .upkeep.health import Health

log = logging.getLogger(__name__)

_BETWEEN_EXPIRIES = 0.0001
"""Seconds in which a thread that waits to decide gets its turn, while very many decisions are given up."""

FORKED = Refusal(
    "this engine was attached before its process forked, and its lane belongs to the parent;"
    " call Engine.attach in the child (with uvicorn or gunicorn: in the application's start-up)"
)
"""Stands where the engine's lock was in a forked child: whatever needs the lock raises TandemError."""


class Engine(Feedback):
    """The inference side of one instance, in one process. Safe to call from several threads.

    `decide` raises only if it is given what cannot be used or the policy itself fails; any other failure degrades
    the decision, is counted in the lane's `errors` and logged at a limited rate.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.control = instance.control
        self.config = instance.config
        self.application = instance.application
        self._encoder = TurnEncoder(self.application)
        rules = instance.reward_rules()
        self.lane = Lane.claim(self.control, instance.records, self.config.trainer.lock_timeout, rules)
        self._live = LivePolicy.of(instance, self.lane)
        leak = self.config.inference.gate_leak_probability
        self._hooks = ApplicationHooks(self.application, self._handled, leak, self.policy.rng.random)
        self._lock: Any = OwnedLock()
        self._warn = RateLimit(10.0)
        self._decision_log = DecisionLog(self.config.logging.decisions_every)
        self._live.refresh()
        coupled = None if self.config.trainer.enabled else CoupledTrainer(instance, self._live.flat, self._live.slots)
        self._coupled = coupled
        self._live.is_trained_here = coupled is not None and coupled.is_trainer
        train = None if coupled is None else self._train_coupled
        self._recorder = Recorder(instance, self.lane, self._live.freshness.arrived, train)
        self._health = Health(self.control)
        self._changes = Changes(self.control)
        if self._changes.is_reloaded():
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
    def policy(self) -> Policy:
        """The policy that draws the actions."""
        return self._live.policy

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
        """True if the trainer lives and its loop made progress within `supervisor.hang_timeout`."""
        return self.enabled and read_trainer(self.control).is_progressing(self.config.supervisor.hang_timeout)

    @property
    def is_orphaned(self) -> bool:
        """True if the instance was stopped under this engine: it still decides, but nobody learns from it any more.

        Close it and attach again to join the instance's next start.
        """
        return self.control.is_removed

    def get_model_for_inference(self) -> torch.nn.Module:
        """The model with the newest weights. It is the engine's own: a later decision may give it newer ones."""
        with self._lock:
            self._live.refresh()
        return self._live.flat.model

    def decide(
        self,
        key: str | None,
        observation: Any,
        territory_id: str = "",
        request_id: str | None = None,
        *,
        allowed: Any = None,
        candidates: Any = None,
    ) -> Decision:
        """Decide for one observation of `key`, and record the decision.

        If the application computes rewards, the key's previous decision is completed by this observation first.
        `territory_id` is what the experience will carry (default: the key). Without a key (None) the decision stands
        alone, and is rewarded by its id. While a decision waits for its reward, another call with its `request_id`
        returns it again, in whatever process and with the probability as recorded, and decides nothing. `allowed` and
        `candidates` are those of Choices.

        Raises ValueError, before anything is recorded or remembered, for a key or territory that is no text, for an
        observation that is not F finite numbers (naming the feature) or that the application cannot encode, and if
        nothing that exists is allowed; FloatingPointError if the policy's logits are not numbers or mask every choice;
        PolicyUnavailable.
        """
        turn = make_turn(key, observation, territory_id, request_id)
        if allowed is not None or candidates is not None:
            turn.choices = Choices(allowed, candidates)
        self._decide_batch([turn])
        decision = turn.result
        if type(decision) is not Decision:
            assert isinstance(decision, Exception)
            raise decision
        self._decision_log.write((decision,))
        return decision

    def decide_many(self, requests: Sequence[tuple[Any, ...]]) -> list[Decision | Exception]:
        """`decide` for several DecideRequest or (key, observation, territory_id) in one forward pass, in their order.

        Whatever is wrong with one request gives its exception in its place; the others are decided. A key that comes
        twice is decided twice, one after the other.
        """
        asked: list[Turn | Exception] = []
        for request in requests:
            try:
                asked.append(as_turn(request))
            except ValueError as error:
                asked.append(error)
        for batch in without_repetition([turn for turn in asked if type(turn) is Turn]):
            self._decide_batch(batch)
        results: list[Any] = [turn.result if type(turn) is Turn else turn for turn in asked]
        self._decision_log.write(results)
        return results

    def _decide_batch(self, turns: Sequence[Turn]) -> None:
        """Give each turn its result: its decision, or its exception. No key comes twice."""
        started = time.perf_counter_ns()
        with self._lock:
            self._notice_reset()
            self._recorder.collect()
            encoded, features = self._encoder.encode(self._without_answered(turns))
            for turn in encoded:
                self._remember(turn)
            # The model gets a copy: what is recorded is what was encoded, whatever happens to either.
            draws = self._live.act(features.copy(), encoded) if encoded else ()
            try:
                for turn, draw in zip(encoded, draws, strict=True):
                    turn.result = self._settle(turn, draw) if isinstance(draw, Draw) else draw
            finally:
                share = (time.perf_counter_ns() - started) // (len(encoded) or 1)
                for turn in encoded:
                    decision = turn.result
                    if type(decision) is Decision:
                        self.lane.counters.count_decision(SEND if decision.send else WAIT, decision.version, share)

    def _without_answered(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """The turns whose request was not answered before; the others get the same decision again."""
        for turn in turns:
            if turn.request:
                turn.result = self._recorder.answered(turn)
        return [turn for turn in turns if turn.result is None]

    def _remember(self, turn: Turn) -> None:
        """Recall the turn's key, and complete its previous decision with the reward that the observation brings."""
        turn.remembered, evicted = self._recorder.recall(turn.key, turn.is_single)
        if evicted is not None:
            self._hooks.forget(evicted)
        remembered, context = turn.remembered, turn.remembered.context
        if context is None:
            return
        rewarded = self._hooks.reward(context, remembered.action, remembered.executed, turn.observation)
        remembered.context = None
        if rewarded is None:
            return
        value, turn.last_components = rewarded
        remembered.rewards.append(value)
        if remembered.executed and self._recorder.reward(remembered.encoded, value):
            self._hooks.rewarded(value)

    def _settle(self, turn: Turn, draw: Draw) -> Decision:
        """Let the gate evaluate one action, and record it."""
        turn.draw, turn.version, turn.timestamp = draw, self._live.version, time.time()
        turn.verdict = self._hooks.evaluate(turn.observation, draw.action, turn.key, turn.version)
        try:
            turn.context = self._hooks.context(turn.observation)
            if not self._recorder.record(turn):
                text = "version %d: a decision with a value that is not finite is not stored"
                self._warn.warning(log, text, turn.version)
        except BaseException as error:
            # What is remembered must not be an older decision that this one took the place of.
            remembered = turn.remembered
            remembered.context, remembered.action, remembered.executed = None, (), False
            if not isinstance(error, BAD_DATA):
                raise
            self._handled("a decision could not be recorded")
        if turn.rival is not None:
            return self._recorder.decision_of(turn.rival, turn.choices)
        if turn.verdict.send:
            self._hooks.sent(turn.key, draw.action)
        return turn.decided()

    def reset(self) -> int:
        """New random weights and empty buffers, by way of the trainer; the version number never goes back.

        Returns the published version, which the trainer raises within moments.
        """
        with self._lock:
            self._changes.expect_reset()
            self._clear()
        if self._coupled is not None:
            with self._lock:
                self._coupled.reset()
                self._live.refresh()
        else:
            self.control.command("reset")
        return self.model_version

    def _clear(self) -> None:
        self._recorder.clear()
        self._hooks.clear()

    def _notice_reset(self) -> None:
        """Forget as well if another server process or an operator has reset the instance."""
        if self._changes.is_reset():
            self._clear()

    def troubles(self) -> list[str]:
        """Why the instance is degraded while decisions go on; empty if it is not."""
        return self._health.reasons(self.application, is_stalled=self.enabled and not self.trainer_alive)

    def get_stats(self) -> dict[str, Any]:
        """Counts over all lanes (see `replay.buffer_stats`) and under `lane` those of this process."""
        return {**buffer_stats(self.control), "lane": {"index": self.lane.index, **self.control.lane(self.lane.index)}}

    def beat(self) -> None:
        """Say that the server's main loop turns, and give up what has waited too long. Call it twice a second."""
        with self._lock:
            self.lane.beat()
        if self._changes.is_reloaded():
            self._reload()
        with self._lock:
            self._notice_reset()
            self._recorder.collect()
            more = self._recorder.expire()
            if self._coupled is not None:
                self._coupled.beat()
        while more:
            # Who gives a lock back and takes it at once leaves it to nobody.
            time.sleep(_BETWEEN_EXPIRIES)
            with self._lock:
                more = self._recorder.expire()
        self._health.look()

    def _reload(self) -> None:
        """Take over the settings that may change while the instance runs."""
        try:
            config = self.instance.config_in_force()
        except (OSError, ValueError, TandemError) as error:
            self._warn.warning(log, "the reloaded settings are left out: %s", error)
            return
        settings = config.inference
        with self._lock:
            self.policy.temperature = settings.temperature
            self.policy.floor = settings.exploration_floor
            self._recorder.reconfigure(config)

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

    def _handled(self, what: str) -> None:
        self.lane.count("errors")
        self._warn.exception(log, "version %d: %s", self._live.version, what)
