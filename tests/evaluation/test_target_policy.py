"""The policy of a checkpoint: the probabilities are those that a server draws with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.target_policy import FixedPolicy, ModelPolicy, distributions, joint_probabilities
from tandem.inference_proc.policy import Policy
from tandem.shared.application import MASKED
from tandem.shared.configuration.config import Config, parse
from tandem.shared.errors import CheckpointError
from tandem.shared.instance import configured_application, seeded_model
from tandem.shared.learning import meaning_of
from tandem.shared.models.logits_model import LogitsModel
from tandem.shared.models.reward_model import RewardModel
from tandem.shared.weights.checkpoints import CheckpointStore
from tandem.shared.weights.flat_model import FlatModel


@pytest.mark.parametrize(("temperature", "floor"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.1)])
def test_the_probabilities_are_those_that_are_recorded(temperature: float, floor: float) -> None:
    """Each row agrees with the distribution that a server's policy draws from, masked choices included."""
    logits = np.random.default_rng(1).normal(size=(50, 12)).astype(np.float32)
    logits[::3, 4] = MASKED
    found = distributions(logits, temperature, floor)
    policy = Policy(torch.nn.Identity(), temperature, floor)
    assert found == pytest.approx(np.stack([policy.distribution(row) for row in logits]), abs=1e-12)
    assert (found[::3, 4] == 0.0).all()


@pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [MASKED, MASKED]])
def test_logits_without_a_distribution_are_refused(row: list[float]) -> None:
    """NaN, infinity, and a row in which all is masked."""
    with pytest.raises(EvaluationError, match=r"masked|not numbers"):
        distributions(np.array([[0.0, 1.0], row], np.float32), 1.0, 0.1)


def settings(application: str, folder: Path) -> Config:
    return parse({"application": application, "data_dir": str(folder), "inference": {"temperature": 2.0}}, "the test's")


def save(config: Config, folder: Path) -> FlatModel:
    application = configured_application(config)
    flat = FlatModel(seeded_model(application, 7))
    CheckpointStore(folder, meaning_of(config.trainer, application)).save(12, flat.state(), {}, {})
    return flat


def test_a_checkpoint_decides_as_it_would_in_a_server(toy_application: str, tmp_path: Path) -> None:
    """Its weights are loaded, and explored as the configuration says."""
    config = settings(toy_application, tmp_path)
    flat = save(config, tmp_path)
    policy = ModelPolicy.from_checkpoint(tmp_path / f"{12:012d}", configured_application(config), config)
    observations = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    heads = policy.head_probabilities(observations)
    server = Policy.configured(flat.model, config.inference, ())
    for index, draw in enumerate(server.act_many(observations.copy())):
        assert not isinstance(draw, Exception)
        wanted = [head[index, choice] for head, choice in zip(heads, draw.action, strict=True)]
        assert draw.head_probabilities == pytest.approx(wanted, rel=1e-5)
    joint = joint_probabilities(heads)
    assert joint.shape == (6, 10)
    assert joint[3, 2 * 2 + 1] == pytest.approx(heads[0][3, 2] * heads[1][3, 1])
    assert policy.name == "version 12"


def test_a_checkpoint_of_something_else_is_refused(toy_application: str, tmp_path: Path) -> None:
    """Another learner's weights, a folder without a manifest, a model that fails: each is named."""
    config = settings(toy_application, tmp_path)
    save(config, tmp_path)
    application = configured_application(config)
    manifest = tmp_path / f"{12:012d}" / "manifest.json"
    with pytest.raises(CheckpointError, match="manifest"):
        ModelPolicy.from_checkpoint(tmp_path, application, config)
    CheckpointStore(tmp_path, {"learner": "other", "exploration": "none"}).save(12, {}, {}, {})
    assert manifest.exists()
    with pytest.raises(CheckpointError, match="learner other"):
        ModelPolicy.from_checkpoint(manifest.parent, application, config)
    broken = ModelPolicy("broken", torch.nn.Linear(3, 2))
    with pytest.raises(EvaluationError, match="broken: the model fails"):
        broken.head_probabilities(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize("build", [lambda: RewardModel(4, 5), lambda: LogitsModel(4, (5,))])
def test_what_a_request_did_not_allow_is_never_taken(build: Callable[[], torch.nn.Module]) -> None:
    """The probabilities are those that a server draws with among what is allowed, of both kinds of models."""
    torch.manual_seed(3)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        if isinstance(model, RewardModel):
            model.gamma.fill_(20.0)
    observations = np.random.default_rng(4).normal(size=(30, 4)).astype(np.float32)
    masks = np.random.default_rng(5).random((30, 5)) < 0.6
    masks[:, 2] = True
    (found,) = ModelPolicy("new", model, 1.5, 0.1).head_probabilities(observations, [masks])
    server = Policy(model, 1.5, 0.1, seed=1)
    asked = [SimpleNamespace(offer=SimpleNamespace(masks=[mask])) for mask in masks]
    for row, draw in enumerate(server.act_many(observations.copy(), asked)):  # type: ignore[arg-type]
        assert not isinstance(draw, Exception)
        assert draw.probability == pytest.approx(found[row, draw.action[0]], rel=1e-4)
    assert (found[~masks] == 0.0).all()
    (fixed,) = FixedPolicy("even", [[0.2] * 5]).head_probabilities(observations, [masks])
    assert fixed == pytest.approx(masks / masks.sum(axis=1, keepdims=True))
