"""Operator commands: pause, checkpoint, rollback, reset and reload on a running trainer."""

from __future__ import annotations

import json

import pytest
import torch
from tandem.shared.commands import BEST, PREVIOUS, send, set_paused
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.trainer import ContinuousTrainer


@pytest.fixture
def running(toy_trainer, fill, wait_until):
    """A running trainer with experiences and at least three versions."""
    trainer = toy_trainer(training_interval=0.02)
    fill(trainer.buffer)
    trainer.start()
    wait_until(lambda: trainer.model_version >= 3, "three versions")
    return trainer


def saved(trainer, version):
    """The model tensors of a checkpoint, as bytes."""
    return {
        name: bytes(tensor.numpy().tobytes())
        for name, tensor in trainer.checkpoints.find(version)._read("model.safetensors").items()
    }


def published(trainer, version):
    """The tensors of a published version that is still in its slot."""
    slot = trainer.candidate.slots.find(version)
    assert slot >= 0
    views = trainer.flat.layout.views(trainer.candidate.slots.data[slot])
    return {name: bytes(tensor.numpy().tobytes()) for name, tensor in views.items()}


def test_a_paused_trainer_idles_and_still_obeys(running, wait_until):
    """While paused no version appears, commands are answered and progress goes on; resumed it trains again."""
    set_paused(running.control, True)
    assert send(running.control, "checkpoint").done
    version = running.model_version
    progress = running.control.get("trainer.progress")
    wait_until(lambda: running.control.get("trainer.progress") > progress + 3, "progress while paused")
    assert running.model_version == version
    set_paused(running.control, False)
    wait_until(lambda: running.model_version > version, "a version after the pause")


def test_checkpoint_saves_now(running):
    """`checkpoint` answers with the version that it saved."""
    answer = send(running.control, "checkpoint")
    assert answer.done
    assert running.checkpoints.find(answer.version) is not None


def test_rollback_publishes_the_old_weights_under_a_higher_version(running):
    """A rollback raises the counter, puts back exactly the saved weights and optimiser state, and says which."""
    set_paused(running.control, True)
    first = send(running.control, "checkpoint").version
    steps = running.learner.state()["adam.0.step"].clone()
    set_paused(running.control, False)
    while running.model_version < first + 3:
        pass
    set_paused(running.control, True)
    before = running.model_version
    answer = send(running.control, "rollback", first)
    assert answer.done
    assert answer.version > before
    assert published(running, answer.version) == saved(running, first)
    assert torch.equal(running.learner.state()["adam.0.step"], steps)
    assert running.control.get("restored_version") == first
    assert running.control.get("rollbacks") == 1
    events = [row for row in running.control.history() if row["event"] == 1]
    assert [row["version"] for row in events] == [answer.version]


def test_previous_goes_back_further_each_time(running):
    """`rollback previous` twice is the checkpoint before the one before."""
    set_paused(running.control, True)
    versions = []
    for _ in range(3):
        assert running.train_step()
        versions.append(send(running.control, "checkpoint").version)
    running.train_step()
    assert send(running.control, "rollback", PREVIOUS).done
    assert running.control.get("restored_version") == versions[2]
    running.train_step()
    assert send(running.control, "rollback", PREVIOUS).done
    assert running.control.get("restored_version") == versions[1]
    assert send(running.control, "rollback", PREVIOUS).done
    assert running.control.get("restored_version") == versions[0]


def test_a_rollback_to_nothing_or_to_a_damaged_checkpoint_changes_nothing(running):
    """`missing` and `unreadable` are told apart; the version and the weights stay."""
    set_paused(running.control, True)
    version = send(running.control, "checkpoint").version
    weights = running.flat.flat.clone()
    assert send(running.control, "rollback", 12345).status == "missing"
    assert send(running.control, "rollback", BEST).status == "missing"
    path = running.checkpoints.find(version).folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert send(running.control, "rollback", version).status == "unreadable"
    assert running.model_version == version
    assert torch.equal(running.flat.flat, weights)


def test_reset_publishes_fresh_weights_and_never_lowers_the_version(running):
    """A reset raises version and generation, clears the optimiser and bars what was decided before."""
    set_paused(running.control, True)
    send(running.control, "checkpoint")
    before = running.flat.flat.clone()
    version = running.model_version
    answer = send(running.control, "reset")
    assert answer.done
    assert answer.version == running.model_version == version + 1
    assert running.control.get("generation") == 1
    assert running.control.get("first_version") == answer.version
    assert not torch.equal(running.flat.flat, before)
    assert "adam.0.step" not in running.learner.state()
    assert running.checkpoints.newest().version == answer.version
    assert [row["event"] for row in running.control.history()][-1] == 2


def test_reload_takes_over_what_may_change_and_nothing_else(running, caplog):
    """Reloadable settings change at once, the optimiser's state stays; a setting that needs a restart is named."""
    set_paused(running.control, True)
    send(running.control, "checkpoint")
    steps = running.learner.state()["adam.0.step"].clone()
    plain = running.instance.config.to_dict()
    plain["trainer"].update(batch_size=16, learning_rate=0.02, buffer_capacity=9999)
    path = running.instance.data_dir / "config.json"
    path.write_text(json.dumps(plain))
    assert send(running.control, "reload").done
    assert (running.config.batch_size, running.config.learning_rate) == (16, 0.02)
    assert running.config.buffer_capacity == 256
    assert "trainer.buffer_capacity" in caplog.text
    assert torch.equal(running.learner.state()["adam.0.step"], steps)
    assert running.train_step()
    assert running.control.history()[-1]["batch"] == 16
    again = ContinuousTrainer(running.instance.build_model(), running.buffer)
    assert again.config.learning_rate == 0.02, "a trainer that starts later forgets the reload"


@pytest.mark.parametrize("text", ["{", '{"trainer": {"batch_size": 0}}', '{"trainer": {"batch_sise": 1}}'])
def test_a_bad_reload_changes_nothing(running, text):
    """A configuration that cannot be read or has a problem is answered `invalid`."""
    running.instance.data_dir.mkdir(parents=True, exist_ok=True)
    (running.instance.data_dir / "config.json").write_text(text)
    config = running.config
    assert send(running.control, "reload").status == "invalid"
    assert running.config == config


def test_a_command_that_raises_is_answered_failed(running, monkeypatch, wait_until):
    """A bug in a command does not end the trainer."""
    monkeypatch.setattr(running, "reset", lambda: 1 / 0)
    assert send(running.control, "reset").status == "failed"
    version = running.model_version
    wait_until(lambda: running.model_version > version, "training to go on")


def test_nobody_answers_without_a_trainer(toy_instance):
    """Without a trainer `send` ends with `timeout`; the command waits for the next trainer, which carries it out."""
    from tandem.trainer_proc.trainer import ContinuousTrainer

    instance = toy_instance()
    assert send(instance.control, "reset", timeout=0.05).status == "timeout"
    trainer = ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance))
    trainer.loop.beat()
    assert instance.control.get("generation") == 1
    assert instance.control.get("trainer.answered") == instance.control.get("command.sequence")


def test_an_unknown_command_raises(toy_instance):
    """A name that is no command is refused before anything is written."""
    instance = toy_instance()
    with pytest.raises(ValueError, match="exterminate"):
        send(instance.control, "exterminate")
    assert instance.control.get("command.sequence") == 0
