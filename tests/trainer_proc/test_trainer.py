"""The trainer's loop: versions, skips, failures, refusals, restarts."""

from __future__ import annotations

import logging
import signal

import pytest
import torch
from tandem.shared.experiences.records import SEND
from tandem.trainer_proc.trainer import ContinuousTrainer, TrainerFailed


def test_every_successful_step_raises_the_version_by_one(toy_trainer, fill):
    """A successful step publishes the next version; the slot holds exactly the trainer's weights."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    for expected in range(1, 8):
        assert trainer.train_step()
        assert trainer.model_version == trainer.control.get("version") == expected
        assert torch.equal(trainer.candidate.in_force(), trainer.flat.flat)
    assert trainer.control.get("metrics.total_steps") == 7
    assert [row["version"] for row in trainer.control.history()] == list(range(1, 8))


def unhurried(trainer):
    """The trainer, whose steps seem short enough to be published together however busy the machine is."""
    trainer._pace.took = lambda seconds: None
    return trainer


def test_steps_that_are_published_together_are_all_counted_and_use_every_slot_in_turn(toy_trainer, fill):
    """Each step is a version and a row of the history; the slots go by publications, whatever the steps of each."""
    trainer = unhurried(toy_trainer())
    fill(trainer.buffer)
    slots, version = [], 0
    for steps in (4, 8, 4, 8, 1, 4):
        before = trainer.candidate.in_force().clone()
        assert trainer.train(steps) == steps
        version += steps
        assert trainer.model_version == trainer.control.get("version") == version
        assert torch.equal(trainer.candidate.in_force(), trainer.flat.flat)
        assert not torch.equal(trainer.candidate.in_force(), before)
        slots.append(trainer.candidate.slots.find(version))
    assert slots == [1, 2, 3, 0, 1, 2]
    assert trainer.control.get("metrics.total_steps") == version
    assert [row["version"] for row in trainer.control.history()] == list(range(1, version + 1))


def test_what_is_refused_together_is_tried_again_alone(toy_trainer, fill):
    """One bad step takes those beside it along, none of them is published, and the next one goes by itself."""
    trainer = unhurried(toy_trainer())
    fill(trainer.buffer)
    in_force = trainer.candidate.in_force().clone()
    step = trainer.learner.step
    taken = []

    def spoil_the_third(batch):
        result = step(batch)
        taken.append(result)
        if len(taken) == 3:
            trainer.flat.flat.view(torch.float32)[0] = float("nan")
        return result

    trainer.learner.step = spoil_the_third
    assert trainer.train(8) == 0
    assert torch.equal(trainer.candidate.in_force(), in_force)
    assert trainer.model_version == 0
    assert trainer.control.history() == []
    assert trainer.control.get("metrics.refused") == 1
    assert trainer.train(8) == 1
    assert trainer.train(8) == 8


def test_too_few_experiences_are_skipped_and_counted(toy_trainer, fill):
    """With fewer than min_batch_size experiences nothing is trained: no version, no metrics, one skip."""
    trainer = toy_trainer(min_batch_size=8)
    fill(trainer.buffer, 7)
    assert not trainer.train_step()
    assert trainer.model_version == 0
    assert trainer.control.get("metrics.skipped_steps") == 1
    assert trainer.control.history() == []
    fill(trainer.buffer, 1)
    assert trainer.train_step()
    assert trainer.model_version == 1


def test_the_batch_is_learned_from(toy_trainer, fill):
    """An action that earns more becomes more probable."""
    trainer = toy_trainer(learning_rate=0.02)
    fill(trainer.buffer, 200, good=2)
    for _ in range(100):
        trainer.train_step()
    with torch.no_grad():
        chunks, _ = trainer.flat.model(torch.full((1, 4), 0.5))
    assert int(chunks.argmax()) == 2


def test_gradients_that_the_application_switched_off_are_on_in_training(toy_trainer, fill):
    """The weights move all the same, and the switch stays as it was."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    before = trainer.flat.flat.clone()
    torch.set_grad_enabled(False)
    try:
        assert trainer.train_step()
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert not torch.equal(trainer.flat.flat, before)


