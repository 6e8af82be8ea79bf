"""Models that score candidates: what a candidate is worth follows from its features, also of one never seen before.

All models of candidates are given one row for each request: the F features of the observation, M times the C features
of a candidate (zeros where there is none), and M times 1 or 0, whether the candidate is there.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..values import MASKED
from ..weights.parameter_arrays import ParameterArrays, method_infer
from .estimates import RewardEstimates, Taken, mean_entropy

WIDTH = 64
"""Units of the hidden layer."""
_MOST_PRODUCTS = 256
"""Products of a request's and a candidate's features are looked at if there are at most so many."""


class Joint:
    """A request's and one candidate's features as one row: [x, c] and, if there are not too many, all x * c."""

    def __init__(self, features: int, most: int, candidate_features: int) -> None:
        self.features = features
        self.most = most
        self.own = candidate_features
        self.has_products = features * candidate_features <= _MOST_PRODUCTS
        self.width = features + candidate_features + (features * candidate_features if self.has_products else 0)

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observations float32[B, F], candidates float32[B, M, C] and mask bool[B, M] of inputs float32[B, ...]."""
        end = self.features + self.most * self.own
        candidates = inputs[:, self.features : end].reshape(-1, self.most, self.own)
        return inputs[:, : self.features], candidates, inputs[:, end:] > 0.5

    def rows(self, observations: Tensor, candidates: Tensor) -> Tensor:
        """Joint features float32[B, N, D] of float32[B, F] and float32[B, N, C]."""
        x = observations[:, None, :].expand(-1, candidates.shape[1], -1)
        parts = [x, candidates]
        if self.has_products:
            parts.append((x[..., :, None] * candidates[..., None, :]).flatten(2))
        return torch.cat(parts, dim=2)

    def taken(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Joint features float32[B, D] of the candidates at these places, int64[B]."""
        observations, candidates, _ = self.parts(inputs)
        chosen = candidates.gather(1, places[:, None, None].expand(-1, 1, self.own))
        return self.rows(observations, chosen).squeeze(1)

    def arrays(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Joint features float32[M, D] and mask bool[M] of one request's inputs, in numpy."""
        x, candidates, mask = self.array_parts(inputs)
        return self.of_arrays(x, candidates), mask

    def array_parts(
        self, inputs: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """`parts` of one request's inputs, in numpy: float32[F], float32[M, C] and bool[M]."""
        end = self.features + self.most * self.own
        candidates = inputs[self.features : end].reshape(self.most, self.own)
        return inputs[: self.features], candidates, inputs[end:] > 0.5

    def of_arrays(self, x: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Joint features float32[N, D] of float32[F] and float32[N, C], in numpy."""
        joint = np.empty((len(candidates), self.width), np.float32)
        joint[:, : self.features] = x
        joint[:, self.features : self.features + self.own] = candidates
        if self.has_products:
            products = x[None, :, None] * candidates[:, None, :]
            joint[:, self.features + self.own :] = products.reshape(len(candidates), -1)
        return joint


class CandidateModel(RewardEstimates):
    """Expected rewards of candidates from joint features, by a network with a linear path past it.

    For the learner it is a model of one choice, whose features are the joint ones. Explored is by inverse gap weighting
    among the candidates that are there.
    """

    def __init__(self, features: int, most: int, candidate_features: int) -> None:
        joint = Joint(features, most, candidate_features)
        super().__init__(joint.width, 1)
        self.joint = joint
        self.hidden = nn.Linear(joint.width, WIDTH)
        self.out = nn.Linear(WIDTH, 1)
        self.direct = nn.Linear(joint.width, 1, bias=False)
        for parameter in (self.out.weight, self.out.bias, self.direct.weight):
            nn.init.zeros_(parameter)
        self._arrays = ParameterArrays(self)

    def network(self, observations: Tensor) -> Tensor:
        """What the network expects of joint features float32[N, D], in deviations from the mean: float32[N, 1]."""
        scaled = self.scaled(observations)
        values: Tensor = self.out(torch.relu(self.hidden(scaled))) + self.direct(scaled)
        return values

    def values(self, observations: Tensor) -> Tensor:
        """Expected rewards of the candidates, float32[B, M] of inputs float32[B, ...]; MASKED of those not there."""
        own, candidates, mask = self.joint.parts(observations)
        rows = self.joint.rows(own, candidates).flatten(0, 1)
        values = self.with_linear(self.network(rows), self.scaled(rows)).reshape(mask.shape)
        return torch.where(mask, values, MASKED)

    def taken(self, batch: Taken) -> tuple[Tensor, Tensor]:
        """See RewardEstimates: the joint features of the candidate that was taken, and the only choice."""
        places = batch.actions[:, 0].long()
        return self.joint.taken(batch.inputs, places), torch.zeros_like(places)

    def entropy(self, network: Tensor, scaled: Tensor, batch: Taken) -> Tensor:
        """See RewardEstimates."""
        return mean_entropy(self.values(batch.inputs), self.gamma)

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32]]:
        """`forward` for one request's inputs, in numpy: (float32[M],)."""
        joint, mask = self.joint.arrays(features)
        if not mask.any():
            return (np.full(len(mask), MASKED, np.float32),)
        # Only those that are there, mostly a few of many.
        values = self.expected(joint[mask])
        if mask.all():
            return (self.explored(values, None),)
        every = np.full(len(mask), MASKED, np.float32)
        every[mask] = values
        return (self.explored(every, ~mask),)

    def expected(self, joint: NDArray[np.float32]) -> NDArray[np.float32]:
        """Expected rewards float32[N] of joint features float32[N, D], in numpy."""
        arrays, buffers = self._arrays(), self._scale()
        scaled = self.scaled_array(joint)
        hidden = scaled @ arrays["hidden.weight"].T
        hidden += arrays["hidden.bias"]
        np.maximum(hidden, 0.0, out=hidden)
        network = hidden @ arrays["out.weight"][0]
        network += arrays["out.bias"]
        network += scaled @ arrays["direct.weight"][0]
        values: NDArray[np.float32] = scaled @ buffers["linear"][0]
        values += buffers["constant"]
        values += buffers["share"] * network
        return values


class CandidateScores(nn.Module):
    """Logits of candidates from joint features, for `policy_gradient`; all alike at first."""

    def __init__(self, features: int, most: int, candidate_features: int) -> None:
        super().__init__()
        self.joint = Joint(features, most, candidate_features)
        self.hidden = nn.Linear(self.joint.width, WIDTH)
        self.out = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """Logits (float32[B, M],) of inputs float32[B, ...]; MASKED of candidates that are not there."""
        own, candidates, mask = self.joint.parts(inputs)
        rows = torch.asinh(self.joint.rows(own, candidates))
        scores = self.out(torch.relu(self.hidden(rows))).squeeze(2)
        return (torch.where(mask, scores, MASKED),)


class CandidateModule(nn.Module):
    """A module of the user's own, `forward(observations [B, F], candidates [B, M, C], mask [B, M])` -> scores [B, M]
    (or a tuple of them), in the form in which all models are given candidates.

    Its method `infer(features [F], candidates [M, C], mask [M])`, if it has one, decides single requests.
    """

    def __init__(self, module: nn.Module, features: int, most: int, candidate_features: int) -> None:
        super().__init__()
        self.module = module
        self.joint = Joint(features, most, candidate_features)
        if method_infer(module) is not None:
            self.infer = self._infer

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """Logits (float32[B, M],) of inputs float32[B, ...]; MASKED of candidates that are not there."""
        own, candidates, mask = self.joint.parts(inputs)
        found = self.module(own, candidates, mask)
        scores: Tensor = found if isinstance(found, Tensor) else found[0]
        return (torch.where(mask, scores, MASKED),)

    def _infer(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32]]:
        x, candidates, mask = self.joint.array_parts(inputs)
        found = self.module.infer(x, candidates, mask)  # type: ignore[operator]
        scores = np.asarray(found[0] if isinstance(found, (tuple, list)) else found)
        return (np.where(mask, scores, np.float32(MASKED)),)
