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


def test_candidates_are_the_chunks_named() -> None:
    """A fresh candidate model gives most of its probability to the chunks its features name, some to every other."""
    torch.manual_seed(1)
    chunk, _ = CandidateModel()(encode(mining=[0, 0, 47, 399]))
    probability = torch.softmax(chunk[0], 0)
    assert probability[[0, 47, 399]].sum() > 0.8
    assert (probability > 1e-6).all()
    others = np.delete(probability.detach().numpy(), [0, 47, 399])
    assert others.max() == pytest.approx(others.min())


def test_empty_slot_is_not_chunk_zero() -> None:
    """Chunk 0 is a candidate only if workers mine there, although an empty slot has the same id."""
    torch.manual_seed(1)
    without, _ = CandidateModel()(encode(mining=[47]))
    assert without[0, 0] == without[0, 1] < without[0, 47]
    nobody, _ = CandidateModel()(encode(mining=[]))
    assert (nobody == nobody[0, 0]).all()


@pytest.mark.parametrize("axis", [2, 16, 20, 32, 64])
def test_ids_are_recovered_exactly(axis: int) -> None:
    """Every chunk id survives the trip through its float32 feature."""
    model = CandidateModel(28, axis)
    chunks = axis * axis
    inputs = torch.zeros(chunks, 28)
    inputs[:, 0] = torch.from_numpy((np.arange(chunks) / (chunks - 1)).astype(np.float32))
    inputs[:, 1] = 1.0
    chunk, _ = model(inputs)
    assert torch.equal(chunk.argmax(dim=1), torch.arange(chunks))


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
