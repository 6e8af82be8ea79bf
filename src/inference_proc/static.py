"""Deciding without an instance: from the newest checkpoint, with nothing recorded and nothing learned.

For a host that would rather answer with old weights than not start at all (`inference.static_fallback`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..shared.application import Verdict, load_application
from ..shared.config import Config, load
from ..shared.errors import CheckpointError, SegmentInvalid, SegmentMissing
from ..shared.instance import load_newest, seeded_model
from ..shared.rate_limit import RateLimit
from ..shared.weights import FlatModel
from .decision import Decision
from .engine import Engine, instance_name
from .policy import Policy

log = logging.getLogger(__name__)

_OPEN = Verdict(send=True, reason="no_gate", expected_reward=0.0)


class StaticEngine:
    """Answers `decide` as an Engine does, always with the same weights. Safe to call from several threads.

    `model_version` is that of the weights. Rewards match nothing. `instance` names the folder under `config.data_dir`.
    Raises CheckpointError if there are no saved weights, or only another model's, and ApplicationError.
    """

    enabled = False
    trainer_alive = False
    is_orphaned = False

    def __init__(self, config: Config, instance: str | None = None) -> None:
        self.config = config
        self.application = load_application(config.application, config.settings, Path(config.folder))
        flat = FlatModel(seeded_model(self.application, config.trainer.seed))
        folder = Path(config.data_dir).absolute() / instance_name(instance)
        self.model_version = load_newest(folder, flat)
        if not self.model_version:
            raise CheckpointError(f"{folder}: holds no weights to decide with; nothing was learned here yet")
        settings = config.inference
        self.policy = Policy(
            flat.model,
            settings.temperature,
            settings.exploration_floor,
            None if settings.seed < 0 else settings.seed,
        )
        self.gate = self.application.build_gate() if self.application.build_gate else None
        self._lock = threading.Lock()
        self._warn = RateLimit(10.0)

    def get_model_for_inference(self) -> torch.nn.Module:
        """The model with the checkpoint's weights."""
        return self.policy.model

    def decide(self, key: str, observation: Any, territory_id: str = "") -> Decision:
        """Decide for one observation of `key`. Raises if it cannot be encoded or the policy fails."""
        features = self.application.encode(observation)
        with self._lock:
            draw = self.policy.act(features)
            verdict = self._judge(observation, draw.action, key)
        return Decision.of(key, draw, verdict, self.model_version, time.time())

    def decide_many(self, requests: Sequence[tuple[str, Any, str]]) -> list[Decision | Exception]:
        """`decide` for several (key, observation, territory_id); an exception in its decision's place."""
        results: list[Decision | Exception] = []
        for key, observation, territory_id in requests:
            try:
                results.append(self.decide(key, observation, territory_id))
            except Exception as error:
                results.append(error)
        return results

    def _judge(self, observation: Any, action: tuple[int, ...], key: str) -> Verdict:
        if self.gate is None:
            return _OPEN
        try:
            verdict = self.gate.evaluate(observation, action, key, self.model_version)
            if verdict.send:
                self.gate.sent(key, action)
        except Exception:
            self._warn.exception(log, "version %d: the gate failed; the action is held back", self.model_version)
            return Verdict(False, "gate_error", -math.inf, (0.0,) * len(self.application.gate_components))
        return verdict

    def reward(self, key: str, value: float) -> bool:
        """False: nothing waits for a reward."""
        return False

    def failed(self, key: str, action: tuple[int, ...]) -> bool:
        """False: nothing waits."""
        return False

    def forget(self, key: str) -> None:
        """The key will not come back."""
        if self.gate is not None:
            with self._lock:
                self.gate.forget(key)

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
        if not settings.inference.static_fallback:
            raise
        engine = StaticEngine(settings, instance)
        log.error("%s; version %d decides, without recording or learning", error, engine.model_version)
        return engine
