"""The application's hooks on the decision path: its gate and its reward, called so that neither can break it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared.application import Application, Gate, RewardCalculator, Verdict
from ..shared.errors import ApplicationError
from ..shared.values import all_fit_float32, as_float32_number, as_number, as_text, described, fits_float32

log = logging.getLogger(__name__)

_FLOATS = frozenset({float})
_OPEN = Verdict(send=True, reason="no_gate", expected_reward=0.0)


class ApplicationHooks:
    """Calls gate and reward calculator, if the application has them. `handled(what)` is told of each failure, inside
    the handler of its exception; the decision goes on. `leak` is the share of blocked actions that are let through all
    the same, drawn by `random`. Not thread-safe: the engine holds its lock around every call.
    """

    def __init__(
        self,
        application: Application,
        handled: Callable[[str], None],
        leak: float = 0.0,
        random: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.gate: Gate | None = application.build_gate() if application.build_gate else None
        self.rewards: RewardCalculator | None = application.build_reward() if application.build_reward else None
        self._component_names = application.gate_components
        self._held_back = Verdict(False, "gate_error", -math.inf, (0.0,) * len(application.gate_components))
        self._context_dtype = application.context_dtype
        self.failed_reward = failed_reward(application)
        self._handled = handled
        self._leak = leak
        self._random = random

    def evaluate(self, observation: Any, action: tuple[int, ...], key: Hashable, version: int) -> Verdict:
        """The gate's verdict; everything is sent without a gate, and held back by one that raises or says nonsense."""
        if self.gate is None:
            return _OPEN
        try:
            verdict = self._checked(self.gate.evaluate(observation, action, key, version))
        except Exception:
            self._handled("the gate failed; the action is held back")
            return self._held_back
        if self._leak and not verdict.send and math.isfinite(verdict.expected_reward) and self._random() < self._leak:
            log.info("version %d: key %r: a blocked action is let through to evaluate the gate", version, key)
            return dataclasses.replace(verdict, send=True, reason="gate_leak")
        return verdict

    def _checked(self, verdict: Verdict) -> Verdict:
        """The verdict in plain numbers. Raises ValueError naming what is none, or not finite as float32."""
        components, expected = verdict.components, verdict.expected_reward
        if (
            type(verdict.send) is bool
            and type(expected) is float
            and (fits_float32(expected) or expected == -math.inf)
            and type(components) is tuple
            and len(components) in (0, len(self._component_names))
            and _FLOATS.issuperset(map(type, components))
            and all_fit_float32(components)
            and type(verdict.reason) is str
        ):
            return verdict
        if not isinstance(verdict.send, (bool, np.bool_)):
            raise ValueError(f"send: {described(verdict.send)}; it must be a bool")
        expected = as_number("expected_reward", expected)
        if expected != -math.inf:
            expected = as_float32_number("expected_reward", verdict.expected_reward)
        numbers = tuple(components)
        if len(numbers) not in (0, len(self._component_names)):
            raise ValueError(f"components: {len(numbers)} numbers, not one for each of {self._component_names}")
        return Verdict(
            bool(verdict.send),
            as_text("reason", verdict.reason),
            expected,
            tuple(as_float32_number(f"component {number}", value) for number, value in enumerate(numbers)),
        )

    def context(self, observation: Any) -> NDArray[Any] | None:
        """What the reward of a decision on this observation will be computed from, in memory of its own.

        Raises ValueError if the application raises or gives something else.
        """
        if self.rewards is None:
            return None
        try:
            context, wanted = np.asarray(self.rewards.context(observation)), self._context_dtype
        except Exception as error:
            raise ValueError(f"context: {error!r}") from error
        if context.shape != () or not (context.dtype == wanted or np.can_cast(context.dtype, wanted, "same_kind")):
            raise ValueError(f"context: is {context.dtype} {context.shape}; it must be one {wanted}")
        return context.astype(wanted)

    def reward(
        self, context: NDArray[Any], action: tuple[int, ...], executed: bool, observation: Any
    ) -> tuple[float, dict[str, float]] | None:
        """The reward of an earlier decision and its components; None if it cannot be computed or is not finite."""
        if self.rewards is None:
            return None
        try:
            value, components = self.rewards.reward(context, action, executed, observation)
            return (
                as_float32_number("reward", value),
                {name: as_number(name, number) for name, number in components.items()},
            )
        except Exception:
            self._handled("the reward of a decision could not be computed")
            return None

    def sent(self, key: Hashable, action: tuple[int, ...]) -> None:
        """The action was let through."""
        self._tell("sent", key, action)

    def failed(self, key: Hashable, action: tuple[int, ...]) -> None:
        """The action that was sent last could not be executed."""
        self._tell("failed", key, action)

    def rewarded(self, reward: float) -> None:
        """A reward came in."""
        self._tell("rewarded", reward)

    def forget(self, key: Hashable) -> None:
        """The key will not come back."""
        self._tell("forget", key)

    def clear(self) -> None:
        """The instance was reset."""
        self._tell("clear")

    def _tell(self, what: str, *arguments: Any) -> None:
        if self.gate is None:
            return
        try:
            getattr(self.gate, what)(*arguments)
        except Exception:
            self._handled(f"the gate's bookkeeping failed ({what})")


def failed_reward(application: Application) -> float:
    """What an action earns that the client could not execute. Raises ApplicationError if that is no finite number."""
    try:
        return as_float32_number("failed_reward", application.failed_reward)
    except ValueError as error:
        raise ApplicationError(f"application {application.name}: {error}") from None
