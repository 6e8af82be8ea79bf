"""Training rewards, batches and history rows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.errors import ApplicationError
from tandem.shared.experiences.batch import BatchRoom, RecordTensors
from tandem.shared.experiences.records import SEND, WAIT, RecordLayout
from tandem.shared.learning import (
    StepResult,
    event_row,
    given_allowed,
    history_row,
    load_learner,
    log_probabilities,
    make_batch,
    training_rewards,
)
from tandem.shared.memory.layout import HISTORY_COLUMNS


@pytest.fixture
def rows():
    """Two SENDs and two WAITs decided by versions 3 to 6."""
    rows = np.zeros(4, RecordLayout(features=4, heads=2, components=1).record)
    rows["decision"] = [SEND, WAIT, SEND, WAIT]
    rows["expected_reward"] = [0.8, 0.4, 0.9, -1.0]
    rows["actual_reward"] = [0.5, math.nan, -1.0, math.nan]
    rows["version"] = [3, 4, 5, 6]
    rows["action"] = [[1, 0], [2, 1], [3, 0], [4, 1]]
    rows["probability"] = 0.25
    return rows


def test_a_sent_decision_mixes_expected_and_actual_and_a_blocked_one_is_discounted(rows):
    """SEND: 0.3 expected + 0.7 actual; WAIT: half of what the gate expected; never NaN."""
    rewards = training_rewards(rows, ContinuousTrainingConfig())
    assert rewards == pytest.approx([0.3 * 0.8 + 0.7 * 0.5, 0.2, 0.3 * 0.9 - 0.7, -0.5])
    other = dataclasses.replace(
        ContinuousTrainingConfig(), simulation_reward_weight=0.0, actual_reward_weight=1.0, wait_reward_multiplier=0.0
    )
    assert training_rewards(rows, other) == pytest.approx([0.5, 0.0, -1.0, 0.0])


def test_a_batch_holds_the_records(rows):
    """Every field arrives on the device with the dtype that learners are promised."""
    batch = make_batch(rows, training_rewards(rows, ContinuousTrainingConfig()), torch.device("cpu"))
    assert len(batch) == 4
    assert batch.observations.shape == (4, 4)
    assert batch.actions.tolist() == [[1, 0], [2, 1], [3, 0], [4, 1]]
    assert batch.sent.tolist() == [True, False, True, False]
    assert batch.probabilities.tolist() == [0.25] * 4
    assert torch.isfinite(batch.rewards).all()


def test_a_history_row_tells_lag_and_actual_reward(rows):
    """Lag counts from the version trained upon; actual rewards are those of the SENDs alone."""
    row = history_row(8, rows, training_rewards(rows, ContinuousTrainingConfig()), StepResult(1.0, 2.0, 3.0, 0.5), 4.0)
    assert set(row) == {name for name, _ in HISTORY_COLUMNS}
    assert (row["lag_mean"], row["lag_max"]) == (2.5, 4.0)
    assert row["actual_reward"] == pytest.approx(-0.25)
    assert row["send_share"] == 0.5


def test_an_event_row_has_every_column():
    """A rollback's row is no step: its measures are NaN."""
    row = event_row(9, 1)
    assert set(row) == {name for name, _ in HISTORY_COLUMNS}
    assert (row["version"], row["event"]) == (9, 1.0)
    assert math.isnan(row["loss"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_colon", "not of the form module:attribute"),
        ("nowhere_at_all:Thing", "no module named"),
        ("tandem.trainer_proc.learner:Nothing", "has no 'Nothing'"),
    ],
)
def test_a_learner_that_cannot_be_found_is_refused_with_the_reason(name, reason):
    """Badly written, no such module, no such attribute: three different messages."""
    with pytest.raises(ApplicationError, match=reason):
        load_learner(name)


def test_without_a_gate_the_actual_reward_is_trained_on(rows):
    """Nobody expects anything then: what was sent is what is learned from and shown."""
    rewards = training_rewards(rows, ContinuousTrainingConfig(), gated=False)
    assert rewards == pytest.approx([0.5, 0.2, -1.0, -0.5])
    assert history_row(8, rows[::2], rewards[::2], StepResult(0.0, 0.0, 0.0, 0.0))["reward"] == pytest.approx(-0.25)


def test_a_logit_of_minus_infinity_counts_as_masked():
    """Probabilities, entropy and gradients are numbers, and those of the mask zero."""
    logits = torch.tensor([[0.5, -math.inf, 0.5]], requires_grad=True)
    logs = log_probabilities(logits)
    assert logs.exp().tolist()[0] == pytest.approx([0.5, 0.0, 0.5])
    (logs.exp() * logs).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] == 0


def test_a_batch_says_what_was_allowed() -> None:
    """Choices, candidates and numbers as they were recorded, from rows and from the gathered words alike."""
    layout = RecordLayout(2, 1, 0, choices=11, candidates=11, candidate_features=3, values=1)
    room = BatchRoom(layout, 5)
    rng = np.random.default_rng(1)
    given = rng.random((5, 11)) < 0.5
    room.rows["allowed"] = np.packbits(given, axis=1, bitorder="little")
    room.rows["candidates"] = rng.random((5, 11, 3))
    room.rows["observation"] = rng.random((5, 2))
    room.rows["value"] = rng.random((5, 1))
    tensors = RecordTensors(layout, room.tensor)
    batch = make_batch(room.rows, np.zeros(5, np.float32), torch.device("cpu"), layout)
    for found in (tensors, batch):
        assert found.allowed is not None
        assert found.allowed.tolist() == given.tolist()
        assert found.mask is not None
        assert found.mask.tolist() == given.tolist()
        assert found.candidates is not None
        assert found.candidates.tolist() == room.rows["candidates"].tolist()
        assert found.values is not None
        assert found.values.tolist() == room.rows["value"].tolist()
    assert batch.inputs.shape == (5, 2 + 11 * 3 + 11)
    assert batch.inputs[:, -11:].tolist() == given.astype(float).tolist()


def test_logits_given_what_was_allowed() -> None:
    """Each head takes its own part of the bits."""
    heads = [torch.zeros(1, 2), torch.zeros(1, 3)]
    allowed = torch.tensor([[True, False, True, True, False]])
    first, second = (log_probabilities(head).exp() for head in given_allowed(heads, allowed))
    assert first.tolist() == [[1.0, 0.0]]
    assert second.tolist() == [[0.5, 0.5, 0.0]]
    assert given_allowed(heads, None) == heads
