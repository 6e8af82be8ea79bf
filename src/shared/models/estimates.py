"""What every model of expected rewards has: scaling of its inputs, and exploration by inverse gap weighting."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..values import MASKED
from ..weights.parameter_arrays import ParameterArrays

FARTHEST = 8.0
"""Scaled features are cut off here, in deviations."""
_LEAST = 1e-30
"""Probabilities of choices that may be taken are at least this before the logarithm is taken."""


class Taken(Protocol):
    """Of a batch what tells which of its choices were taken (see `shared.learning.Batch`)."""

    @property
    def observations(self) -> Tensor: ...

    @property
    def actions(self) -> Tensor: ...

    @property
    def allowed(self) -> Tensor | None: ...

    @property
    def values(self) -> Tensor | None: ...

    @property
    def inputs(self) -> Tensor: ...


class RewardEstimates(nn.Module):
    """Expected rewards of one head's choices, and the probabilities with which they are drawn.

    A subclass is a network that says what each of K choices is expected to earn (`network`), in deviations of the
    rewards from their mean; a choice that must not be taken has MASKED or less. What counts (`values`) is `share`
    (float32[1]) of that and a linear function of the scaled features, `linear` (float32[K, F]) and `constant`
    (float32[K]), which the learner finds in closed form. `forward` gives the logarithms of the probabilities of inverse
    gap weighting with `gamma` (float32[1]): a choice whose expected reward lies d below the best one's has
    1 / (K + gamma d), the best one the rest (SquareCB: Foster and Rakhlin, "Beyond UCB", ICML 2020). So what draws from
    the logits as from any others draws exactly by this rule, and every choice that may be taken keeps a probability
    above 0. Features are scaled by `centre` and `inverse` (float32[F]). The buffers are learned from the data and
    published with the weights.

    `logits_array` is the same for one observation in numpy, for a subclass that offers `infer`.
    """

    def __init__(self, features: int, choices: int) -> None:
        super().__init__()
        self.centre: Tensor
        self.inverse: Tensor
        self.gamma: Tensor
        self.linear: Tensor
        self.constant: Tensor
        self.share: Tensor
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("inverse", torch.ones(features))
        self.register_buffer("gamma", torch.zeros(1))
        self.register_buffer("linear", torch.zeros(choices, features))
        self.register_buffer("constant", torch.zeros(choices))
        self.register_buffer("share", torch.ones(1))
        self._scale = ParameterArrays(self, buffers=True)

    def network(self, observations: Tensor) -> Tensor:
        """What the network expects of the choices, in deviations from the mean: float32[B, K] of float32[B, F]."""
        raise NotImplementedError

    def values(self, observations: Tensor) -> Tensor:
        """Expected rewards of the choices, in deviations from the mean: float32[B, K] of float32[B, F]."""
        # Scaled first: the network may write into what it is given.
        scaled = self.scaled(observations)
        return self.with_linear(self.network(observations), scaled)

    def with_linear(self, network: Tensor, scaled: Tensor) -> Tensor:
        """`values` from what the network expects, float32[B, K], and the scaled features float32[B, F]."""
        joint = self.share * network + nn.functional.linear(scaled, self.linear, self.constant)
        return torch.where(network <= MASKED / 2, network, joint)

    def taken(self, batch: Taken) -> tuple[Tensor, Tensor]:
        """What `network` is to be shown of experiences, float32[B, F], and which of its choices was taken, int64[B]."""
        return batch.observations, batch.actions[:, 0].long()

    def entropy(self, network: Tensor, scaled: Tensor, batch: Taken) -> Tensor:
        """Mean entropy (nats) of the policy in the situations of a batch, from what the network expects, float32[B, K],
        and the scaled features float32[B, F]: float32[].
        """
        values = self.with_linear(network, scaled)
        return mean_entropy(values if batch.allowed is None else torch.where(batch.allowed, values, MASKED), self.gamma)

    def forward(self, observations: Tensor, allowed: Tensor | None = None) -> tuple[Tensor]:
        """Log probabilities of the choices, (float32[B, K],); MASKED for those that must not be taken.

        `allowed` (bool[B, K]): among which to choose; None: among all.
        """
        values = self.values(observations)
        if allowed is not None:
            values = torch.where(allowed, values, MASKED)
        logits = torch.log(inverse_gap_weights(values, self.gamma).clamp_min(_LEAST))
        return (torch.where(values <= MASKED / 2, MASKED, logits),)

    def scaled(self, observations: Tensor) -> Tensor:
        """Features in deviations from their mean, float32[B, F]."""
        return in_deviations(observations, self.centre, self.inverse)

    def scaled_array(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """`scaled` for one observation float32[F], in numpy."""
        scale = self._scale()
        far = (features.astype(np.float64) - scale["centre"]) * scale["inverse"]
        scaled: NDArray[np.float32] = far.clip(-FARTHEST, FARTHEST).astype(np.float32)
        return scaled

    def logits_array(
        self, network: NDArray[np.float32], scaled: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """`forward` of one observation, in numpy, from what the network expects, float32[K], and the scaled features
        float32[F]: float32[K]. `allowed` (bool[K]): among which to choose; None: among all.
        """
        arrays = self._scale()
        if allowed is not None:
            network = np.where(allowed, network, np.float32(MASKED))
        masked = network <= MASKED / 2 if network.min() <= MASKED / 2 else None
        values = arrays["linear"] @ scaled
        values += arrays["constant"]
        values += arrays["share"] * network
        return self.explored(values, masked)

    def explored(self, values: NDArray[np.float32], masked: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Log probabilities float32[K] of choices of these expected rewards float32[K], in numpy; `masked` ones
        (bool[K]) must not be taken.
        """
        if masked is not None:
            values[masked] = MASKED
        best = int(values.argmax())
        gamma = max(float(self._scale()["gamma"][0]), 0.0)
        count = len(values) if masked is None else len(values) - int(np.count_nonzero(masked))
        weights = 1.0 / (count + gamma * (values[best] - values))
        if masked is not None:
            weights[masked] = 0.0
        weights[best] = 0.0
        weights[best] = 1.0 - weights.sum()
        logits: NDArray[np.float32] = np.log(np.maximum(weights, _LEAST)).astype(np.float32)
        if masked is not None:
            logits[masked] = MASKED
        return logits


