"""Models of candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tandem.shared.application import MASKED, ActionHead, Application, CandidateHead, check_forward, check_infer
from tandem.shared.errors import ApplicationError
from tandem.shared.instance import with_model_for
from tandem.shared.models.candidates import CandidateModel, CandidateModule, CandidateScores
from torch import nn

HEAD = CandidateHead("item", 4, ("price", "fame"))


def inputs(present: np.ndarray) -> np.ndarray:
    """Three features, four candidates of two and who is there, float32[B, 15]."""
    rows = np.random.default_rng(1).normal(0.0, 3.0, (len(present), 15)).astype(np.float32)
    rows[:, 11:] = present
    return rows


@pytest.mark.parametrize("learner", ["reward_regression", "policy_gradient"])
def test_a_model_of_candidates_is_a_model(learner: str) -> None:
    """`forward` and `infer` agree with whatever weights, and who is not there has no probability."""
    application = with_model_for(Application("items", ("x", "y", "z"), (HEAD,)), learner)
    model = application.build_model()
    check_forward(model, application)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(torch.rand_like(tensor))
    rows = inputs(np.random.default_rng(2).random((50, 4)) < 0.6)
    if isinstance(model, CandidateModel):
        assert check_infer(model, rows) < 1e-4
    else:
        assert isinstance(model, CandidateScores)
    rows = rows[rows[:, 11:].any(axis=1)]
    with torch.no_grad():
        chances = torch.softmax(model(torch.from_numpy(rows))[0], dim=1).numpy()
    assert (chances[rows[:, 11:] == 0] == 0).all()
    if learner == "reward_regression":
        assert (chances[rows[:, 11:] == 1] > 0).all()


def test_scores_follow_the_candidates_wherever_they_stand() -> None:
    """The same candidates in another order have the same probabilities in that order."""
    model = CandidateModel(3, 4, 2)
    nn.init.normal_(model.direct.weight)
    model.gamma.fill_(5.0)
    rows = torch.from_numpy(inputs(np.ones((6, 4))))
    turned = torch.cat([rows[:, :3], rows[:, 3:11].reshape(-1, 4, 2).flip(1).flatten(1), rows[:, 11:]], dim=1)
    with torch.no_grad():
        assert torch.allclose(model(rows)[0].flip(1), model(turned)[0], atol=1e-5)


class Own(nn.Module):
    """Scores by the first feature of a candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, observations: torch.Tensor, candidates: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert candidates.shape[1:] == (4, 2)
        assert mask.dtype == torch.bool
        return self.scale * candidates[:, :, 0]

    def infer(self, features: np.ndarray, candidates: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.scale.detach().numpy() * candidates[:, 0]


def test_a_model_of_the_users_own_scores_candidates() -> None:
    """`forward(observations, candidates, mask)`, trained by policy_gradient; the instance masks who is not there."""
    application = Application("items", ("x", "y", "z"), (HEAD,), Own)
    model = with_model_for(application, "policy_gradient").build_model()
    assert isinstance(model, CandidateModule)
    check_forward(model, application)
    rows = inputs(np.array([[1, 0, 1, 1]]))
    assert check_infer(model, rows) < 1e-6
    with torch.no_grad():
        logits = model(torch.from_numpy(rows))[0][0]
    assert logits[1] == MASKED
    assert logits[[0, 2, 3]].tolist() == rows[0, [3, 7, 9]].tolist()
    with pytest.raises(ApplicationError, match="choose policy_gradient"):
        with_model_for(application, "reward_regression")
    plain = Application("plain", ("x",), (ActionHead("h", 2),), Own)
    assert type(with_model_for(plain, "policy_gradient").build_model()) is Own
