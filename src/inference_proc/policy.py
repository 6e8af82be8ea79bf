"""The policy: a forward pass, an action drawn from it, and the exact probability with which it was drawn."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.actions.heads import GaussianHead, gaussian_head
from ..shared.actions.number import draw_number
from ..shared.actions.offer import Offer
from ..shared.application import MASKED, ActionHead
from ..shared.configuration.config import InferenceConfig
from ..shared.models.estimates import RewardEstimates
from ..shared.values import FLOAT32_TINY
from ..shared.weights.parameter_arrays import method_infer

_FEW = 8
"""Up to so many choices plain arithmetic is faster than arrays."""
_NOT_NUMBERS = "the policy's logits are not numbers"


@dataclass(frozen=True, slots=True)
class Draw:
    """An action (one choice for each head), the probability of each choice, and that of all together.

    The product of many may be 0 as a float64, and is sooner as a float32: `log_probability` (nats) is exact.
    """

    action: tuple[int, ...]
    head_probabilities: tuple[float, ...]
    probability: float

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the probability of the whole action."""
        return log_probability(self.head_probabilities)

    @property
    def storable(self) -> Draw:
        """This draw with a probability that is above 0 as a float32 too."""
        if self.probability >= FLOAT32_TINY:
            return self
        return Draw(self.action, self.head_probabilities, FLOAT32_TINY)


Masks = Sequence[NDArray[np.bool_]]
"""Of each head which choices are allowed, bool[size]."""


class Asked(Protocol):
    """A request, as far as it says what is allowed; None: everything."""

    offer: Offer | None


def _masks(asked: Asked) -> Masks | None:
    return None if asked.offer is None else asked.offer.masks


def among(heads: Sequence[NDArray[np.float32]], masks: Masks | None) -> Sequence[NDArray[np.float32]]:
    """The heads' logits float32[size], MASKED where a choice is not allowed."""
    if masks is None:
        return heads
    return [np.where(mask, logits, np.float32(MASKED)) for mask, logits in zip(masks, heads, strict=True)]


def log_probability(head_probabilities: Sequence[float]) -> float:
    """Natural logarithm of the product of what the heads' choices were drawn with."""
    return math.fsum(math.log(max(probability, sys.float_info.min)) for probability in head_probabilities)


