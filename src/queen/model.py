"""The Queen's policies: the documents' network with one split head, and one that scores the chunks its input names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..shared.application import MASKED
from .features import CAPACITY, SLOT_WIDTH, SLOTS

MODELS = ("candidates", "split_head")

_SCORE_LIMIT = 6.0
_FLOOR_AT_START = -2.0
_NEIGHBOURHOOD = 4.0
_SLOT_INPUTS = 11


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

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk logits float32[B, N] and type logits float32[B, 2] for features float32[B, F].

        The type logits are (0, z), so that their softmax is the sigmoid of z.
        """
        hidden = self.trunk(observations)
        combat = self.type_head(hidden)
        types = torch.cat((torch.zeros_like(combat), combat), dim=1)
        return self.chunk_head(hidden), mask_unaffordable(types, observations)


class CandidateModel(nn.Module):
    """Scores the up to five chunks that the features name with one small network shared by all slots.

    What it learns about one slot holds for every slot and every chunk, so that a few examples go a long way:
    the output layer of the other model has to see each of the N chunks pay off first. A slot is described by its
    densities and rates, the workers and protectors in the slots nearby, its place and the global features. The score
    becomes the logit of the slot's chunk; all other chunks share one learned logit, normalised by N so that together
    they start with about the weight of an eighth of a slot. Scores are bounded, so no chunk's probability reaches zero.
    """

    def __init__(self, feature_count: int = 28, chunks_per_axis: int = 20, width: int = 32) -> None:
        super().__init__()
        self.axis = chunks_per_axis
        self.chunks = chunks_per_axis * chunks_per_axis
        context = feature_count - CAPACITY
        self.slot_network = nn.Sequential(
            nn.Linear(_SLOT_INPUTS + context, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.score = nn.Linear(width, 1)
        self.combat = nn.Linear(width + context, 1)
        self.floor = nn.Linear(context, 1)
        _he_initialise(self)
        # Outputs start near zero: a fresh policy tries the named chunks about equally often.
        for layer in (self.score, self.combat, self.floor):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(self.floor.bias, _FLOOR_AT_START)
        self.floor_shift = -float(torch.log(torch.tensor(float(self.chunks))))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk logits float32[B, N] and type logits float32[B, 2] for features float32[B, F]."""
        rows = observations.shape[0]
        slots = observations[:, :CAPACITY].reshape(rows, SLOTS, SLOT_WIDTH)
        context = observations[:, CAPACITY:]
        # An empty slot is all zeros, as is the id of chunk 0: only the worker density tells them apart.
        occupied = slots[:, :, 1] > 0
        ids = (slots[:, :, 0] * (self.chunks - 1)).round().long()
        hidden = self.slot_network(self._describe(slots, ids, occupied, context))
        score = _SCORE_LIMIT * torch.tanh(self.score(hidden).squeeze(-1) / _SCORE_LIMIT)
        floor = _SCORE_LIMIT * torch.tanh(self.floor(context) / _SCORE_LIMIT) + self.floor_shift
        # Empty slots write into a column behind the last chunk, which is cut off again.
        index = torch.where(occupied, ids, self.chunks)
        chunks = floor.expand(rows, self.chunks + 1).scatter(1, index, score)[:, : self.chunks]
        likely = torch.softmax(score.detach().masked_fill(~occupied, MASKED), dim=1).unsqueeze(1)
        combat = self.combat(torch.cat(((likely @ hidden).squeeze(1), context), dim=1))
        types = torch.cat((torch.zeros_like(combat), combat), dim=1)
        return chunks, mask_unaffordable(types, observations)

    def _describe(self, slots: Tensor, ids: Tensor, occupied: Tensor, context: Tensor) -> Tensor:
        """The input of the slot network, float32[B, 5, 11 + F - 25]."""
        places = torch.stack((ids % self.axis, torch.div(ids, self.axis, rounding_mode="floor")), dim=2).float()
        squares = (places.unsqueeze(1) - places.unsqueeze(2)).square().sum(dim=3)
        near = torch.exp(squares * (-0.5 / _NEIGHBOURHOOD**2))
        densities = slots[:, :, 1:3]
        around = near @ densities - densities
        # Densities are small when workers spread out: relative to the busiest slot they keep their contrast.
        relative = slots[:, :, 1:2] / slots[:, :, 1].amax(dim=1).clamp_min(1e-6)[:, None, None]
        middle = places / max(1, self.axis - 1) - 0.5
        parts = (
            slots[:, :, 1:3],
            slots[:, :, 3:5] - 0.5,
            around,
            relative,
            (slots[:, :, 2:3] > 0).float(),
            middle,
            occupied.unsqueeze(2).float(),
            context.unsqueeze(1).expand(-1, SLOTS, -1),
        )
        return torch.cat(parts, dim=2)


def _he_initialise(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
