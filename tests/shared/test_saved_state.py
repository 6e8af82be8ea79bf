"""What an instance learned from survives a stop: ring, pending decisions, counters and weights."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.durable import copy_synced, read_checked, seal, unseal
from tandem.shared.experiences.experience import Experience
from tandem.shared.ids.rewards_by_id import Outcome
from tandem.shared.instance import Instance, create_instance
from tandem.shared.memory.segments import remove_instance
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.shared.saved_state import find_saved, save
from tandem.shared.weights.publisher import Publisher


def filled(instance: Instance) -> ExperienceReplayBuffer:
    buffer = ExperienceReplayBuffer(instance)
    for number in range(300):
        buffer.add(Experience(np.full(4, number, np.float32), 1, 0, 0.5, "WAIT", 0.1, timestamp=1.0))
    buffer.add(Experience(np.ones(4, np.float32), 2, 1, 0.5, "SEND", 0.1, timestamp=1.0, territory_id="home"))
    return buffer


def stop(buffer: ExperienceReplayBuffer) -> Path:
    buffer.close()
    folder = buffer.instance.data_dir / "kept"
    save(buffer.control, folder)
    remove_instance(buffer.instance.name)
    return folder


def test_a_stop_keeps_everything(toy_instance: Callable[..., Any]) -> None:
    """After keep and a new creation the records, the pending decision, the counts and the weights are back."""
    first = toy_instance()
    buffer = filled(first)
    flat = first.build_model()
    Publisher(first.open_slots(flat.layout)).publish(flat.flat, 7)
    before = buffer.get_stats()
    records = buffer.reader.recent(500)
    kept = find_saved(stop(buffer))
    assert kept is not None
    assert kept.version == 7
    create_instance(first.name, first.config)
    again = ExperienceReplayBuffer(Instance(first.name))
    _ = again.lane
    assert again.get_stats() == before
    assert again.reader.recent(500).tobytes() == records.tobytes()
    assert again.control.get("version") == 7
    slots = again.instance.open_slots(flat.layout)
    assert torch.equal(slots.data[slots.find(7)], flat.flat)
    assert again.update_pending_reward("home", 0.5) is not None


def test_an_id_is_not_given_out_twice(toy_instance: Callable[..., Any]) -> None:
    """Not even if the machine dies and the next start falls back to the state of an earlier stop; that one's ids go on
    naming their decisions, and those that died with the machine name none.
    """
    first = toy_instance()
    engine = Engine(first)
    before = engine.decide(None, [0.1, 0.2, 0.3, 0.4]).id
    engine.close()
    save(first.control, first.data_dir / "kept")
    names = [before]
    for _ in range(3):
        remove_instance(first.name)  # nothing is saved: all dies at once
        create_instance(first.name, first.config)
        engine = Engine(Instance(first.name))
        names.append(engine.decide(None, [0.1, 0.2, 0.3, 0.4]).id)
        engine.close()
    assert len(set(names)) == len(names)
    engine = Engine(Instance(first.name))
    assert [engine.reward_decision(name, 0.5) for name in names[1:3]] == [Outcome.GONE] * 2
    assert [engine.reward_decision(name, 0.5) for name in (before, names[3])] == [Outcome.COUNTED] * 2
    rows = ExperienceReplayBuffer(engine.instance).reader.recent(10)
    assert {int(row["ticket"]) for row in rows} == {int(name.partition("-")[2], 16) for name in (before, names[3])}
    engine.close()


def test_fresh_starts_empty(toy_instance: Callable[..., Any]) -> None:
    """`fresh` leaves what was kept aside."""
    first = toy_instance()
    stop(filled(first))
    create_instance(first.name, first.config, fresh=True)
    assert ExperienceReplayBuffer(Instance(first.name)).get_stats()["size"] == 0


def publish(instance: Instance, version: int, value: float) -> None:
    """Publish weights that are all `value`."""
    flat = instance.build_model()
    flat.flat.view(torch.float32).fill_(value)
    Publisher(instance.open_slots(flat.layout)).publish(flat.flat, version)


def weights(instance: Instance) -> tuple[int, float]:
    """The version in force and the mean of its weights."""
    version = instance.control.get("version")
    slots = instance.open_slots(instance.build_model().layout)
    return version, float(slots.data[slots.find(version)].view(torch.float32).mean())


def save_checkpoint(instance: Instance, version: int, value: float) -> None:
    flat = instance.build_model()
    flat.flat.view(torch.float32).fill_(value)
    instance.checkpoints().save(version, flat.state(), {"step": torch.tensor(1.0)}, {})


def test_what_another_capacity_kept_is_set_aside_and_its_weights_are_used(
    toy_instance: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What was kept with another capacity is not half-restored, and not overwritten by the next stop either."""
    first = toy_instance()
    buffer = filled(first)
    publish(first, 7, 0.5)
    folder = stop(buffer)
    trainer = dataclasses.replace(first.config.trainer, buffer_capacity=128)
    with caplog.at_level(logging.ERROR):
        create_instance(first.name, dataclasses.replace(first.config, trainer=trainer))
    assert "another capacity" in caplog.text
    again = Instance(first.name)
    assert ExperienceReplayBuffer(again).get_stats()["size"] == 0
    assert weights(again) == (7, 0.5)
    aside = list(folder.parent.glob("kept.other-*"))
    assert len(aside) == 1
    assert find_saved(aside[0]) is not None


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def edit_state(folder: Path, sealed: bool = False, **changes: Any) -> None:
    state = unseal((folder / "state.json").read_bytes())
    before = json.loads((folder / "state.json").read_bytes())
    (folder / "state.json").write_bytes(
        seal({**state, **changes}) if sealed else json.dumps({**before, **changes}).encode()
    )


