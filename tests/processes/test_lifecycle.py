"""What lives is never removed, what was learned is never thrown away in silence, and no disk ends anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tandem.shared.configuration.config import load
from tandem.shared.instance import Instance, create_instance
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import list_segments, segment_path
from tandem.shared.saved_state import find_saved
from tandem.shared.weights.slots import Slots
from tandem.supervisor.children import process_tree
from tandem.supervisor.commands.checkpoints import listing

from .conftest import Ctl, parsed
from .test_ctl import SERVER, gone, own_server

Wait = Callable[..., Any]
MakeInstance = Callable[..., Instance]


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own on a folder; skips where that is refused."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is free."""
    with (disk / "filler").open("wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    (disk / "filler").unlink()


@contextlib.contextmanager
def covered(data: Path) -> Iterator[None]:
    """The data folder is empty and read-only."""
    with mounted(data, "ro"):
        yield


@contextlib.contextmanager
def a_file(data: Path) -> Iterator[None]:
    """The data folder is a file."""
    data.rename(data.with_name("moved"))
    data.write_text("not a folder")
    yield
    data.unlink()
    data.with_name("moved").rename(data)


def parts(instance: str) -> set[str]:
    return set(list_segments(instance).get(instance, [])) - {"lock"}


def test_no_error_of_the_disk_ends_anything(ctl: Ctl, toy_application: str, wait_until: Wait) -> None:
    """Full at a rotation, read-only, a file in its place, removed: decisions and training go on in the same processes,
    the failures are counted, checkpoints come back, and a stop that cannot keep leaves shared memory in place."""
    disk = ctl.folder / "disk"
    disk.mkdir()
    data = disk / ctl.instance
    noisy = SERVER.replace("number += 1", "number += 1; print('x' * 500, flush=True)")
    noisy = noisy.replace("print(", "quietly(").replace(
        "engine =",
        "def quietly(text, flush):\n    try:\n        os.write(1, text.encode() + b'\\n')\n    except OSError:\n"
        "        pass\nengine =",
        1,
    )
    sections: dict[str, Any] = {
        "application": toy_application,
        "data_dir": str(disk),
        "inference": {"command": own_server(ctl, noisy)},
        "trainer": {"checkpoint_interval": 0.2},
        "supervisor": {"log_max_bytes": 60_000, "log_files": 1},
    }
    with mounted(disk, "size=4m"):
        started = ctl.up(**sections)
        assert started.returncode == 0, started.stderr
        assert f"data folder: {data} (new)" in started.stdout
        control = Control.attach(ctl.instance, check_schema=False)
        pids = {name: ctl.identity(name) for name in ("supervisor", "trainer", "inference")}

        def goes_on() -> None:
            version, decided = control.get("version"), control.get("lane.0.decided")
            wait_until(lambda: control.get("version") > version + 5, "training goes on")
            wait_until(lambda: control.get("lane.0.decided") > decided + 5, "decisions go on")
            assert {name: ctl.identity(name) for name in pids} == pids

        for number, fault in enumerate((full(disk), covered(data), a_file(data))):
            errors = control.get("supervisor.disk_errors")
            with fault:
                goes_on()
                assert ctl.script("checkpoint").returncode == 1
                wait_until(lambda: control.get("trainer.unsaved") > 1, "the missing checkpoints are counted")
                if number:  # on a full disk a rotation makes room by giving up the oldest log
                    wait_until(lambda: control.get("supervisor.disk_errors") > errors, "they are counted")  # noqa: B023
                    assert control.get("supervisor.unwritten") > 0
                if number == 2:
                    (ctl.folder / "config.yaml").write_text(
                        (ctl.folder / "config.yaml").read_text().replace("min_batch_size: 1", "min_batch_size: 2")
                    )
                    refused = ctl("reload")
                    assert refused.returncode == 1
                    assert "nothing was changed" in refused.stderr
                    process_tree.send(pids["trainer"], signal.SIGKILL)
                    wait_until(lambda: ctl.identity("trainer") != pids["trainer"], "a trainer without a log is started")
                    pids["trainer"] = wait_until(
                        lambda: ctl.status["state"] == "running" and ctl.identity("trainer"), "it is ready"
                    )
                    goes_on()
            wait_until(lambda: control.get("trainer.unsaved") == 0, "checkpoints are saved again")

        shutil.rmtree(data)
        goes_on()
        wait_until(lambda: listing(data / "checkpoints"), "checkpoints are saved anew")
        assert ctl.script("restart").returncode == 0
        pids = {name: ctl.identity(name) for name in pids}
        wait_until(lambda: control.get("supervisor.unwritten") == 0, "everything is logged again")
        assert sorted(path.name for path in (data / "logs").glob("*.log")) == [
            "inference.log", "supervisor.log", "trainer.log",
        ]  # fmt: skip

        before = parts(ctl.instance)
        with full(disk):
            stopped = ctl.script("down")
            assert stopped.returncode == 1
            assert "No space left on device" in stopped.stderr
            assert "`ctl down --discard" in stopped.stderr
            assert parts(ctl.instance) == before
            version = control.get("version")
        with a_file(data):
            refused = ctl("up", "-d", "--config", "config.yaml")
            assert refused.returncode == 1
            assert f"data folder {data} cannot be used" in refused.stderr
            assert "Traceback" not in refused.stderr
            assert parts(ctl.instance) == before
        control.close()
        assert ctl.up(**sections).returncode == 0
        assert ctl.status["model_version"] >= version
        assert ctl.script("down").returncode == 0
        kept = find_saved(data / "kept")
        assert kept is not None
        assert kept.version >= version


def test_a_stop_that_cannot_keep_fails_until_it_is_told_to_discard(
    ctl: Ctl, toy_instance: MakeInstance, instance_name: str
) -> None:
    """Without a folder to keep in, `down` and `clean` name the reason, exit 1 and leave every segment;
    `down --discard` throws them away."""
    made = toy_instance()
    before = parts(instance_name)
    made.data_dir.parent.mkdir(exist_ok=True)
    made.data_dir.write_text("not a folder")
    for command in ("down", "clean"):
        refused = ctl.script(command)
        assert refused.returncode == 1
        assert str(made.data_dir) in refused.stderr + refused.stdout
        assert "Traceback" not in refused.stderr
        assert parts(instance_name) == before
    made.data_dir.unlink()
    assert ctl.script("down", "--discard").returncode == 0
    assert not parts(instance_name)
    assert not (made.data_dir / "kept").exists()


HOLDER = """
import os, sys, time
from tandem.inference_proc.engine import Engine
from tandem.shared.memory.segments import TRAINER_SEGMENT, claim_segment
engine = Engine.attach(os.environ["TANDEM_INSTANCE"])
lock = claim_segment(engine.instance.name, TRAINER_SEGMENT) if "trainer" in sys.argv else None
while True:
    engine.decide("key", [0.1, 0.2, 0.3, 0.4])
    engine.reward("key", 1.0)
    time.sleep(0.01)
"""
"""A server, and with an argument a trainer too, that somebody else started."""


def test_what_lives_in_another_namespace_is_never_removed(
    ctl: Ctl, toy_application: str, instance_name: str, wait_until: Wait
) -> None:
    """Process ids mean nothing across namespaces, flocks do: no failed `up`, no `down`, no `clean` removes a segment of
    a server that lives in another one, and it goes on recording."""
    sections: dict[str, Any] = {
        "application": toy_application,
        "data_dir": str(ctl.folder / "data"),
        "inference": {"command": "none"},
        "supervisor": {"max_restarts": 1, "backoff_first": 0.05},
    }
    create_instance(instance_name, load(ctl.folder / ctl.configure(**sections)))
    control = Control.attach(instance_name)
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a namespace")
    before = parts(instance_name)
    server = subprocess.Popen(
        [*command, sys.executable, "-c", HOLDER, "trainer"], env={**os.environ, "TANDEM_INSTANCE": instance_name}
    )
    try:
        head = "lane.0.head"
        wait_until(lambda: control.get(head) > 0, "it records")

        def lives_on() -> None:
            assert parts(instance_name) == before
            seen = control.get(head)
            wait_until(lambda: control.get(head) > seen, "it goes on recording")

        # Other settings: the instance would have to be created anew.
        refused = ctl.up(**{**sections, "weights": {"slots": 5}})
        assert refused.returncode == 1
        assert "in use" in refused.stderr
        lives_on()
        # The same settings: it is taken up again, but its trainer's place is taken.
        again = ctl.up(**sections)
        assert again.returncode == 1
        assert "has a trainer already" in again.stderr
        lives_on()
        stopped = ctl.script("down")
        assert stopped.returncode == 1
        assert "ring0" in stopped.stderr
        lives_on()
        assert "lives" in ctl.script("clean").stdout
        lives_on()
    finally:
        # The first process of a namespace ignores SIGTERM.
        server.kill()
        server.wait(20)
    control.close()
    assert ctl.script("down").returncode == 0
    assert not parts(instance_name)


def test_an_up_that_cannot_adopt_everything_leaves_alone_what_lived(
    ctl: Ctl, toy_application: str, wait_until: Wait
) -> None:
    """The trainer does not come back under a new supervisor: `up` fails, and the server that lived goes on deciding."""
    sections: dict[str, Any] = {
        "application": toy_application,
        "inference": {"command": own_server(ctl)},
        "supervisor": {"max_restarts": 1},
    }
    assert ctl.up(**sections).returncode == 0
    supervisor, trainer, server = (ctl.identity(name) for name in ("supervisor", "trainer", "inference"))
    process_tree.send(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(supervisor), "the supervisor is dead")
    process_tree.send(trainer, signal.SIGKILL)
    wait_until(lambda: gone(trainer), "the trainer is dead")
    module = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0]) / f"{toy_application}.py"
    source = module.read_text()
    module.write_text("raise RuntimeError('the application is broken')\n")
    failed = ctl("up", "-d", "--config", "config.yaml")
    assert failed.returncode == 1
    assert "the application is broken" in failed.stderr
    assert not gone(server)
    control = Control.attach(ctl.instance, check_schema=False)
    decided = control.get("lane.0.decided")
    wait_until(lambda: control.get("lane.0.decided") > decided, "the server decides")
    control.close()
    module.write_text(source)
    assert ctl("up", "-d", "--config", "config.yaml").returncode == 0
    assert ctl.identity("inference") == server


