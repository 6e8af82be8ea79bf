"""An application whose parts do what a test tells them to, by the module's HOOKS. Copied into the test's folder."""

import math
from typing import Any

import numpy as np
import torch
from tandem.shared.application import ActionHead, Application, Verdict

HOOKS: dict[str, Any] = {}
"""By name: `encode(observation)`, `forward(observations, logits)`, `evaluate(observation)`, `context(observation)`,
`reward(context, observation)`."""


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 8)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = self.layer(observations)
        hook = HOOKS.get("forward")
        if hook:
            logits = hook(observations, logits)
        return logits[:, :5], logits[:, 5:]


class Gate:
    components = ("size",)

    def evaluate(self, observation: Any, action: tuple[int, ...], key: Any, version: int) -> Any:
        hook = HOOKS.get("evaluate")
        return hook(observation) if hook else Verdict(True, "open", 0.25, (0.5,))

    def sent(self, key: Any, action: tuple[int, ...]) -> None: ...

    def failed(self, key: Any, action: tuple[int, ...]) -> None: ...

    def rewarded(self, reward: float) -> None:
        HOOKS.setdefault("rewarded", []).append(reward)

    def forget(self, key: Any) -> None: ...

    def statistics(self) -> dict[str, Any]:
        return {}

    def clear(self) -> None: ...


class Reward:
    context_dtype = np.dtype([("before", "<f4")])

    def context(self, observation: Any) -> Any:
        hook = HOOKS.get("context")
        return hook(observation) if hook else np.array((observation[0],), self.context_dtype)

    def reward(self, context: Any, action: tuple[int, ...], executed: bool, observation: Any) -> Any:
        hook = HOOKS.get("reward")
        return hook(context, observation) if hook else (float(observation[0] - context["before"]), {})


def encode(observation: Any) -> Any:
    hook = HOOKS.get("encode")
    return hook(observation) if hook else np.asarray(observation, np.float32)


def create(settings: Any, folder: Any) -> Application:
    parts: dict[str, Any] = {}
    if settings.get("encode"):
        parts["encode"] = encode
    if settings.get("gate"):
        parts.update(build_gate=Gate, gate_components=("size",))
    if settings.get("reward"):
        parts.update(build_reward=Reward, context_dtype=Reward.context_dtype)
    if "failed_reward" in settings:
        value = settings["failed_reward"]
        parts["failed_reward"] = math.nan if value == "NaN" else value
    return Application(
        "hostile", ("hour", "darkness"), (ActionHead("light", 5), ActionHead("door", 3)), Linear, **parts
    )
