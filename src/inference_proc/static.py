"""Deciding without an instance: from the newest checkpoint, with nothing recorded and nothing learned.

For a host that would rather answer with old weights than not start at all (`inference.static_fallback`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..shared.actions.heads import gaussian_head
from ..shared.actions.offer import Choices
from ..shared.configuration.config import Config, load
from ..shared.errors import CheckpointError, SegmentInvalid, SegmentMissing
from ..shared.ids.rewards_by_id import Outcome
from ..shared.instance import configured_application, load_newest, seeded_model
from ..shared.learning import meaning_of
from ..shared.memory.interruptible_lock import OwnedLock
from ..shared.memory.segments import instance_name
from ..shared.rate_limit import RateLimit
from ..shared.values import as_bool, as_number, as_text
from ..shared.weights.flat_model import FlatModel
from .application_hooks import ApplicationHooks
from .decision import Decision
from .engine import Engine
from .policy import Policy
from .turn import Turn, TurnEncoder, as_action, as_turn, make_turn

log = logging.getLogger(__name__)


class StaticEngine:
    """Answers `decide` as an Engine does, always with the same weights. Safe to call from several threads.

    `model_version` is that of the weights. Rewards match nothing. `instance` names the folder under `config.data_dir`.
    Raises CheckpointError if there are no saved weights, or only another model's, and ApplicationError.
    """

    enabled = False
    trainer_alive = False
    is_orphaned = False
    control = None
    """There is no shared memory to read."""

    def __init__(self, config: Config, instance: str | None = None) -> None:
        self.config = config
        self.name = instance_name(instance)
        self.application = configured_application(config)
        flat = FlatModel(seeded_model(self.application, config.trainer.seed))
        folder = Path(config.data_dir).absolute() / self.name
        self.model_version = load_newest(folder, flat, meaning_of(config.trainer, self.application))
        if not self.model_version:
            raise CheckpointError(f"{folder}: holds no weights to decide with; nothing was learned here yet")
        self.policy = Policy.configured(flat.model, config.inference, self.application.heads)
        self._hooks = ApplicationHooks(self.application, self._handled)
        self.gate = self._hooks.gate
        self._lock = OwnedLock()
        self._encoder = TurnEncoder(self.application)
        self._warn = RateLimit(10.0)

    def get_model_for_inference(self) -> torch.nn.Module:
        """The model with the checkpoint's weights."""
        return self.policy.model

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
        """Decide for one observation of `key`. Raises what `Engine.decide` raises."""
        turn = make_turn(key, observation, territory_id, request_id)
        turn.choices = Choices(allowed, candidates)
        return self._decide(turn)

    def _decide(self, turn: Turn) -> Decision:
        features = np.empty(self.application.inputs, np.float32)
        with self._lock:
            self._encoder.write(turn, features)
            draw = self.policy.act(features, (turn,))
            verdict = self._hooks.evaluate(turn.observation, draw.action, turn.key, self.model_version)
            if verdict.send:
                self._hooks.sent(turn.key, draw.action)
            if turn.is_single:
                self._hooks.forget(turn.key)
        labels = () if turn.offer is None else turn.offer.labels(draw.action)
        return Decision.of(turn.key, draw, verdict, self.model_version, time.time(), labels=labels)

    def decide_many(self, requests: Sequence[tuple[Any, ...]]) -> list[Decision | Exception]:
        """`decide` for several (key, observation, territory_id); an exception in its decision's place."""
        results: list[Decision | Exception] = []
        for request in requests:
            try:
                results.append(self._decide(as_turn(request)))
            except Exception as error:
                results.append(error)
        return results

    def _handled(self, what: str) -> None:
        self._warn.exception(log, "version %d: %s", self.model_version, what)

    def reward(self, key: str, value: float, final: bool = True) -> bool:
        """False: nothing waits for a reward. Raises ValueError for what `Engine.reward` does not take either."""
        as_text("key", key)
        as_number("reward", value)
        as_bool("final", final)
        return False

    def reward_decision(
        self, decision_id: str, value: float, final: bool = True, reward_id: str | None = None
    ) -> Outcome:
        """UNKNOWN: no decision is recorded. Raises ValueError as `Engine.reward_decision` does."""
        as_text("decision_id", decision_id)
        if reward_id is not None:
            as_text("reward_id", reward_id)
        self.reward("", value, final)
        return Outcome.UNKNOWN

    def waiting_id(self, key: str) -> str | None:
        """None: nothing waits."""
        as_text("key", key)
        return None

    def failed(self, key: str, action: tuple[int, ...]) -> bool:
        """False: nothing waits. Raises ValueError as `Engine.failed` does."""
        as_text("key", key)
        as_action(action, gaussian_head(self.application.heads) is not None)
        return False

    def forget(self, key: str) -> None:
        """The key will not come back. Raises ValueError for a key that is no text."""
        key = as_text("key", key)
        with self._lock:
            self._hooks.forget(key)

    def reset(self) -> int:
        """Raises SegmentMissing: there is nothing to reset."""
        raise SegmentMissing(self.name, self.troubles()[0])

    def troubles(self) -> list[str]:
        """That nothing is learned, and what the application says."""
        static = (
            f"no instance is there: the saved weights of version {self.model_version} decide, nothing is recorded or"
            " learned; restart the server once it runs"
        )
        return [static, *self.application.troubles()]

    def get_stats(self) -> dict[str, Any]:
        """Empty: nothing is counted."""
        return {}

    def beat(self) -> None:
        """Nothing to show."""

    def mark_ready(self) -> None:
        """Nobody to tell."""

    def close(self) -> None:
        """Nothing to give back."""


def open_engine(
    config: Config | Path | str | None = None, instance: str | None = None, timeout: float | None = None
) -> Engine | StaticEngine:
    """Attach to the instance, or, if it is not there and `inference.static_fallback` is set, decide without it.

    `config` is the configuration (or its file) that `ctl up` was given; a bad setting in it is logged and takes its
    default. Waits up to `timeout` seconds, by default `inference.attach_timeout`. Raises what `Engine.attach` raises,
    and CheckpointError if there is nothing to fall back on.
    """
    settings = config if isinstance(config, Config) else load(config, strict=False)
    try:
        return Engine.attach(instance, settings.inference.attach_timeout if timeout is None else timeout)
    except (SegmentMissing, SegmentInvalid) as error:
        return fall_back(settings, instance, error)


def fall_back(config: Config, instance: str | None, error: SegmentMissing | SegmentInvalid) -> StaticEngine:
    """What decides after attaching failed with `error`, which is raised again unless `inference.static_fallback`."""
    if not config.inference.static_fallback:
        raise error
    engine = StaticEngine(config, instance)
    log.error("%s; version %d decides, without recording or learning", error, engine.model_version)
    return engine