def test_start_stop_and_restart(toy_trainer, fill, caplog, wait_until):
    """`start` runs one loop, a second call only warns; `stop` is idempotent; `start` works again afterwards."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    trainer.start()
    with caplog.at_level(logging.WARNING):
        thread = trainer.loop.thread
        trainer.start()
    assert trainer.loop.thread is thread
    assert "running already" in caplog.text
    wait_until(lambda: trainer.model_version >= 3, "three versions")
    assert trainer.stop()
    assert trainer.stop()
    assert not trainer.is_running
    version = trainer.model_version
    trainer.start()
    wait_until(lambda: trainer.model_version > version, "a version after the restart")


def test_a_failing_step_is_handled_and_counted(toy_trainer, fill, monkeypatch):
    """An exception in a step is counted and publishes nothing; weights and optimiser are the good ones again."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    trainer.loop.tick()
    weights, moments = (
        trainer.flat.flat.clone(),
        {name: value.clone() for name, value in trainer.learner.state().items()},
    )

    def spoil(batch):
        trainer.flat.flat.zero_()
        raise RuntimeError("planted")

    monkeypatch.setattr(trainer.learner, "step", spoil)
    assert not trainer.loop.tick()
    assert trainer.control.get("metrics.total_errors") == 1
    assert trainer.model_version == 1
    assert torch.equal(trainer.flat.flat, weights)
    assert all(torch.equal(value, moments[name]) for name, value in trainer.learner.state().items())
    assert trainer.loop.tick()
    assert trainer.model_version == 2