class Policy:
    """Draws actions from a model's logits.

    With logits z, temperature T and floor f a choice has the probability (1 - f) * softmax(z / T) + f / (allowed
    choices); masked choices have 0.

    If the model has a method `infer` (see `shared.application.Application`) single observations go to it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        temperature: float = 1.0,
        floor: float = 0.0,
        seed: int | list[int] | None = None,
        head_names: Sequence[str] = (),
    ) -> None:
        self.model = model.eval()
        self._infer = method_infer(model)
        self._takes_allowed = isinstance(model, RewardEstimates)
        self._infer_takes_allowed = self._infer is not None and "allowed" in inspect.signature(self._infer).parameters
        self._head_names = tuple(head_names)
        self._number: GaussianHead | None = None
        self.temperature = temperature
        self.floor = floor
        self.rng = np.random.default_rng(seed)

    @classmethod
    def configured(
        cls, model: torch.nn.Module, settings: InferenceConfig, heads: Sequence[ActionHead], lane: int = 0
    ) -> Policy:
        """The policy of a model for these action heads, with the settings of an instance.

        Each lane draws numbers of its own, also from a fixed seed: several server processes are not to explore alike.
        """
        seed = None if settings.seed < 0 else [settings.seed, lane] if lane else settings.seed
        names = [head.name for head in heads]
        policy = cls(model, settings.temperature, settings.exploration_floor, seed, names)
        policy._number = gaussian_head(heads)
        return policy

    def act(self, features: NDArray[np.float32], asked: Sequence[Asked] = ()) -> Draw:
        """Draw an action for one observation, float32[F]. Raises what `act_many` gives in its place."""
        draw = self.act_many(features[np.newaxis], asked)[0]
        if isinstance(draw, Exception):
            raise draw
        return draw

    def act_many(self, features: NDArray[np.float32], asked: Sequence[Asked] = ()) -> list[Draw | Exception]:
        """Draw an action for each observation of float32[B, F], in one forward pass; `asked` says what is allowed.

        One for which the model raises or gives no distribution gets its exception in its place (FloatingPointError if
        the logits are not numbers or every choice is masked). It is tried once more alone, as are all of a batch that
        the model raises for: what is wrong with one must not fail another. The model may write into `features`.
        """
        if len(features) == 1:
            return [self._act_alone(features, _masks(asked[0]) if asked else None)]
        kept = features.copy()
        masks = [_masks(turn) for turn in asked] or [None] * len(features)
        try:
            logits = self._forward(features, self._joint_mask(masks))
            draws: list[Draw | None] = [
                self._try_draw(among([head[row] for head in logits], masks[row])) for row in range(len(features))
            ]
        except Exception:
            draws = [None] * len(features)
        return [
            self._act_alone(kept[row : row + 1], masks[row]) if draw is None else draw for row, draw in enumerate(draws)
        ]

    def _joint_mask(self, masks: Sequence[Masks | None]) -> torch.Tensor | None:
        """For a model that takes what is allowed, bool[B, K] of its one head; None if everything is."""
        if not self._takes_allowed:
            return None
        known = next((given[0] for given in masks if given is not None), None)
        if known is None:
            return None
        everything = np.ones_like(known)
        return torch.from_numpy(np.stack([everything if given is None else given[0] for given in masks]))

    def _act_among(self, features: NDArray[np.float32], masks: Masks) -> Draw:
        """Draw for one observation, float32[1, F], among what is allowed. Raises ValueError if the model masks that."""
        if self._infer is None or (self._takes_allowed and not self._infer_takes_allowed):
            heads: Sequence[Any] = [head[0] for head in self._forward(features, self._joint_mask([masks]))]
        elif self._takes_allowed:
            heads = self._infer(features[0], masks[0])  # type: ignore[call-arg]
        else:
            heads = self._infer(features[0])
        heads = among(heads, masks)
        for index, logits in enumerate(heads):
            if np.max(logits) <= MASKED / 2:
                raise ValueError(f"allowed: the model masks every choice of head {self._head_name(index)} that is")
        return self._draw(heads)

    def _act_alone(self, features: NDArray[np.float32], masks: Masks | None = None) -> Draw | Exception:
        """`act_many` for one observation, float32[1, F]."""
        try:
            if masks is not None:
                return self._act_among(features, masks)
            if self._infer is not None:
                return self._draw(self._infer(features[0]))
            return self._draw([head[0] for head in self._forward(features)])
        except Exception as error:
            return error

    def _forward(self, features: NDArray[np.float32], allowed: torch.Tensor | None = None) -> list[NDArray[np.float32]]:
        model = self.model
        if model.training:
            # Whoever was given the model left it so: batch statistics and dropout are for training.
            model.eval()
        # Not torch.inference_mode: an exception that arrives while that mode is entered leaves it to the garbage
        # collector to end it, in the middle of a later pass.
        was_enabled = torch.is_grad_enabled()
        try:
            torch.set_grad_enabled(False)
            rows = torch.from_numpy(features)
            return [logits.detach().numpy() for logits in (model(rows) if allowed is None else model(rows, allowed))]
        finally:
            try:
                torch.set_grad_enabled(was_enabled)
            finally:
                # Again, as an exception may have arrived in the line above: the mode is that of the host's thread.
                torch.set_grad_enabled(was_enabled)

    def _try_draw(self, heads: Sequence[NDArray[np.float32]]) -> Draw | None:
        try:
            return self._draw(heads)
        except FloatingPointError:
            return None

    def _draw(self, heads: Sequence[NDArray[np.float32]]) -> Draw:
        if self._number is not None:
            mean, deviation = heads[0].tolist()
            number, density = draw_number(
                self._number, (mean, deviation), self.rng.random, self.temperature, self.floor
            )
            return Draw((number,), (density,), density)  # type: ignore[arg-type]
        action: list[int] = []
        probabilities, joint = [], 1.0
        try:
            for logits in heads:
                if self.floor:
                    choice, probability = self._choose(self.distribution(logits))
                elif len(logits) <= _FEW:
                    choice, probability = self._choose_of_few(logits.tolist())
                else:
                    choice, probability = self._choose(self._weights(logits))
                action.append(choice)
                probabilities.append(probability)
                joint *= probability
        except FloatingPointError as error:
            raise FloatingPointError(f"head {self._head_name(len(action))}: {error}") from None
        return Draw(tuple(action), tuple(probabilities), joint)

    def _head_name(self, index: int) -> str:
        return repr(self._head_names[index]) if index < len(self._head_names) else str(index)

    def distribution(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities float64[n] of one head's choices from its logits float32[n]."""
        weights = self._weights(logits)
        weights /= weights.sum()
        if self.floor:
            allowed = ~(logits <= MASKED / 2)
            weights = (1.0 - self.floor) * weights + allowed * (self.floor / np.count_nonzero(allowed))
        return weights

    def _weights(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The softmax of the logits but for its denominator."""
        weights = logits.astype(np.float64)
        weights -= _usable(float(weights.max()))
        if self.temperature != 1.0:
            weights /= self.temperature
        return np.exp(weights, out=weights)

    def _choose(self, weights: NDArray[np.float64]) -> tuple[int, float]:
        """A choice drawn in proportion to its weight, and its probability."""
        cumulative = weights.cumsum()
        total = float(cumulative[-1])
        # Scaled by the sum, so that rounding never picks a choice of probability 0 at the end.
        choice = int(cumulative.searchsorted(self.rng.random() * total, side="right"))
        if choice == len(weights):
            choice = _last_possible(weights.tolist(), total)
        return choice, float(weights[choice]) / total

    def _choose_of_few(self, logits: list[float]) -> tuple[int, float]:
        """`_choose` of the softmax, without arrays."""
        most = _usable(max(logits))
        weights = [math.exp((logit - most) / self.temperature) for logit in logits]
        total = sum(weights)
        left = self.rng.random() * total
        for choice, weight in enumerate(weights):
            if left < weight:
                return choice, weight / total
            left -= weight
        choice = _last_possible(weights, total)
        return choice, weights[choice] / total


def _usable(most: float) -> float:
    """The largest logit of a head, if it can be drawn by. (A NaN that Python's `max` passes over shows in the sum.)"""
    if MASKED / 2 < most < math.inf:
        return most
    raise FloatingPointError("every choice is masked" if most <= MASKED / 2 else _NOT_NUMBERS)


def _last_possible(weights: list[float], total: float) -> int:
    """The last choice with a weight: where rounding may lead past the end."""
    if not total > 0.0:
        raise FloatingPointError(_NOT_NUMBERS)
    return max(choice for choice, weight in enumerate(weights) if weight > 0.0)
