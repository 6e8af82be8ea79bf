"""What another user put under an instance's name is refused by name; the group operates, the owner starts and stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import other_user
import pytest
from tandem.shared.errors import ForeignFile, LayoutMismatch
from tandem.shared.memory.control import Control
from tandem.shared.memory.ownership import OWN
from tandem.shared.memory.processes import own_identity, start_ticks
from tandem.shared.memory.segments import create, list_segments, segment_path
from tandem.supervisor import cleanup, cli
from tandem.supervisor.children import process_tree
from tandem.supervisor.commands import instances
from tandem.supervisor.display import status

TRAP = """
name, victim, ticks, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
values = {"lanes": 1, "supervisor.pid": victim, "supervisor.start_ticks": ticks}
for process in ("trainer", "inference"):
    values[f"process.{process}.pid"], values[f"process.{process}.start_ticks"] = victim, ticks
    values[f"process.{process}.state"] = 2
control = Control.create(name, values, {"config": {"inference": {"command": f"touch {folder}/pwned"}},
    "folder": folder, "data_dir": folder}, int(sys.argv[5], 8))
os.close(create(name, "ring0", 4096, int(sys.argv[5], 8)))
control.finish()
"""
"""A stranger's instance that names a process and a folder of another user, and a command of the stranger's."""

HOLD = """
import fcntl, time
path = segment_path(sys.argv[1], "lock")
descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
os.write(descriptor, f"{sys.argv[2]} {sys.argv[3]}\\n".encode())
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""
"""A stranger's lock that names a process of another user's, and is held."""


@pytest.fixture
def victim() -> Iterator[tuple[int, int]]:
    """A process of this user's that must not be signalled: id and start ticks."""
    other_user.need_root()
    code = "import signal, time; [signal.signal(n, signal.SIG_DFL) for n in (10, 12, 15)]; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    yield process.pid, start_ticks(process.pid)
    assert process.poll() is None, "a process that a stranger named was signalled"
    process.kill()
    process.wait()


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A folder with something kept that must not be touched."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "state.json").write_text("ours", encoding="utf-8")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command refuses."""
    assert cli.main(list(words)) == 1
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1, text
    assert "nobody" in text
    return text


@pytest.mark.parametrize("command", ["down", "clean", "restart", "reload", "up"])
def test_a_strangers_instance_is_refused(
    instance_name: str, victim: tuple[int, int], ours: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Root runs nothing of it, signals nobody that it names and removes nothing; the file and its owner are named."""
    made = other_user.run(TRAP, instance_name, *map(str, victim), str(ours), "0666")
    assert made.returncode == 0, made.stderr
    extra = ["--config", str(ours / "c.yaml")] if command in ("up", "reload") else []
    (ours / "c.yaml").write_text("inference: {command: none}\n", encoding="utf-8")
    text = refused(capsys, command, "--instance", instance_name, *extra)
    assert segment_path(instance_name, "control") in text
    assert set(list_segments(instance_name)[instance_name]) == {"control", "ring0"}
    assert sorted(path.name for path in ours.iterdir()) == ["c.yaml", "kept"]
    assert (ours / "kept" / "state.json").read_text(encoding="utf-8") == "ours"


@pytest.mark.parametrize("command", ["down", "clean", "up"])
def test_a_strangers_lock_is_refused(
    instance_name: str, victim: tuple[int, int], capsys: pytest.CaptureFixture[str], command: str, tmp_path: Path
) -> None:
    """The process that it names is not asked to stop, whoever holds it."""
    holding = other_user.start(HOLD, instance_name, *map(str, victim))
    assert holding.stdout is not None
    try:
        assert holding.stdout.readline() == "held\n"
        (tmp_path / "c.yaml").write_text(f"data_dir: {tmp_path}\n", encoding="utf-8")
        extra = ["--config", str(tmp_path / "c.yaml")] if command == "up" else []
        assert segment_path(instance_name, "lock") in refused(capsys, command, "--instance", instance_name, *extra)
    finally:
        holding.kill()
        holding.communicate()


@pytest.mark.parametrize("part", ["lock", "control"])
def test_nothing_is_written_through_a_strangers_link(
    instance_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    """A link under an instance's name leads nowhere."""
    other_user.need_root()
    precious = tmp_path / "precious"
    precious.write_text("precious", encoding="utf-8")
    os.symlink(precious, segment_path(instance_name, part))
    os.lchown(segment_path(instance_name, part), other_user.NOBODY, other_user.NOBODY)
    refused(capsys, "down", "--instance", instance_name)
    refused(capsys, "clean", "--instance", instance_name)
    if part == "control":
        with pytest.raises(ForeignFile):
            Control.attach(instance_name)
    assert precious.read_text(encoding="utf-8") == "precious"
    os.unlink(segment_path(instance_name, part))


def test_an_engine_does_not_attach_to_a_strangers_instance(instance_name: str, victim: tuple[int, int]) -> None:
    """It would import what the stranger's configuration names. Looking, which runs nothing, is allowed."""
    made = other_user.run(TRAP, instance_name, *map(str, victim), "/tmp", "0644")
    assert made.returncode == 0, made.stderr
    with pytest.raises(ForeignFile, match="belongs to user nobody"):
        Control.attach(instance_name, timeout=5.0)
    looked = Control.attach(instance_name, writable=False)
    assert looked.get("supervisor.pid") == victim[0]
    looked.close()


def test_a_strangers_folder_is_refused(
    instance_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], control: Control
) -> None:
    """`up` writes no log into a folder of another user's, or beside a link that another user put there."""
    other_user.need_root()
    control.close()
    os.unlink(control.path)
    (tmp_path / "c.yaml").write_text(f"data_dir: {tmp_path}\ninference: {{command: none}}\n", encoding="utf-8")
    folder = tmp_path / instance_name
    folder.mkdir()
    (folder / "logs").symlink_to(tmp_path)
    os.lchown(folder / "logs", other_user.NOBODY, other_user.NOBODY)
    for path in (folder / "logs", folder):
        os.lchown(path, other_user.NOBODY, other_user.NOBODY)
        for detached in ([], ["-d"]):
            text = refused(capsys, "up", *detached, "--instance", instance_name, "--config", str(tmp_path / "c.yaml"))
            assert str(path) in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", instance_name]
    assert not list_segments(instance_name)


