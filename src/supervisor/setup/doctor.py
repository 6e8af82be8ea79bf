"""The checks of `ctl doctor`: each looks at one thing and says what it means and how it is mended."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ...shared.configuration.config import Config
from ...shared.errors import ForeignFile, SegmentError
from ...shared.memory.control import Control
from ...shared.memory.processes import module_command
from ...shared.memory.segments import FOLDER, list_segments
from ...shared.memory.users import living, users
from .. import lock
from ..display import status

PACKAGES = ("torch", "numpy", "PyYAML", "psutil", "safetensors", "starlette", "uvicorn", "websockets", "msgspec")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding; `level` is ok, warn or bad; `remedy` is a command or a setting, empty if nothing is to be done."""

    level: str
    subject: str
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain data."""
        return dataclasses.asdict(self)


def all_findings(instance: str, config: Config, path: str | None) -> list[Finding]:
    """All findings."""
    findings: list[Finding] = []
    for part in (_kernel(), _versions(), _shared_memory(instance, path), _memory(), _remove_ipc(), _stale()):
        findings += part
    for part in (_permissions(config), _clock(), _port(instance, config)):
        findings += part
    return findings


def _kernel() -> Iterator[Finding]:
    try:
        descriptor = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        yield Finding("bad", "kernel", f"{platform.release()} has no pidfd", "Linux 5.3 or newer is needed")
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(0)
    os.close(descriptor)
    yield Finding("ok", "kernel", f"{platform.system()} {platform.release()}, {os.cpu_count()} cores")


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} at {sys.executable}")
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", "packages", ", ".join(found))
    if missing:
        yield Finding("bad", "packages", f"not installed: {', '.join(missing)}", "rm -r .venv && ./ctl up")


def needed(path: str | None) -> int | str:
    """Bytes that the configuration needs in shared memory, or why that cannot be told."""
    command = module_command("tandem.supervisor.setup.memory_budget", *([] if path is None else ["--config", path]))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return result.stderr.strip() or f"status {result.returncode}"
    return int(result.stdout)


def _shared_memory(instance: str, path: str | None) -> Iterator[Finding]:
    space = os.statvfs(FOLDER)
    total, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    room = f"{FOLDER}: {_size(free)} of {_size(total)} free"
    if not _is_tmpfs():
        yield Finding("warn", "shared memory", f"{FOLDER} is no tmpfs: it is slower and may be on a disk", "mount it")
    control = _own(instance)
    if control is not None:
        yield Finding("ok", "shared memory", f"{room}; the instance runs")
        return
    wanted = needed(path)
    if isinstance(wanted, str):
        yield Finding("bad", "application", wanted)
    elif wanted > free:
        yield Finding(
            "bad", "shared memory", f"{room}, {_size(wanted)} needed",
            f"mount -o remount,size={-(-wanted * 2 >> 20)}m {FOLDER}  (containers: --shm-size={-(-wanted * 2 >> 20)}m)",
        )  # fmt: skip
    else:
        yield Finding("ok", "shared memory", f"{room}, {_size(wanted)} needed")


def _is_tmpfs() -> bool:
    best = ("", "")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split()
        if (point == FOLDER or FOLDER.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1] in ("tmpfs", "ramfs")


def _own(instance: str) -> Control | None:
    try:
        control = status.open_control(instance)
    except (SegmentError, ForeignFile):
        return None
    return control if control is not None and living(control) else None


def _memory() -> Iterator[Finding]:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < 1 << 50:
            # Trainer and server each hold torch; shared memory counts too.
            low = int(text) < 2 << 30
            remedy = "raise it to 2 GiB or more (containers: --memory=2g)" if low else ""
            yield Finding("warn" if low else "ok", "memory limit", f"{_size(int(text))} by {name}", remedy)
            return
    yield Finding("ok", "memory limit", "none by a control group")


def _remove_ipc() -> Iterator[Finding]:
    if os.getuid() < 1000:
        return  # logind leaves system users alone
    try:
        text = Path("/etc/systemd/logind.conf").read_text(encoding="utf-8")
    except OSError:
        return
    words = [line.replace(" ", "") for line in text.splitlines()]
    if "RemoveIPC=no" in words or Path(f"/var/lib/systemd/linger/{os.environ.get('USER', '')}").exists():
        yield Finding("ok", "RemoveIPC", "logging out leaves shared memory alone")
    else:
        yield Finding(
            "warn", "RemoveIPC", "systemd removes this user's shared memory at the last logout",
            "loginctl enable-linger  (or RemoveIPC=no in /etc/systemd/logind.conf)",
        )  # fmt: skip


def _stale() -> Iterator[Finding]:
    dead = []
    for name in list_segments():
        with contextlib.suppress(ForeignFile):
            if lock.holder(name) == (0, 0) and not users(name) and _own(name) is None:
                dead.append(name)
    if dead:
        yield Finding("warn", "segments", f"left by dead instances: {', '.join(dead)}", "ctl clean")
    else:
        yield Finding("ok", "segments", "none is left by a dead instance")


def _permissions(config: Config) -> Iterator[Finding]:
    if not os.access(FOLDER, os.W_OK | os.X_OK):
        yield Finding("bad", "permissions", f"{FOLDER} cannot be written to", f"chmod 1777 {FOLDER}")
    if os.stat(FOLDER).st_mode & 0o1002 == 0o0002:
        yield Finding("bad", "permissions", f"every user can replace files in {FOLDER}", f"chmod 1777 {FOLDER}")
    folder = Path(config.data_dir).absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        yield Finding("bad", "data folder", f"{folder} is not a folder", "move it away, or set data_dir")
        return
    if os.access(folder, os.W_OK | os.X_OK):
        space = os.statvfs(folder)
        free = space.f_bavail * space.f_frsize
        low = free < 1 << 30
        yield Finding(
            "warn" if low else "ok", "data folder", f"{Path(config.data_dir).absolute()}, {_size(free)} free",
            "make room, or set data_dir" if low else "",
        )  # fmt: skip
    else:
        yield Finding("bad", "data folder", f"{folder} cannot be written to", f"chown {os.getuid()} {folder}")


def _clock() -> Iterator[Finding]:
    # No clock can be right that stands before this program was installed.
    installed = Path(__file__).stat().st_mtime
    if time.time() + 86400 < installed:
        yield Finding("warn", "clock", "stands before the installation of this program", "timedatectl set-ntp true")
    else:
        yield Finding("ok", "clock", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _port(instance: str, config: Config) -> Iterator[Finding]:
    inference = config.inference
    if inference.command.strip():
        yield Finding("ok", "port", "none: the server is your own")
        return
    control = _own(instance)
    if control is not None and control.get("supervisor.port") == inference.port:
        yield Finding("ok", "port", f"{inference.port} is served by the instance")
        return
    with socket.socket(socket.AF_INET6 if ":" in inference.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((inference.host, inference.port))
        except OSError as error:
            yield Finding(
                "bad", "port", f"{inference.host}:{inference.port}: {error.strerror}",
                "ctl up --port 0  (any free one), or set inference.port",
            )  # fmt: skip
            return
    yield Finding("ok", "port", f"{inference.host}:{inference.port} is free")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
