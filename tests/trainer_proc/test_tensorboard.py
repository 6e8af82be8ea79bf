"""TensorBoard event files."""

from __future__ import annotations

import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tandem.shared.errors import TandemError
from tandem.shared.memory import layout
from tandem.trainer_proc.tensorboard import FOLDER, TAGS, EventFiles, event_files

pytest.importorskip("tensorboardX")


def events(folder: Path) -> Iterator[Any]:
    """All events of all files in a folder, oldest file first, with every checksum verified."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto import event_pb2

    def masked(data: bytes) -> int:
        value = crc32c(data)
        return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length, length_sum = struct.unpack_from("<QI", data)
            body = data[12 : 12 + length]
            assert length_sum == masked(data[:8])
            assert struct.unpack_from("<I", data, 12 + length)[0] == masked(body)
            yield event_pb2.Event.FromString(body)
            data = data[16 + length :]


def scalars(folder: Path) -> dict[int, dict[str, float]]:
    """Step -> tag -> value."""
    return {
        event.step: {value.tag: value.simple_value for value in event.summary.value}
        for event in events(folder)
        if event.summary.value
    }


def test_each_column_of_the_history_has_a_tag() -> None:
    """Every column but version and time, which are an event's own, is written."""
    assert set(TAGS) == {name for name, _ in layout.HISTORY_COLUMNS} - {"version", "time"}


def test_steps_and_rollbacks_are_written(toy_trainer, fill, tmp_path) -> None:
    """Each step of the history is an event with its version and time; what is NaN is left out; a rollback is marked."""
    from tandem.shared.learning import event_row

    trainer = toy_trainer()
    fill(trainer.buffer)
    trainer.train_step()
    files = EventFiles(trainer.control, tmp_path / "events")
    for _ in range(3):
        assert trainer.train_step()
    trainer.metrics.record_event(event_row(9, 1))
    files.close()
    files.close()
    written = scalars(tmp_path / "events")
    rows = {int(row["version"]): row for row in trainer.control.history(since=1)}
    assert list(written) == [2, 3, 4, 9]
    assert written[9] == {"model/event": 1.0}
    for version in (2, 3, 4):
        assert written[version]["training/loss"] == pytest.approx(rows[version]["loss"], rel=1e-6)
        assert written[version]["policy/entropy"] == pytest.approx(rows[version]["entropy"], rel=1e-6)
        assert "model/event" not in written[version]
    times = {event.step: event.wall_time for event in events(tmp_path / "events")}
    assert times[3] == rows[3]["time"]


def test_a_disk_that_refuses_is_handled(toy_trainer, fill, tmp_path, caplog, monkeypatch) -> None:
    """If a file cannot be written, one warning says so, and the rows after it go to another file."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    (tmp_path / "events").write_text("a file where a folder should be")
    monkeypatch.setattr("tandem.trainer_proc.tensorboard._INTERVAL", 3600.0)
    files = EventFiles(trainer.control, tmp_path / "events")
    trainer.train_step()
    files._write_new()
    (tmp_path / "events").unlink()
    trainer.train_step()
    files.close()
    assert list(scalars(tmp_path / "events")) == [2]
    assert [record.levelname for record in caplog.records if "TensorBoard" in record.message] == ["WARNING"]


def test_a_folder_that_was_removed_is_made_again(toy_trainer, fill, tmp_path, monkeypatch) -> None:
    """Rows do not go on into a file that lost its name."""
    trainer = toy_trainer()
    fill(trainer.buffer)
    monkeypatch.setattr("tandem.trainer_proc.tensorboard._INTERVAL", 3600.0)
    files = EventFiles(trainer.control, tmp_path / "events")
    trainer.train_step()
    files._write_new()
    shutil.rmtree(tmp_path / "events")
    trainer.train_step()
    files.close()
    assert list(scalars(tmp_path / "events")) == [2]


def test_without_the_package_it_says_what_to_install(toy_instance, monkeypatch) -> None:
    """`metrics.tensorboard: true` without tensorboardX is one clear error; without the setting nothing is needed."""
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    instance = toy_instance(metrics={"tensorboard": True})
    with pytest.raises(TandemError, match="pip install 'tandem-learning\\[tensorboard\\]'"), event_files(instance):
        pass


def test_the_trainer_process_writes_and_goes_on_after_a_restart(
    toy_instance, fill, trainer_process, wait_until
) -> None:
    """With `metrics.tensorboard: true` the trainer writes event files, and so does the next trainer; the step history
    in shared memory holds the steps of both."""
    from tandem.shared.replay import ExperienceReplayBuffer

    instance = toy_instance(metrics={"tensorboard": True})
    control, folder = instance.control, instance.data_dir / FOLDER
    buffer = ExperienceReplayBuffer(instance)
    fill(buffer)
    first = trainer_process(instance.name)
    wait_until(lambda: control.get("version") >= 3, "three versions")
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed_at = control.get("version")
    before = [row["version"] for row in control.history()]
    second = trainer_process(instance.name)
    wait_until(lambda: control.get("version") >= before[-1] + 3, "three more versions")
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    after = [row["version"] for row in control.history()]
    assert before == after[: len(before)]
    missing = set(range(1, control.get("version") + 1)) - set(after)
    # A trainer that is killed between a publication and its rows leaves versions without them.
    assert missing <= set(range(int(before[-1]) + 1, killed_at + 1)), "no step is missing"
    assert after == sorted(after)
    assert {version for version in after if version > before[-1]} <= set(scalars(folder))
    buffer.close()
