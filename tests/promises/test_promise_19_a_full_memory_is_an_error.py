"""A full shared-memory file system is a typed error at creation, never a SIGBUS later."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from proof import KIT, figure

CODE = """
import json, os, sys
sys.path.append({kit!r})
from tandem.shared.memory import segments
from tandem.shared.errors import SegmentSpaceError
{mutant}
from channel_kit import make_channel
found = {{}}
try:
    made = make_channel("small", weights_bytes=32 << 20)
    for data in made.slots().data:
        data.fill_(1)
except SegmentSpaceError as error:
    found = {{"needed": error.needed, "free": error.free, "text": str(error)}}
found["left"] = sorted(os.listdir(segments.FOLDER))
print(json.dumps(found))
"""
SPARSE = """
def sparse(instance, part, size, mode=0o600):
    path = segments.segment_path(instance, part)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    os.ftruncate(descriptor, size)
    return descriptor
segments.create = sparse
"""


def in_small_memory(mutant: str = "") -> subprocess.CompletedProcess[str]:
    """Create an instance that needs 128 MB in a mount namespace whose /dev/shm has 64; skips where that is refused."""
    code = CODE.format(kit=str(KIT), mutant=mutant)
    for options in (["-m"], ["-rm"]):
        probe = subprocess.run(
            ["unshare", *options, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True, check=False
        )
        if probe.returncode == 0:
            return subprocess.run(
                [
                    "unshare",
                    *options,
                    "sh",
                    "-c",
                    'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$0" -c "$1"',
                    sys.executable,
                    code,
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
    pytest.skip("no mount namespace can be made here")


def test_promise_19_a_full_memory_is_an_error() -> None:
    """The error names bytes needed and free and the way out."""
    done = in_small_memory()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["needed"] > 32 << 20
    assert 0 <= found["free"] < 64 << 20
    assert "--shm-size" in found["text"]
    figure(19, f"typed error: needs {found['needed']:,}, free {found['free']:,}")


def test_a_sparse_segment_kills_its_writer() -> None:
    """The same creation by ftruncate succeeds, and the writer dies of SIGBUS."""
    done = in_small_memory(SPARSE)
    assert done.returncode in (-7, 128 + 7)


def test_promise_19_an_instance_that_does_not_fit_leaves_nothing(
    toy_application: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, instance_name: str
) -> None:
    """Creating an instance removes what it had created before the room ended."""
    import errno
    import os

    from tandem.shared.configuration.config import parse
    from tandem.shared.errors import SegmentSpaceError
    from tandem.shared.instance import create_instance
    from tandem.shared.memory.segments import list_segments

    allocate: Callable[..., None] = os.posix_fallocate
    calls: list[int] = []

    def full_after_three(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "full")
        allocate(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full_after_three)
    with pytest.raises(SegmentSpaceError):
        create_instance(instance_name, parse({"application": toy_application, "data_dir": str(tmp_path)}, "the test"))
    assert list_segments(instance_name) == {}