def test_a_stranger_cannot_keep_an_owner_from_stopping(instance_name: str, control: Control) -> None:
    """Segments that a stranger adds to a living instance's name are left, and named; the owner's go."""
    other_user.need_root()
    made = other_user.run("os.close(create(sys.argv[1], 'ring7', 100, 0o644))", control.instance)
    assert made.returncode == 0, made.stderr
    done = cleanup.stop_instance(instance_name)
    assert any("ring7" in line and "nobody" in line for line in done)
    assert list_segments(instance_name) == {instance_name: ["ring7"]}


def test_a_world_writable_instance_is_trusted_by_nobody(instance_name: str) -> None:
    """Whoever may write to it could have written anything."""
    Control.create(instance_name, {"lanes": 1}, {}, 0o666).finish()
    with pytest.raises(ForeignFile, match="every user"):
        Control.attach(instance_name)
    Control.attach(instance_name, writable=False).close()


def test_instances_skips_what_it_may_not_read(
    instance_name: str, victim: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another user's closed instance is named with its user, and the others are still listed."""
    control = Control.create(instance_name, {"lanes": 1}, {}, 0o600)
    os.close(create(instance_name, "ring0", 4096))
    control.finish()
    listed = other_user.ctl("instances", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {entry["instance"]: entry for entry in json.loads(listed.stdout)}[instance_name]
    assert (found["state"], found["model_version"], found["user"]) == ("closed", None, "root")
    asked = other_user.ctl("status", "--instance", instance_name)
    assert asked.returncode == 1
    assert "belongs to user root and has mode 0600" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1
    assert instances.describe(instance_name, ["control", "ring0"])["state"] == "dead"


@pytest.fixture
def operated(instance_name: str) -> Iterator[Callable[[int], Control]]:
    """`operated(mode)`: an instance of this user's group that a process of this user's answers for."""
    other_user.need_root()
    made = []

    def make(mode: int) -> Control:
        pid, ticks = own_identity()
        values: dict[str, int | float] = {"lanes": 1, "supervisor.pid": pid, "supervisor.start_ticks": ticks}
        values |= {"process.trainer.pid": pid, "process.trainer.start_ticks": ticks, "process.trainer.state": 2}
        control = Control.create(instance_name, values, {"config": {}, "data_dir": "/"}, mode)
        os.close(create(instance_name, "ring0", 4096, mode))
        control.finish()
        made.append(control)
        return control

    yield make
    for control in made:
        control.close()


@pytest.mark.parametrize("command", ["pause", "resume", "rollback", "reset"])
def test_the_group_may_operate_at_mode_0660(operated: Callable[[int], Control], command: str) -> None:
    """A member of the instance's group asks, and the trainer gets the command."""
    control = operated(0o660)
    control.set("command.pause", int(command == "resume"))
    extra = {"reset": ["--yes", "--timeout", "0.1"], "pause": [], "resume": []}.get(command, ["--timeout", "0.1"])
    done = other_user.ctl(command, "--instance", control.instance, *extra, group=os.getegid())
    if command in ("pause", "resume"):
        assert done.returncode == 0, done.stderr
        assert control.get("command.pause") == int(command == "pause")
    else:
        assert "did not answer" in done.stderr
        assert control.get("command.sequence") == 1


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o660])
def test_looking_and_operating_follow_the_mode(operated: Callable[[int], Control], mode: int) -> None:
    """At 0640 the group and at 0644 everybody looks, and neither changes anything."""
    control = operated(mode)
    group = other_user.NOBODY if mode == 0o644 else os.getegid()
    assert other_user.ctl("version", "--instance", control.instance, group=group).stdout == "0\n"
    if mode != 0o660:
        done = other_user.ctl("pause", "--instance", control.instance, group=group)
        assert done.returncode == 1
        assert "belongs to user root" in done.stderr
        assert control.get("command.pause") == 0
    else:
        done = other_user.ctl("version", "--instance", control.instance)
        assert done.returncode == 1
        assert "belongs to user root" in done.stderr