def test_memory_of_another_layout_is_one_clear_line(ctl: Ctl, toy_instance: MakeInstance, instance_name: str) -> None:
    """Every command says what it is and which command removes it; none removes it unasked, none shows a traceback."""
    made = toy_instance()
    made.control.close()
    with open(segment_path(instance_name, "control"), "r+b") as file:
        file.seek(8)
        file.write(struct.pack("<Q", 2))
    before = parts(instance_name)
    expected = {"status": 1, "version": 1, "check": 2, "down": 1, "checkpoint": 1, "restart": 1}
    for command, status in expected.items():
        result = ctl.script(command)
        text = (result.stdout + result.stderr).strip()
        assert (result.returncode, text.count("\n")) == (status, 0), text
        assert "layout version 2" in text
        assert parts(instance_name) == before
    started = ctl.up(application=made.config.application)
    assert started.returncode == 1
    assert "layout version 2" in started.stderr
    assert "ctl clean" in started.stderr
    assert parts(instance_name) == before
    assert "layout version 2" in ctl.script("clean").stdout
    assert not parts(instance_name)


def weights_in_force(instance: str) -> tuple[int, bytes]:
    attached = Instance(instance)
    slots: Slots = attached.open_slots(attached.build_model().layout)
    version = attached.control.get("version")
    data = bytes(slots.data[slots.find(version)].numpy())
    attached.control.close()
    return version, data