def test_too_many_failures_in_a_row_end_the_trainer(toy_trainer, fill, monkeypatch):
    """After max_failures failed steps in a row the loop ends with the reason."""
    trainer = toy_trainer(max_failures=3)
    fill(trainer.buffer)

    def fail(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr(trainer.buffer.reader, "sample", fail)
    with pytest.raises(TrainerFailed, match=r"3 training steps failed in a row.*planted"):
        trainer.run()


def test_a_nan_in_a_gradient_never_reaches_a_decision(toy_trainer, fill, caplog):
    """A candidate that is not finite is refused, naming the tensor; what is published stays, and training goes on."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    assert trainer.train_step()
    published = trainer.candidate.in_force().clone()
    poisoned = [True]

    def spoil(gradient):
        if poisoned:
            gradient = gradient.clone()
            gradient[0] = float("nan")
        return gradient

    next(trainer.flat.model.parameters()).register_hook(spoil)
    with caplog.at_level(logging.ERROR):
        assert not trainer.train_step()
    assert "layer.weight has a value that is not finite" in caplog.text or "layer.bias" in caplog.text
    assert trainer.control.get("metrics.refused") == 1
    assert trainer.model_version == 1
    assert torch.equal(trainer.candidate.in_force(), published)
    assert torch.equal(trainer.flat.flat, published)
    poisoned.clear()
    assert trainer.train_step()
    assert trainer.model_version == 2
    assert torch.isfinite(trainer.flat.flat.view(torch.float32)).all()


def test_a_learner_sees_each_experience_once(toy_trainer, fill):
    """All that the rings hold before its first step, then what is new; a trainer that takes over goes on from there."""
    trainer = toy_trainer(learner="learners:Seeing")
    fill(trainer.buffer, 64)
    assert trainer.train(4)
    held = trainer.buffer.reader.recent(1000)["observation"][:, 0].tolist()
    assert sorted(trainer.learner.seen) == sorted(held)
    assert len(held) == 64
    assert trainer.train(4)
    assert len(trainer.learner.seen) == 64
    fill(trainer.buffer, 10, seed=5)
    assert trainer.train(4)
    assert len(trainer.learner.seen) == 74
    assert trainer.checkpoint()
    fill(trainer.buffer, 8, seed=6)
    assert trainer.train(1)
    # What came in after the checkpoint, whether its predecessor saw it or not: that learner is gone.
    successor = ContinuousTrainer(trainer.instance.build_model(), trainer.buffer)
    fill(trainer.buffer, 3, seed=7)
    assert successor.train(1)
    assert (len(successor.learner.seen), int(successor.learner.count)) == (11, 85)
    assert successor.roll_back(successor.checkpoints.newest(), "a test")
    assert successor.train(1)
    assert (len(successor.learner.seen), int(successor.learner.count)) == (11, 85)
    successor.reset()
    fill(trainer.buffer, 32, seed=8, model_version=successor.model_version)
    assert successor.train(1)
    assert int(successor.learner.count) == len(successor.learner.seen) == 32


def test_experiences_of_before_a_reset_are_not_trained_on(toy_trainer, fill):
    """After a reset only decisions of the fresh weights are sampled."""
    trainer = toy_trainer()
    fill(trainer.buffer, model_version=0)
    trainer.train_step()
    version = trainer.reset()
    assert not trainer.train_step()
    fill(trainer.buffer, 20, model_version=version)
    assert trainer.train_step()
    rows = trainer.buffer.reader.sample(100)
    assert len(rows) == 20
    assert (rows["version"] == version).all()
    assert (rows["decision"] == SEND).all()


def test_the_same_log_and_seed_give_the_same_bits(toy_trainer, fill, toy_instance, instance_name):
    """With `deterministic` two trainers on the same experiences end with bit-identical weights."""
    from tandem.shared.memory.segments import remove_instance

    results = []
    for _ in range(2):
        trainer = toy_trainer(deterministic=True, seed=7)
        fill(trainer.buffer, 100)
        for _ in range(20):
            assert trainer.train_step()
        results.append(trainer.flat.flat.clone())
        trainer.buffer.close()
        remove_instance(instance_name)
    assert torch.equal(*results)


def test_a_killed_trainer_goes_on_where_it_was(toy_instance, fill, trainer_process, wait_until, tmp_path):
    """After kill -9 the next trainer publishes higher versions, with the optimiser state of the newest checkpoint."""
    from tandem.shared.replay import ExperienceReplayBuffer

    instance = toy_instance(trainer={"checkpoint_interval": 0.2})
    buffer = ExperienceReplayBuffer(instance)
    fill(buffer)
    control = instance.control
    first = trainer_process(instance.name)
    wait_until(lambda: control.get("trainer.ready") == first.pid, "the trainer to be ready")
    wait_until(lambda: control.get("version") >= 5 and instance.checkpoints().newest(), "versions and a checkpoint")
    second = trainer_process(instance.name)
    assert second.wait(30) == 1
    assert "has a trainer already" in (tmp_path / "trainer2.log").read_text()
    first.send_signal(signal.SIGKILL)
    first.wait()
    version = control.get("version")
    steps = instance.checkpoints().newest().load_optimiser()["adam.0.step"]
    assert steps >= 1
    third = trainer_process(instance.name)
    wait_until(lambda: control.get("trainer.ready") == third.pid, "the next trainer to be ready")
    wait_until(lambda: control.get("version") >= version + 3, "higher versions")
    third.send_signal(signal.SIGTERM)
    assert third.wait(60) == 0
    newest = instance.checkpoints().newest()
    assert newest.version == control.get("version")
    assert newest.load_optimiser()["adam.0.step"] > steps + 2
    buffer.close()


def test_a_resumed_trainer_goes_on_exactly(toy_trainer, fill, toy_instance):
    """Stopped and started again, a seeded trainer makes the very steps that it would have made without the pause."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    for _ in range(3):
        trainer.train_step()
    assert trainer.checkpoint()
    for _ in range(3):
        trainer.train_step()
    expected = trainer.flat.flat.clone()
    from tandem.shared.replay import ExperienceReplayBuffer

    checkpoint = trainer.checkpoints.newest()
    assert checkpoint.version == 3
    trainer.control.set("version", 3)
    again = ContinuousTrainer(trainer.instance.build_model(), ExperienceReplayBuffer(trainer.instance, seed=99))
    for _ in range(3):
        again.train_step()
    assert torch.equal(again.flat.flat, expected)


def test_checkpoints_that_a_disk_refuses_are_counted_and_training_goes_on(toy_trainer, fill, caplog) -> None:
    """A file in the place of the data folder, or a prune that fails, ends nothing; the next checkpoint is saved when
    the file system yields."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    data_dir = trainer.instance.data_dir
    data_dir.parent.mkdir(exist_ok=True)
    data_dir.write_text("a file")
    for number in (1, 2):
        assert trainer.train_step()
        assert not trainer.checkpoint()
        assert trainer.control.get("trainer.unsaved") == number
    before = trainer.flat.flat.clone()
    assert trainer.train_step()
    assert not torch.equal(before, trainer.flat.flat)
    data_dir.unlink()
    assert trainer.checkpoint()
    assert trainer.control.get("trainer.unsaved") == 0

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    trainer.checkpoints.store.prune = refuse
    assert trainer.train_step()
    assert trainer.checkpoint(), "it is saved; only older ones are not removed"
    assert "cannot be removed" in caplog.text
