"""The Queen's policies: the documents' network with one split head, and one that spreads its input over the grid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..shared.application import MASKED
from ..shared.weights.parameter_arrays import ParameterArrays
from .features import CAPACITY, SLOT_WIDTH, SLOTS
from .observation import COMBAT, ENERGY

MODELS = ("candidates", "split_head")

_SCORE_LIMIT = 6.0
_BLURS = (0.2, 1.5, 3.5, 7.0)
_FIELDS = 3
_WIDE_SHARE = 0.03
_UNIFORM_SHARE = 1e-4
_MOST_SPREAD = 625
"""Up to so many chunks what each spreads over the grid is kept (16 bytes for each pair of chunks: 2.6 MB for 400)."""


def build_model(name: str, feature_count: int, chunks_per_axis: int) -> nn.Module:
    """The model of that name (`candidates` or `split_head`); raises ValueError for any other."""
    if name == "split_head":
        return SplitHeadModel(feature_count, chunks_per_axis * chunks_per_axis)
    if name == "candidates":
        return CandidateModel(feature_count, chunks_per_axis)
    raise ValueError(f"model: {name!r} is not one of {', '.join(MODELS)}")


def mask_unaffordable(logits: Tensor, observations: Tensor) -> Tensor:
    """Type logits [B, 2] with the types masked that the queen cannot pay for, unless she can pay for neither.

    A capacity feature is positive exactly when one parasite of the type is affordable.
    """
    affordable = observations[:, CAPACITY : CAPACITY + 2] > 0
    barred = ~affordable & affordable.any(dim=1, keepdim=True)
    return logits.masked_fill(barred, MASKED)


def _types_of_one(combat: float, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Masked type logits float32[2] of one observation float32[F]."""
    types = np.array((0.0, combat), np.float32)
    energy_affordable, combat_affordable = features[CAPACITY] > 0, features[CAPACITY + 1] > 0
    if energy_affordable != combat_affordable:
        types[COMBAT if energy_affordable else ENERGY] = MASKED
    return types


