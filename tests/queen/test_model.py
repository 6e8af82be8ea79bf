"""The two policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tandem.queen.features import FeatureEncoder
from tandem.queen.gate_config import GateConfig
from tandem.queen.model import MODELS, CandidateModel, SplitHeadModel, build_model
from tandem.shared.application import MASKED

from tests.queen.conftest import build_data


def encode(**given: Any) -> torch.Tensor:
    return torch.from_numpy(FeatureEncoder(GateConfig())(build_data(**given)))[None]


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_documented_sizes() -> None:
    """The split-head model has the documented number of parameters; the other one is not larger."""
    assert size(SplitHeadModel(28, 400)) == 15_217
    assert size(SplitHeadModel(29, 256)) == 10_497
    assert size(CandidateModel(28, 20)) <= 15_217


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("features", "axis"), [(28, 20), (29, 16), (28, 1)])
@pytest.mark.parametrize("rows", [1, 7])
def test_one_tensor_of_logits_per_head(name: str, features: int, axis: int, rows: int) -> None:
    """A model gives finite float32 logits for each head, whatever the batch, and leaves its input alone."""
    model = build_model(name, features, axis)
    inputs = torch.rand(rows, features)
    before = inputs.clone()
    with torch.inference_mode():
        chunk, kind = model(inputs)
        again, _ = model(inputs)
    assert (chunk.shape, kind.shape) == ((rows, axis * axis), (rows, 2))
    assert chunk.dtype == kind.dtype == torch.float32
    assert torch.isfinite(chunk).all()
    assert torch.isfinite(kind).all()
    assert torch.equal(chunk, again)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("queen", "barred"), [(100, []), (20, [1]), (15, [1]), (14, [])])
def test_unaffordable_type_is_masked(name: str, queen: float, barred: list[int]) -> None:
    """A type that cannot be paid for is masked, unless neither can."""
    _, kind = build_model(name, 28, 20)(encode(mining=[4], queen=queen))
    assert [index for index in (0, 1) if kind[0, index] == MASKED] == barred


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name: str) -> None:
    """Gradients reach every parameter and stay finite, also where a type is masked."""
    model = build_model(name, 28, 20)
    inputs = torch.cat([encode(mining=[4, 4, 9], protectors=[9], queen=queen) for queen in (10, 20, 60)])
    chunk, kind = model(inputs)
    loss = torch.log_softmax(chunk, 1)[:, 4].sum() + torch.log_softmax(kind, 1)[:, 0].sum()
    loss.backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label


def test_unknown_model_is_refused() -> None:
    """A model that does not exist is refused by name."""
    with pytest.raises(ValueError, match="deep"):
        build_model("deep", 28, 20)


def test_fresh_policy_tries_chunks_at_and_around_workers() -> None:
    """A fresh candidate model prefers the chunks its features name, then those near them, and excludes none."""
    torch.manual_seed(1)
    chunk, _ = CandidateModel()(encode(mining=[63, 63, 70]))
    probability = torch.softmax(chunk[0], 0)
    named = probability[[63, 70]]
    assert probability[63] > probability[70] > np.delete(probability.detach().numpy(), [63, 70]).max()
    assert named.sum() > 0.2
    assert probability[64] > 10 * probability[399] > 0
    assert (probability > 1e-7).all()


def test_empty_slot_is_not_chunk_zero() -> None:
    """An empty slot weighs nothing at chunk 0, although it has the same id."""
    torch.manual_seed(1)
    far, _ = CandidateModel()(encode(mining=[399]))
    assert far[0, 0] < far[0, 210] < far[0, 399] == far.max()
    there, _ = CandidateModel()(encode(mining=[0]))
    assert there[0, 0] == there.max()
    nobody, _ = CandidateModel()(encode(mining=[]))
    assert torch.allclose(nobody, nobody[0, 0])


@pytest.mark.parametrize("axis", [2, 16, 20, 32, 64])
def test_ids_are_recovered_exactly(axis: int) -> None:
    """Chunk ids survive the trip through their float32 feature."""
    torch.manual_seed(1)
    model = CandidateModel(28, axis)
    chunks = axis * axis
    ids = np.arange(0, chunks, max(1, chunks // 101))
    inputs = torch.zeros(len(ids), 28)
    inputs[:, 0] = torch.from_numpy((ids / (chunks - 1)).astype(np.float32))
    inputs[:, 1] = 1.0
    with torch.inference_mode():
        chunk, _ = model(inputs)
    assert chunk.argmax(dim=1).tolist() == ids.tolist()


def test_candidate_order_does_not_matter() -> None:
    """Shuffling the slots leaves every chunk's logit as it was: what is learned about one slot holds for all."""
    model = CandidateModel()
    inputs = encode(mining=[3, 3, 3, 47, 47, 90], protectors=[47])
    slots = inputs[:, :25].reshape(1, 5, 5)[:, [4, 2, 0, 3, 1]].reshape(1, 25)
    shuffled = torch.cat((slots, inputs[:, 25:]), dim=1)
    for one, other in zip(model(inputs), model(shuffled), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_candidates_learn_from_few_examples() -> None:
    """A few hundred examples suffice to prefer the unguarded chunk, also at places never seen in training."""
    torch.manual_seed(1)
    places = torch.Generator().manual_seed(2)
    model = CandidateModel()
    optimiser = torch.optim.Adam(model.parameters(), 0.01)

    def example() -> tuple[torch.Tensor, int]:
        first, second = torch.randperm(400, generator=places)[:2].tolist()
        return encode(mining=[first, first, second], protectors=[first]), second

    for _ in range(20):
        batch = [example() for _ in range(16)]
        chunk, _ = model(torch.cat([inputs for inputs, _ in batch]))
        loss = torch.nn.functional.cross_entropy(chunk, torch.tensor([best for _, best in batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = 0
    for _ in range(50):
        inputs, best = example()
        right += int(model(inputs)[0].argmax()) == best
    assert right >= 45