def test_a_rollback_that_stays_and_a_reload_of_the_own_file(ctl: Ctl, toy_application: str, wait_until: Wait) -> None:
    """`rollback` says which version it restored and what that earned; with `--pause` no step follows it. `reload`
    without a file reads the one that the instance was started with, wherever it is called from. `down --discard`
    keeps nothing, and the next `up` says what it found."""
    trainer = {"steps_per_interval": 50, "training_interval": 0.1, "live_guard_window": 20}
    started = ctl.up(application=toy_application, inference={"command": own_server(ctl)}, trainer=trainer)
    assert started.returncode == 0, started.stderr
    for version in ("20", "60"):
        assert ctl.script("version", "--wait", version).returncode == 0
        assert ctl.script("checkpoint").returncode == 0
    known = {entry["version"]: entry for entry in listing(ctl.folder / "data" / ctl.instance / "checkpoints")}
    rolled = ctl.script("rollback", "--pause")
    assert rolled.returncode == 0, rolled.stderr
    restored = int(rolled.stdout.split("has the weights of version ")[1].split(",")[0])
    assert restored in known
    assert "the checkpoint before" in rolled.stdout
    live, trained = known[restored]["live_reward"], known[restored]["training_reward"]
    assert f"{trained if live is None else live:+.3f}" in rolled.stdout
    assert "ctl resume" in rolled.stdout
    control = Control.attach(ctl.instance, check_schema=False)
    turns = control.get("trainer.progress")
    wait_until(lambda: control.get("trainer.progress") > turns + 20, "the trainer turns")
    version, weights = weights_in_force(ctl.instance)
    assert rolled.stdout.startswith(f"version {version} has")
    from safetensors.torch import load_file

    saved = load_file(ctl.folder / "data" / ctl.instance / "checkpoints" / f"{restored:012d}" / "model.safetensors")
    assert any(tensor.numpy().tobytes() in weights for tensor in saved.values())
    missing = ctl.script("rollback", "99999999", "--pause")
    assert missing.returncode == 1
    assert ctl.status["paused"]
    assert ctl.script("resume").returncode == 0
    assert ctl.script("rollback", "99999999", "--pause").returncode == 1
    assert not ctl.status["paused"], "a rollback that was not done pauses nothing"
    again = parsed(ctl.script("rollback", "--json", str(restored)))
    assert (again["restored_version"], again["paused"]) == (restored, False)
    assert again["training_reward"] == known[restored]["training_reward"]

    path = ctl.folder / "config.yaml"
    path.write_text(path.read_text().replace("min_batch_size: 1", "min_batch_size: 2"))
    elsewhere = ctl.folder / "elsewhere"
    elsewhere.mkdir()
    reloaded = subprocess.run(ctl.arguments("reload"), cwd=elsewhere, capture_output=True, text=True, check=False)
    assert reloaded.stdout.splitlines() == ["trainer.min_batch_size: 1 -> 2"], reloaded.stderr
    path.rename(elsewhere / "moved.yaml")
    lost = ctl("reload")
    assert lost.returncode == 1
    assert f"{path} does not exist" in lost.stderr
    assert ctl("reload", "--config", "nowhere.yaml").returncode == 2
    control.close()

    assert ctl.script("down", "--discard").returncode == 0
    assert not parts(ctl.instance)
    assert not (ctl.folder / "data" / ctl.instance / "kept").exists()
    newest = max(entry["version"] for entry in listing(ctl.folder / "data" / ctl.instance / "checkpoints"))
    started = ctl.up(application=toy_application, inference={"command": "none"})
    assert f"data folder: {ctl.folder / 'data' / ctl.instance} (version {newest} saved)" in started.stdout
