"""What is left by dead instances goes; what lives is never touched."""

from __future__ import annotations

import argparse
import fcntl
import os
import struct
from pathlib import Path

import pytest
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import own_identity
from tandem.shared.memory.segments import create, list_segments, segment_path
from tandem.supervisor.commands import clean, instances
from tandem.supervisor.lock import InstanceLock


def make(instance: str, **values: int | float) -> None:
    """A complete control segment and one ring."""
    control = Control.create(instance, {"lanes": 1, **values}, {})
    os.close(create(instance, "ring0", 4096))
    control.finish()
    control.close()


def test_a_dead_instance_is_swept(instance_name: str) -> None:
    """Segments that nobody uses and whose processes are gone are removed."""
    make(instance_name)
    assert instances.describe(instance_name, ["control", "ring0"])["state"] == "dead"
    assert "would be removed" in clean.sweep(instance_name, dry_run=True)
    assert list_segments(instance_name)
    assert "removed 2 segments" in clean.sweep(instance_name)
    assert not list_segments(instance_name)


def test_an_instance_with_a_living_process_stays(instance_name: str) -> None:
    """A living process that the control segment names protects it, a stranger under its number does not."""
    pid, ticks = own_identity()
    make(instance_name, **{"process.inference.pid": pid, "process.inference.start_ticks": ticks})
    assert str(pid) in clean.sweep(instance_name)
    assert {"control", "ring0"} <= set(list_segments(instance_name)[instance_name])
    control = Control.attach(instance_name, check_schema=False)
    control.set("process.inference.start_ticks", ticks + 1)
    control.close()
    assert "removed" in clean.sweep(instance_name)


def test_a_ring_that_somebody_writes_to_protects_its_instance(instance_name: str) -> None:
    """The flock of a writer protects the whole instance, whatever the control segment says."""
    make(instance_name)
    writer = os.open(segment_path(instance_name, "ring0"), os.O_RDWR)
    fcntl.flock(writer, fcntl.LOCK_EX)
    assert "ring0" in clean.sweep(instance_name)
    assert instances.describe(instance_name, ["control", "ring0"])["state"] == "attached"
    os.close(writer)
    assert "removed" in clean.sweep(instance_name)


def test_an_instance_with_a_supervisor_stays(instance_name: str) -> None:
    """Whoever holds the instance's lock protects it, also before there is a control segment."""
    with InstanceLock(instance_name):
        assert "lives" in clean.sweep(instance_name)


def test_an_instance_in_the_making_stays(instance_name: str) -> None:
    """An incomplete control segment is left alone while it is young."""
    control = Control.create(instance_name, {"lanes": 1}, {})
    control.close()
    assert "being created" in clean.sweep(instance_name)
    old = os.stat(control.path).st_mtime - 600
    os.utime(control.path, (old, old))
    assert "removed" in clean.sweep(instance_name)


def of_another_layout(instance: str) -> None:
    make(instance)
    with open(segment_path(instance, "control"), "r+b") as file:
        file.seek(8)
        file.write(struct.pack("<Q", 2))


def test_another_layout_is_removed_and_blocks_no_other_sweep(
    instance_name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another layout version left goes when nobody holds its flocks, and is named as long as somebody does; the
    dead instances after it are swept either way."""
    other, dead = f"{instance_name}-a", f"{instance_name}-b"
    of_another_layout(other)
    make(dead)
    monkeypatch.setattr(clean, "list_segments", lambda: {other: [], dead: []})
    options = argparse.Namespace(instance=None, dry_run=False)
    writer = os.open(segment_path(other, "ring0"), os.O_RDWR)
    fcntl.flock(writer, fcntl.LOCK_EX)
    assert clean.run(options) == 0
    assert f"{other}: lives (somebody uses ring0)" in capsys.readouterr().out
    assert list_segments(other)
    assert not list_segments(dead)
    os.close(writer)
    assert clean.run(options) == 0
    assert "layout version 2" in capsys.readouterr().out
    assert not list_segments(other)


def test_instances_names_another_layout(instance_name: str) -> None:
    """It is listed with what it is, not hidden and not taken for one of ours."""
    of_another_layout(instance_name)
    shown = instances.describe(instance_name, ["control", "ring0"])
    assert (shown["state"], shown["model_version"]) == ("dead", None)
    assert "layout version 2" in shown["note"]


def test_what_cannot_be_kept_is_not_swept(
    instance_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead instance whose data folder takes nothing stays in shared memory, is named with the reason, and the
    others are swept."""
    first, second = f"{instance_name}-a", f"{instance_name}-b"
    (tmp_path / "file").write_text("x")
    control = Control.create(first, {"lanes": 1}, {"data_dir": str(tmp_path / "file" / "data")})
    control.finish()
    control.close()
    make(second)
    monkeypatch.setattr(clean, "list_segments", lambda: {first: [], second: []})
    assert clean.run(argparse.Namespace(instance=None, dry_run=False)) == 1
    assert "could not be saved" in capsys.readouterr().out
    assert list_segments(first)
    assert not list_segments(second)