class SplitHeadModel(nn.Module):
    """F -> 32 -> 16, then 16 -> 32 -> N chunk logits and 16 -> 1, the logit of a combat parasite.

    15 217 parameters for 28 features and 400 chunks. He initialisation.
    """

    def __init__(self, feature_count: int = 28, chunks: int = 400) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(feature_count, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.chunk_head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, chunks))
        self.type_head = nn.Linear(16, 1)
        _he_initialise(self)
        self._arrays = ParameterArrays(self)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk logits float32[B, N] and type logits float32[B, 2] for features float32[B, F].

        The type logits are (0, z), so that their softmax is the sigmoid of z.
        """
        hidden = self.trunk(observations)
        combat = self.type_head(hidden)
        types = torch.cat((torch.zeros_like(combat), combat), dim=1)
        return self.chunk_head(hidden), mask_unaffordable(types, observations)

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`forward` for one observation float32[F], in numpy: chunk logits float32[N] and type logits float32[2]."""
        arrays = self._arrays()

        def layer(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
            result: NDArray[np.float32] = arrays[f"{name}.weight"] @ values
            result += arrays[f"{name}.bias"]
            return result

        hidden = features
        for name in ("trunk.0", "trunk.2"):
            hidden = layer(name, hidden)
            np.maximum(hidden, 0.0, out=hidden)
        wide = layer("chunk_head.0", hidden)
        np.maximum(wide, 0.0, out=wide)
        return layer("chunk_head.2", wide), _types_of_one(float(layer("type_head", hidden)[0]), features)


class CandidateModel(nn.Module):
    """Scores every chunk by what the named slots put near it, with one small network shared by all chunks.

    The up to five slots are spread over the grid as fields: workers, protectors and parasite growth, each at the spot
    itself and blurred over 1.5, 3.5 and 7 chunks. What the network learns about one place therefore holds for every
    place, so that a few examples go a long way; the output layer of the other model has to see each of the N chunks
    pay off first. The score is added to the logarithm of a fixed prior, the worker field with a little of its wide blur
    and a trace of uniform: a fresh policy tries chunks at and around workers, and as scores are bounded every chunk
    keeps some probability.
    """

    kernel: Tensor
    remoteness: Tensor

    def __init__(self, feature_count: int = 28, chunks_per_axis: int = 20, width: int = 16) -> None:
        super().__init__()
        self.axis = chunks_per_axis
        self.chunks = chunks_per_axis * chunks_per_axis
        context = feature_count - CAPACITY
        steps = torch.arange(chunks_per_axis, dtype=torch.float32)
        squares = (steps[:, None] - steps[None, :]).square()
        kernel = torch.stack([torch.exp(-squares / (2 * blur * blur)) for blur in _BLURS], dim=1)
        # Tails so small would multiply to denormal numbers, which are ten times slower.
        self.register_buffer("kernel", torch.where(kernel < 1e-6, 0.0, kernel), persistent=False)
        middle = (chunks_per_axis - 1) / 2
        offsets = (steps - middle).square()
        centre = (offsets[:, None] + offsets[None, :]).sqrt() / max(1.0, middle)
        self.register_buffer("remoteness", centre.reshape(self.chunks), persistent=False)
        self.fields = nn.Linear(_FIELDS * len(_BLURS), width, bias=False)
        self.context = nn.Linear(context, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.remote = nn.Parameter(torch.zeros(1))
        self.combat = nn.Linear(width + context, 1)
        _he_initialise(self)
        # Outputs start near zero, so that a fresh policy follows the prior.
        for layer in (self.score, self.combat):
            nn.init.normal_(layer.weight, std=0.01)
        self._arrays = ParameterArrays(self)
        self._kernel, self._remoteness = self.kernel.numpy(), self.remoteness.numpy()
        self._spread: NDArray[np.float32] | None = None
        if self.chunks <= _MOST_SPREAD:
            self._spread = self._spots(list(range(self.chunks)))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk logits float32[B, N] and type logits float32[B, 2] for features float32[B, F]."""
        context = observations[:, CAPACITY:]
        fields = self._fields(observations)
        prior = torch.log(fields[:, 0] + _WIDE_SHARE * fields[:, 2] + _UNIFORM_SHARE)
        weight = self.fields.weight.expand(observations.shape[0], -1, -1)
        hidden = torch.relu(torch.baddbmm(self.context(context).unsqueeze(2), weight, fields))
        score = torch.matmul(self.score.weight, hidden).squeeze(1) + self.remote * self.remoteness
        chunks = prior + _SCORE_LIMIT * torch.tanh(score / _SCORE_LIMIT)
        likely = torch.softmax(chunks.detach(), dim=1).unsqueeze(2)
        combat = self.combat(torch.cat(((hidden @ likely).squeeze(2), context), dim=1))
        types = torch.cat((torch.zeros_like(combat), combat), dim=1)
        return chunks, mask_unaffordable(types, observations)

    def _fields(self, observations: Tensor) -> Tensor:
        """Worker, protector and parasite fields at every blur, float32[B, 3 * blurs, N], workers first."""
        rows = observations.shape[0]
        slots = observations[:, :CAPACITY].reshape(rows, SLOTS, SLOT_WIDTH)
        ids = (slots[:, :, 0] * (self.chunks - 1)).round().long()
        # An empty slot is all zeros, as is the id of chunk 0: without workers it weighs nothing.
        occupied = (slots[:, :, 1:2] > 0).float()
        growth = slots[:, :, 3:5].sum(dim=2, keepdim=True) - 1.0
        weights = torch.cat((slots[:, :, 1:3], growth), dim=2) * occupied
        # A Gaussian over the grid is the product of one along each axis.
        across = self.kernel[ids % self.axis]
        along = self.kernel[torch.div(ids, self.axis, rounding_mode="floor")]
        # [B, blurs, fields * axis, slots] @ [B, blurs, slots, axis]
        weighted = along.permute(0, 2, 3, 1).unsqueeze(2) * weights.permute(0, 2, 1)[:, None, :, None, :]
        spread = weighted.reshape(rows, len(_BLURS), _FIELDS * self.axis, SLOTS) @ across.permute(0, 2, 1, 3)
        by_blur = spread.reshape(rows, len(_BLURS), _FIELDS, self.chunks)
        return by_blur.transpose(1, 2).reshape(rows, _FIELDS * len(_BLURS), self.chunks)

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`forward` for one observation float32[F], in numpy: chunk logits float32[N] and type logits float32[2].

        Most of `forward` for one row is torch's overhead for each of its operations; this takes a fifth of the time.
        """
        arrays = self._arrays()
        context = features[CAPACITY:]
        hidden, prior = self._scored_spots(features, arrays["fields.weight"])
        hidden += (arrays["context.weight"] @ context + arrays["context.bias"])[:, np.newaxis]
        np.maximum(hidden, 0.0, out=hidden)
        score = arrays["score.weight"][0] @ hidden
        score += arrays["remote"] * self._remoteness
        score /= _SCORE_LIMIT
        np.tanh(score, out=score)
        score *= _SCORE_LIMIT
        prior += _UNIFORM_SHARE
        chunks = np.log(prior, out=prior)
        chunks += score
        likely = np.exp(chunks - chunks.max())
        mixed = hidden @ likely
        mixed /= likely.sum()
        combat = arrays["combat.weight"][0] @ np.concatenate((mixed, context)) + arrays["combat.bias"][0]
        return chunks, _types_of_one(float(combat), features)

    def _scored_spots(
        self, features: NDArray[np.float32], weight: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`weight` float32[width, 3 * blurs] times the fields of one observation, and the worker fields of the prior.

        float32[width, N] and float32[N]. The fields are never made: they are sums over the slots, of as many numbers
        as the slots have, times what a slot at that place spreads over the grid.
        """
        values = features.tolist()
        places, weights = [], []
        for base in range(0, CAPACITY, SLOT_WIDTH):
            place, workers, protectors, energy, combat = values[base : base + SLOT_WIDTH]
            if workers > 0:
                places.append(round(place * (self.chunks - 1)))
                weights.append((workers, protectors, energy + combat - 1.0))
        if not weights:
            return np.zeros((len(weight), self.chunks), np.float32), np.zeros(self.chunks, np.float32)
        spots = self._spots(places)
        slots = np.array(weights, np.float32)
        # [slots, fields] @ [width, fields, blurs]
        shares = np.matmul(slots, weight.reshape(-1, _FIELDS, len(_BLURS)))
        hidden = shares.reshape(len(weight), -1) @ spots.reshape(-1, self.chunks)
        prior = slots[:, 0] @ (spots[:, 0] + _WIDE_SHARE * spots[:, 2])
        return hidden, prior

    def _spots(self, places: list[int]) -> NDArray[np.float32]:
        """What one at each of these chunks spreads over the grid at every blur: float32[n, blurs, N]."""
        if self._spread is not None:
            return self._spread[places]
        rows, columns = np.divmod(np.array(places), self.axis)
        spots: NDArray[np.float32] = self._kernel[rows][..., np.newaxis] * self._kernel[columns][:, :, np.newaxis]
        return spots.reshape(len(places), len(_BLURS), self.chunks)


def _he_initialise(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
