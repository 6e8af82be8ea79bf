"""An agent for environments whose episodes are one step long: what is seen, what is done, what it earns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ..shared.application import ActionHead, Application
from ..shared.errors import TandemError
from ..testing import Running, run


class Agent:
    """Acts in an environment with a Box of observations and Discrete or MultiDiscrete actions, and learns from rewards.

    Runs in this process (see tandem.testing), and trains after each `train_every` rewards. `running` is what runs.
    Raises TandemError for other spaces.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        train_every: int = 20,
    ) -> None:
        if train_every < 1:
            raise TandemError(f"train_every: {train_every} (allowed: 1 and above)")
        seen, done = env.observation_space, env.action_space
        if not isinstance(seen, spaces.Box):
            raise TandemError(
                f"observation_space: {seen} is no Box; flatten it (gymnasium.wrappers.FlattenObservation)"
            )
        self._space = done
        self._train_every = train_every
        self._waiting = ""
        self._rewards = 0
        names = tuple(f"x{number}" for number in range(int(np.prod(seen.shape))))
        self.running: Running = run(Application("gymnasium", names, _heads(done), encode=_flat), settings, seed)

    def act(self, observation: Any) -> Any:
        """An action for an observation: int for Discrete, int64[n] for MultiDiscrete."""
        decision = self.running.decide(None, observation)
        self._waiting = decision.id
        if isinstance(self._space, spaces.Discrete):
            return int(decision.action[0] + self._space.start)
        return np.asarray(decision.action) + np.asarray(self._space.start)  # type: ignore[attr-defined]

    def learn(self, reward: Any) -> None:
        """What the last action earned. Raises TandemError if there is none."""
        if not self._waiting:
            raise TandemError("learn: no action waits for a reward; call act first, and learn once for each action")
        self.running.reward_decision(self._waiting, reward)
        self._waiting = ""
        self._rewards += 1
        if self._rewards % self._train_every == 0:
            self.running.train()

    def close(self) -> None:
        """Stop, and remove everything. Idempotent."""
        self.running.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _heads(space: spaces.Space[Any]) -> tuple[ActionHead, ...]:
    if isinstance(space, spaces.Discrete):
        return (ActionHead("action", int(space.n)),)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple(ActionHead(f"action{number}", int(size)) for number, size in enumerate(space.nvec))
    raise TandemError(f"action_space: {space} is neither Discrete nor MultiDiscrete")


def _flat(observation: Any) -> Any:
    """The observation as float32[F]."""
    return np.asarray(observation, np.float32).reshape(-1)