@pytest.mark.parametrize("command", ["down", "clean", "restart"])
def test_starting_and_stopping_belong_to_the_owner(operated: Callable[[int], Control], command: str) -> None:
    """The group may not, and is told whose it is."""
    control = operated(0o660)
    done = other_user.ctl(command, "--instance", control.instance, group=os.getegid())
    assert done.returncode == 1
    assert "belongs to user root, and you are nobody" in done.stderr
    assert len(done.stderr.splitlines()) == 1


CHANGE = """
control = Control.attach(sys.argv[1], check_schema=False, whose="anyone")
text = control._schema_text() if hasattr(control, "_schema_text") else bytes(control._schema_bytes())
from tandem.shared.memory import layout
from tandem.shared.memory.control import schema_hash
evil = text.replace(b'"data_dir":"/"', b'"data_dir":"/evil"')
control.bytes[layout.SCHEMA_AT : layout.SCHEMA_AT + len(evil)] = evil
control.set("schema_bytes", len(evil))
control.set("schema_hash", schema_hash(evil))
control.set("process.inference.pid", int(sys.argv[2]))
control.set("process.inference.start_ticks", int(sys.argv[3]))
control.set("supervisor.pid", int(sys.argv[2]))
control.set("supervisor.start_ticks", int(sys.argv[3]))
"""


def test_the_group_cannot_choose_what_the_owner_runs(
    operated: Callable[[int], Control], victim: tuple[int, int]
) -> None:
    """A member that writes another schema, or other process ids, into the shared segment is found out: no engine or
    supervisor goes by it, and the owner's `restart` and `down` signal no process of the member's choice."""
    control = operated(0o660)
    assert control.schema["data_dir"] == "/"
    pid, ticks = map(str, victim)
    done = other_user.run(CHANGE, control.instance, pid, ticks, group=os.getegid())
    assert done.returncode == 0, done.stderr
    with pytest.raises(LayoutMismatch, match="schema"):
        Control.attach(control.instance)
    with pytest.raises(LayoutMismatch, match="schema"):
        _ = control.schema
    control.set("process.inference.state", 2)
    assert status.process(control, "inference")["pid"] == victim[0]
    assert process_tree.child(control, "inference") == (0, 0)
    assert cli.main(["restart", "inference", "--instance", control.instance]) == 1
    assert cleanup.stop_children(control.instance) == []


def test_a_child_of_a_shared_instance_is_known_by_its_environment(
    operated: Callable[[int], Control], wait_until: Callable[..., Any]
) -> None:
    """What the supervisor started carries the instance's name; the owner's `down` still ends it."""
    control = operated(0o660)
    environment = {**os.environ, "TANDEM_INSTANCE": control.instance}
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"], env=environment, start_new_session=True
    )
    try:
        control.set("process.trainer.pid", child.pid)
        control.set("process.trainer.start_ticks", start_ticks(child.pid))
        wait_until(lambda: process_tree.child(control, "trainer")[0] == child.pid, "it is known")
        assert status.open_control(control.instance, whose=OWN) is not None
        assert cleanup.stop_children(control.instance) == [f"stopped process {child.pid}, which had no supervisor"]
        child.wait(10)
    finally:
        child.kill()
        child.wait()