def not_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": lambda kept: flip(kept / "weights.safetensors"),
    "a bit of a ring": lambda kept: flip(kept / "ring0", 5000),
    "a bit of the pending table": lambda kept: flip(kept / "pending1", 4200),
    "a bit of the state": lambda kept: flip(kept / "state.json", 40),
    "truncated weights": lambda kept: os.truncate(kept / "weights.safetensors", 30),
    "empty weights": lambda kept: os.truncate(kept / "weights.safetensors", 0),
    "no weights": lambda kept: (kept / "weights.safetensors").unlink(),
    "a truncated ring": lambda kept: os.truncate(kept / "ring1", 4096),
    "a missing ring": lambda kept: (kept / "ring0").unlink(),
    "a ring that is a folder": lambda kept: ((kept / "ring0").unlink(), (kept / "ring0").mkdir()),
    "an empty state": lambda kept: os.truncate(kept / "state.json", 0),
    "no state": lambda kept: (kept / "state.json").unlink(),
    "a state that is a list": lambda kept: (kept / "state.json").write_text("[]"),
    "a state that is {}": lambda kept: (kept / "state.json").write_text("{}"),
    "a state that is null": lambda kept: (kept / "state.json").write_text("null"),
    "a state nested too deeply": lambda kept: (kept / "state.json").write_text("[" * 100_000),
    "a state that is no text": lambda kept: (kept / "state.json").write_bytes(b"\xff\xfe{}"),
    "a negative head": lambda kept: edit_state(kept, lanes=[{"head": -1}, {}]),
    "a huge version": lambda kept: edit_state(kept, version=2**70),
    "a sealed state with a huge version": lambda kept: edit_state(kept, True, version=2**70),
    "a sealed state with a version that no file can have": lambda kept: edit_state(kept, True, version=2**60),
    "a sealed state with a negative head": lambda kept: edit_state(kept, True, lanes=[{"head": -1}, {}]),
    "a sealed state with an unknown counter": lambda kept: edit_state(kept, True, lanes=[{"wings": 1}, {}]),
    "a sealed state with text for numbers": lambda kept: edit_state(kept, True, fields={"generation": "x"}),
    "a sealed state of other types": lambda kept: edit_state(kept, True, lanes=7, files=[]),
    "a sealed state without lanes": lambda kept: edit_state(kept, True, lanes=[]),
    "not a folder": not_a_folder,
    "an empty folder": lambda kept: (shutil.rmtree(kept), kept.mkdir()),
    "a link to nowhere": lambda kept: (shutil.rmtree(kept), kept.symlink_to("/nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_set_aside_and_the_newest_good_state_is_used(
    toy_instance: Callable[..., Any], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Whatever happened to the kept folder: it is renamed and named, nothing of it is loaded, the newest good
    checkpoint is in force, and the next stop keeps again."""
    first = toy_instance()
    buffer = filled(first)
    save_checkpoint(first, 5, 0.25)
    publish(first, 7, 0.5)
    folder = stop(buffer)
    DAMAGE[damage](folder)
    create_instance(first.name, first.config)
    again = Instance(first.name)
    assert weights(again) == (5, 0.25)
    buffer = ExperienceReplayBuffer(again)
    assert buffer.get_stats()["size"] == 0
    assert not os.path.lexists(folder)
    aside = list(folder.parent.glob("kept.damaged-*"))
    assert len(aside) == 1
    assert f"{folder} is set aside as {aside[0].name}: " in caplog.text
    stop(buffer)
    assert find_saved(folder) is not None


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    toy_instance: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A creation goes back to the newest checkpoint that is whole and finite, and names each that is not."""
    first = toy_instance()
    for version, value in ((3, 0.25), (4, 0.5), (5, float("nan")), (6, 0.5), (7, 0.5)):
        save_checkpoint(first, version, value)
    folder = first.data_dir / "checkpoints"
    remove_instance(first.name)
    flip(folder / "000000000004" / "optimiser.safetensors")
    os.truncate(folder / "000000000006" / "model.safetensors", 10)
    # A version that was never trained: the manifest is not what was saved.
    manifest = folder / "000000000007" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 7', f'"version": {10**9}'))
    (folder / "000000000007").rename(folder / f"{10**9:012d}")
    (folder / f"{10**30}").mkdir()
    (folder / "\u0661\u0662").mkdir()
    (folder / "readme.txt").write_text("x")
    create_instance(first.name, first.config)
    assert weights(Instance(first.name)) == (3, 0.25)
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "000000000003"
    assert [name.rpartition("-")[0] for name in names[1:-2]] == [
        "000000000004.damaged", "000000000005.not-finite", "000000000006.damaged", f"{10**9:012d}.damaged",
        f"{10**30}.damaged",
    ]  # fmt: skip
    assert "value that is not finite" in caplog.text


def test_the_kept_state_of_another_model_is_set_aside(toy_instance: Callable[..., Any]) -> None:
    """Without a checkpoint that contradicts it, another model begins anew, and what the old one kept keeps a name."""
    first = toy_instance()
    buffer = filled(first)
    publish(first, 7, 0.5)
    folder = stop(buffer)
    name = first.config.application
    source = Path(sys.modules[name].__file__ or "")
    source.write_text(source.read_text().replace("self.layer", "self.other"))
    del sys.modules[name]
    create_instance(first.name, first.config)
    assert Instance(first.name).control.get("version") == 0
    assert len(list(folder.parent.glob("kept.other-*"))) == 1


@pytest.mark.parametrize(
    ("older", "said"),
    [
        (lambda state: state.update(layout_version=5), r"layout version 5; this program has \d"),
        (
            lambda state: state["fingerprint"]["records"].pop("choices"),
            "saved with another records; the rings start empty",
        ),
    ],
)
def test_what_an_older_record_layout_kept_is_set_aside_by_name(
    toy_instance: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    older: Callable[[dict[str, Any]], Any],
    said: str,
) -> None:
    """Of a program before choices could be forbidden, say: what it saved is kept under a name that says so."""
    first = toy_instance()
    folder = stop(filled(first))
    state = unseal((folder / "state.json").read_bytes())
    older(state)
    (folder / "state.json").write_bytes(seal(state))
    create_instance(first.name, first.config)
    assert ExperienceReplayBuffer(Instance(first.name)).get_stats()["size"] == 0
    assert re.search(said, caplog.text)
    assert [path.name.partition("-")[0] for path in folder.parent.glob("kept.*")] == ["kept.other"]


def test_a_folder_that_nobody_may_rename_in_is_left_out(
    toy_instance: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that refuses to rename, what is damaged is named and left out all the same."""
    first = toy_instance()
    buffer = filled(first)
    publish(first, 7, 0.5)
    folder = stop(buffer)
    flip(folder / "ring0", 5000)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("tandem.shared.durable.os.rename", refuse)
        create_instance(first.name, first.config)
    assert weights(Instance(first.name))[0] == 0
    assert "cannot be renamed: Read-only file system" in caplog.text


def kill_before_file_operation(number: int) -> None:
    """Kill this process just before the `number`-th thing (from 1) that it does to a file or folder."""
    done = 0

    def hook(event: str, _: object) -> None:
        nonlocal done
        if event == "open" or event.startswith(("os.", "shutil.")):
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_a_kill_at_any_step_of_a_stop_leaves_the_old_or_the_new_state(toy_instance: Callable[..., Any]) -> None:
    """A stop is killed before each of its steps on disk in turn: what an earlier stop or this one kept can be loaded,
    and a stop after the kill keeps as ever."""
    first = toy_instance(trainer={"buffer_capacity": 8}, inference={"lanes": 1})
    buffer = ExperienceReplayBuffer(first)
    buffer.add(Experience(np.ones(4, np.float32), 2, 1, 0.5, "WAIT", 0.1, timestamp=1.0))
    buffer.close()
    folder = first.data_dir / "kept"
    publish(first, 1, 0.5)
    found = set()
    for step in range(1, 500):
        save(buffer.control, folder)
        before = buffer.control.get("version")
        publish(first, before + 1, 0.5)
        pid = os.fork()
        if pid == 0:
            kill_before_file_operation(step)
            save(buffer.control, folder)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        kept = find_saved(folder)
        assert kept is not None, step
        found.add(kept.version - before)
        if not os.WIFSIGNALED(status):
            break
    assert step > 20
    assert found == {0, 1}
    save(buffer.control, folder)
    assert sorted(path.name for path in folder.parent.iterdir() if "kept" in path.name) == ["kept"]


def test_a_disk_that_refuses_leaves_what_was_kept_before(
    toy_instance: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that cannot keep raises, leaves the older kept folder as it is and nothing half-written."""
    first = toy_instance()
    buffer = filled(first)
    publish(first, 7, 0.5)
    buffer.close()
    folder = first.data_dir / "kept"
    save(buffer.control, folder)
    publish(first, 8, 0.5)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tandem.shared.durable.os.fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            save(buffer.control, folder)
    kept = find_saved(folder)
    assert kept is not None
    assert kept.version == 7
    assert sorted(path.name for path in folder.parent.iterdir() if "kept" in path.name) == ["kept"]


def test_zeros_take_no_room(tmp_path: Path) -> None:
    """A table that is nearly empty is saved as what it holds: the copy is the same, and small on the disk."""
    source, copy = tmp_path / "table", tmp_path / "copy"
    contents = bytes(300_000) + b"held" + bytes(8_000_000)
    source.write_bytes(contents)
    found = copy_synced(str(source), copy)
    assert read_checked(copy, found) == contents
    assert found["bytes"] == len(contents)
    assert copy.stat().st_blocks * 512 < 200_000
