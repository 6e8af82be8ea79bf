"""The candidate: the learner's state is guarded, and no refusal comes for ever."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from tandem.shared.commands import PREVIOUS, send, set_paused
from tandem.shared.durable import unseal


def published(trainer):
    """The weights in force: float32 [n]."""
    return trainer.candidate.in_force().clone().view(torch.float32)


class Interrupted(BaseException):
    """What arrives at any moment, as Ctrl-C does."""


@contextlib.contextmanager
def fails_once(trainer):
    """Meanwhile the model's forward pass fails."""

    def fail(*_):
        raise RuntimeError("planted")

    handle = trainer.flat.model.register_forward_hook(fail)
    yield
    handle.remove()


def test_a_learner_whose_state_became_nan_is_not_kept(toy_trainer, fill, monkeypatch, caplog):
    """However good the weights look, the step is refused by the tensor's name; the good state comes back."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    assert trainer.train_step()
    learner = trainer.learner

    def spoil(batch, original=learner.step):
        result = original(batch)
        learner.variance = float("nan")
        return result

    monkeypatch.setattr(learner, "step", spoil)
    weights = published(trainer)
    assert not trainer.train_step()
    assert torch.equal(published(trainer), weights)
    assert "the learner's rewards has a value that is not finite" in caplog.text
    assert trainer.train_step()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trainer.learner.state().values())
    trainer.learner.baseline.out.bias.data.fill_(float("inf"))
    trainer.candidate._settled = False
    assert trainer.checkpoint()
    newest = trainer.checkpoints.newest()
    assert newest.version == trainer.model_version
    assert all(bool(torch.isfinite(tensor).all()) for tensor in newest.load_optimiser().values())


def test_an_interrupted_step_leaves_nothing_behind(toy_trainer, fill, monkeypatch):
    """The next one begins with the published weights, not with what the interruption left."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    assert trainer.train_step()
    before = published(trainer)

    def interrupt():
        trainer.flat.flat.view(torch.float32).mul_(1.2)
        raise Interrupted

    monkeypatch.setattr(trainer.learner.optimiser, "step", interrupt)
    with pytest.raises(Interrupted):
        trainer.train_step()
    assert trainer.train_step()
    assert float((published(trainer) - before).norm()) < 0.1 * float(before.norm())


def test_a_learning_rate_that_always_moves_too_far_is_not_refused_for_ever(toy_trainer, fill):
    """The first step is refused, the next ones are shortened: the policy learns."""
    trainer = toy_trainer(learning_rate=5.0, guard_min_entropy=0.0)
    fill(trainer.buffer, 100)
    before = published(trainer)
    assert not trainer.train_step()
    assert torch.equal(published(trainer), before)
    for _ in range(20):
        trainer.loop.tick()
    assert trainer.model_version >= 15
    assert trainer.control.get("metrics.shortened") >= 1
    assert float((published(trainer) - before).norm()) > 0.5 * float(before.norm())


def test_a_learner_that_has_no_state_yet_can_be_gone_back_from(toy_trainer, fill, monkeypatch):
    """Some have none before their first step."""
    from learners import Plain

    def state(self):
        return {"losses": self.losses}

    def step(self, batch, original=Plain.step):
        result = original(self, batch)
        self.losses = torch.tensor([result.loss])
        return result

    monkeypatch.setattr(Plain, "state", state)
    monkeypatch.setattr(Plain, "step", step)
    trainer = toy_trainer(learner="learners:Plain")
    fill(trainer.buffer)
    with fails_once(trainer):
        assert not trainer.loop.tick()
    assert trainer.loop.tick()
    assert trainer.model_version == 1


def test_a_state_that_cannot_be_taken_over_is_left_out(toy_trainer, fill, monkeypatch, caplog):
    """A learner that refuses its own state starts afresh, logged; the trainer does not end."""
    from learners import Plain

    monkeypatch.setattr(Plain, "state", lambda self: {"a": torch.ones(1)})
    monkeypatch.setattr(Plain, "load_state", lambda self, state: {}["planted"])
    trainer = toy_trainer(learner="learners:Plain")
    fill(trainer.buffer)
    with fails_once(trainer):
        assert not trainer.loop.tick()
    assert "starts afresh" in caplog.text
    assert trainer.loop.tick()


def test_a_model_without_gradients_of_torch_is_trained(toy_trainer, fill):
    """Gradients that an application has switched off for the whole process are on for a step."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    torch.set_grad_enabled(False)
    try:
        assert trainer.train_step()
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


@pytest.mark.parametrize("damage", ["resume", "previous"])
def test_a_spoilt_checkpoint_is_set_aside_and_an_older_one_used(toy_trainer, fill, caplog, damage):
    """As an earlier release could have saved it: renamed, named in the log, and never in the way of good ones."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    versions = []
    for _ in range(3):
        assert trainer.train_step()
        assert trainer.checkpoint()
        versions.append(trainer.model_version)
    state = {**trainer.learner.state(), "adam.0.exp_avg": torch.full((35,), float("nan"))}
    store = trainer.checkpoints.store
    store.save(versions[1], trainer.flat.state(), state, {"not_finite": {}})
    manifest = store.folder / f"{versions[1]:012d}" / "manifest.json"
    # Earlier releases sealed nothing.
    earlier = {name: value for name, value in unseal(manifest.read_bytes()).items() if name != "not_finite"}
    manifest.write_text(json.dumps(earlier))
    if damage == "resume":
        store._discard(store.folder / f"{versions[2]:012d}")
        assert trainer.checkpoints.newest().version == versions[0]
    else:
        set_paused(trainer.control, True)
        trainer.start()
        assert send(trainer.control, "rollback", PREVIOUS).done
        assert trainer.control.get("restored_version") == versions[0]
    assert f"{versions[1]:012d}.not-finite" in caplog.text
    assert [path.is_dir() for path in store.folder.glob(f"{versions[1]:012d}.not-finite-*")] == [True]
    assert versions[1] not in [checkpoint.version for checkpoint in store.all()]


def test_a_first_step_on_zeros_that_fails_does_not_end_the_trainer(toy_trainer, fill, monkeypatch, caplog):
    """It is logged: real observations need not be like zeros."""
    from learners import Plain
    from tandem.trainer_proc.__main__ import warm_up

    trainer = toy_trainer(learner="learners:Plain")
    fill(trainer.buffer)
    original = Plain.step

    def step(self, batch):
        if not batch.observations.any():
            raise ZeroDivisionError
        return original(self, batch)

    monkeypatch.setattr(Plain, "step", step)
    warm_up(trainer)
    assert "on an observation of zeros, failed" in caplog.text
    assert trainer.train_step()
