"""What enters a training step, and the search for what spoils it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tandem.shared.experiences.records import RecordLayout
from tandem.shared.telemetry.stats import training_stats
from tandem.trainer_proc.guards.intake import find_spoilers

ROWS = np.zeros(32, RecordLayout(features=1, heads=1, components=0).record)
ROWS["ticket"] = np.arange(32)


@pytest.mark.parametrize("bad", [[], [0], [31], [4, 5, 6], [0, 9, 18, 27]])
def test_the_experiences_that_spoil_a_step_are_found(bad):
    """Exactly those, in far fewer tries than there are experiences."""
    tries = []

    def passes(rows):
        tries.append(len(rows))
        return not set(rows["ticket"].tolist()) & set(bad)

    assert sorted(find_spoilers(ROWS, passes)["ticket"].tolist()) == bad
    assert len(tries) <= 32


@pytest.mark.parametrize("passes", [lambda rows: False, lambda rows: len(rows) < 2])
def test_when_it_is_not_the_experiences_nobody_is_blamed(passes):
    """A step that always fails, or one that fails with more than one of them."""
    assert len(find_spoilers(ROWS, passes)) == 0


def distance(trainer, before):
    """How far the published weights have moved since."""
    return float((trainer.candidate.in_force().view(torch.float32) - before.view(torch.float32)).norm())


def play(trainer, steps=50):
    """How far the published weights move in that many steps."""
    before = trainer.candidate.in_force().clone()
    for _ in range(steps):
        trainer.loop.tick()
    return distance(trainer, before)


@pytest.mark.parametrize("value", [1e20, -3e38, 1e6])
def test_an_absurd_reward_is_clipped_and_counted(toy_trainer, fill, value):
    """Training goes on with every experience; state, statistics and metrics stay sensible."""
    trainer = toy_trainer()
    fill(trainer.buffer, 60)
    fill(trainer.buffer, 1, seed=1, actual_reward=value)
    trainer.look()
    assert play(trainer) > 0.2
    stats = training_stats(trainer.control)["training"]
    assert stats["clipped_rewards"] == 1
    assert stats["refused"] == stats["total_errors"] == 0
    assert abs(stats["actual_reward"]) < 20
    assert trainer.learner.variance < 1000


def test_an_absurd_observation_is_left_out_and_the_others_are_learned_from(toy_trainer, fill):
    """A finite number near the end of float32 spoils nothing; it is counted once."""
    trainer = toy_trainer()
    fill(trainer.buffer, 60)
    huge = np.array([3e38, 0.0, -3e38, 1.0], dtype=np.float32)
    fill(trainer.buffer, 1, seed=1, observation=huge)
    assert play(trainer) > 0.2
    assert trainer.model_version == 50
    assert training_stats(trainer.control)["training"]["left_out"] == 1


@pytest.mark.parametrize("fault", ["raises", "nan", "infinite gradient"])
def test_an_experience_that_spoils_every_step_is_left_out(toy_trainer, fill, monkeypatch, caplog, fault):
    """Sensible numbers that this model cannot take: the step goes on without them."""
    trainer = toy_trainer(batch_size=32)
    fill(trainer.buffer, 30)
    odd = np.array([7.0, 0.0, 0.0, 0.0], dtype=np.float32)
    fill(trainer.buffer, 1, seed=1, observation=odd)

    def forward(observations):
        logits = trainer.flat.model.layer(observations)
        hit = (observations[:, :1] == 7.0).any()
        if hit and fault == "raises":
            raise IndexError("index 7 is out of range")
        if hit and fault == "nan":
            logits = torch.where(observations[:, :1] == 7.0, logits * torch.nan, logits)
        if fault == "infinite gradient":
            logits = logits + 0 * torch.sqrt((observations[:, :1] - 7.0).abs() * trainer.flat.model.layer.bias[0] ** 2)
        return logits[:, :5], logits[:, 5:]

    monkeypatch.setattr(trainer.flat.model, "forward", forward)
    assert play(trainer) > 0.2
    assert trainer.model_version >= 45
    assert training_stats(trainer.control)["training"]["left_out"] == 1
    assert "an experience is left out of training" in caplog.text


def test_the_training_reward_of_an_application_without_a_gate_is_the_actual_one(toy_trainer, fill):
    """History and metrics show what was sent."""
    trainer = toy_trainer()
    fill(trainer.buffer, 40, expected_reward=0.0, actual_reward=0.5)
    trainer.train_step()
    assert trainer.control.history()[-1]["reward"] == pytest.approx(0.5)
    assert trainer.control.get("metrics.mean_reward") == pytest.approx(0.5)


def test_records_that_nobody_wrote_stop_neither_training_nor_the_guard_on_rewards(toy_trainer, fill):
    """Whole rows of nonsense in the same ring are left out and counted; the weights move as the others say."""
    trainer = toy_trainer(batch_size=32, training_interval=0.01)
    fill(trainer.buffer, 64)
    lane = trainer.buffer.lane
    rows = trainer.buffer.reader.recent(32).copy()
    for field, values in (
        ("ticket", [2**64 - 1, 2**60]), ("action", [[9, 9], [-1, 0]]), ("decision", [7, 2**32 - 1]),
        ("actual_reward", [np.nan, np.inf]), ("version", [2**64 - 1, 2**63]),
    ):  # fmt: skip
        for value in values:
            bad = rows.copy()
            bad[field] = value
            with lane.hold():
                lane._writer.append_many(bad[:3])
    before, version = trainer.candidate.in_force().clone().view(torch.float32), trainer.model_version
    for _ in range(20):
        trainer.look()
        assert trainer.loop.tick()
    assert trainer.model_version == version + 20
    assert float((trainer.candidate.in_force().view(torch.float32) - before).norm()) > 0.01
    assert trainer.control.get("metrics.left_out") > 0
    assert trainer.control.get("metrics.total_errors") == 0
