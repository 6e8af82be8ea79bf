"""A Gymnasium loop learns; spaces that it cannot act in are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

import tandem.gym  # noqa: E402 - needs the extra
from tandem.shared.errors import TandemError  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "notebooks.md"


class Signs(gymnasium.Env):  # type: ignore[misc, name-defined]
    """One step long: the right action is 5 plus how many of the two numbers are positive."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 1), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """A new observation."""
        super().reset(**options)
        self.seen = self.np_random.normal(size=(2, 1)).astype(np.float32)
        return self.seen, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """1 for the right action."""
        assert self.action_space.contains(action)
        return self.seen, float(action == 5 + (self.seen > 0).sum()), True, False, {}


def test_the_loop_of_the_page_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """The block of docs/notebooks.md, at most ten lines long, run as it stands: its reward rises far above chance."""
    block = re.search(r"```python gymnasium\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert len(block[1].strip().splitlines()) <= 10
    env = Signs()
    env.reset(seed=1)
    namespace: dict[str, Any] = {"env": env}
    exec(block[1], namespace)
    rewards = namespace["rewards"]
    assert np.mean(rewards[-200:]) > 0.8
    assert np.mean(rewards[-200:]) > 1.5 * np.mean(rewards[:50])


def test_several_choices_at_once_are_an_array() -> None:
    """MultiDiscrete: one choice for each, within its bounds."""
    env = Signs()
    env.action_space = gymnasium.spaces.MultiDiscrete([2, 4], start=[1, -1])
    with tandem.gym.Agent(env) as agent:
        for _ in range(30):
            assert env.action_space.contains(agent.act(env.observation_space.sample()))
            agent.learn(1)


def test_what_it_cannot_do_is_named() -> None:
    """Spaces of another kind, a reward without an action, a period of nothing."""
    env = Signs()
    with tandem.gym.Agent(env) as agent:
        agent.act(np.zeros((2, 1)))
        agent.learn(0.5)
        with pytest.raises(TandemError, match="call act first"):
            agent.learn(0.5)
    with pytest.raises(TandemError, match="train_every: 0"):
        tandem.gym.Agent(env, train_every=0)
    env.action_space = gymnasium.spaces.Box(0, 1)
    with pytest.raises(TandemError, match=r"action_space: .* is neither Discrete"):
        tandem.gym.Agent(env)
    env.observation_space = gymnasium.spaces.Discrete(3)
    with pytest.raises(TandemError, match=r"observation_space: .* is no Box"):
        tandem.gym.Agent(env)