def mean_entropy(values: Tensor, gamma: Tensor) -> Tensor:
    """Mean entropy (nats) of inverse gap weighting for expected rewards float32[B, K]: float32[]."""
    weights = inverse_gap_weights(values, gamma)
    return -(weights * weights.clamp_min(_LEAST).log()).sum(dim=1).mean()


def in_deviations(observations: Tensor, centre: Tensor, inverse: Tensor) -> Tensor:
    """Features float[B, F] less `centre` and times `inverse` (float[F]), cut off at FARTHEST."""
    # Of numbers near the largest the difference may be infinite, and 0 of infinity is no number.
    scaled = ((observations - centre) * inverse).nan_to_num(0.0, FARTHEST, -FARTHEST)
    return scaled.clamp(-FARTHEST, FARTHEST)


def inverse_gap_weights(values: Tensor, gamma: Tensor) -> Tensor:
    """The probabilities of RewardEstimates, float32[B, K], from expected rewards float32[B, K] and gamma float32[1]."""
    # Turned round, as NaN is no mask: what is no number must come out as none.
    allowed = ~(values <= MASKED / 2)
    best, index = values.max(dim=1, keepdim=True)
    others = allowed / (allowed.sum(dim=1, keepdim=True) + gamma.clamp_min(0.0) * (best - values))
    others = others.scatter(1, index, 0.0)
    return others.scatter(1, index, 1.0 - others.sum(dim=1, keepdim=True))
