"""What a running instance writes to disk is as private as its memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .conftest import Ctl
from .test_ctl import SERVER, own_server


def open_paths(folder: Path) -> list[str]:
    """What other users may read, write or enter."""
    return [
        f"{path.relative_to(folder)} {path.lstat().st_mode & 0o777:04o}"
        for path in (folder, *folder.rglob("*"))
        if path.lstat().st_mode & 0o077
    ]


def test_files_are_as_private_as_the_memory_whatever_the_umask(
    ctl: Ctl, toy_application: str, wait_until: Callable[..., Any]
) -> None:
    """With a umask of 0 and a data folder that is open from before, nothing of an instance is open to others after
    checkpoints, logs, event files, a reload and a stop; the user's own server keeps the umask that `ctl` was given."""
    server = SERVER.replace("engine.mark_ready()", "open('served', 'w').close(); engine.mark_ready()")
    sections: dict[str, Any] = {
        "application": toy_application,
        "inference": {"command": own_server(ctl, server)},
        "metrics": {"tensorboard": True},
        "supervisor": {"log_max_bytes": 4096},
    }
    data = ctl.folder / "data" / ctl.instance
    (data / "logs").mkdir(parents=True)
    data.chmod(0o777)
    (data / "logs" / "trainer.log").write_text("from before " * 1000, encoding="utf-8")
    (data / "logs" / "trainer.log").chmod(0o666)
    (data / "logs").chmod(0o755)

    def run(command: str, *words: str) -> None:
        done = subprocess.run(
            ctl.arguments(command, *words), cwd=ctl.folder, umask=0, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    run("up", "-d", "--config", ctl.configure(**sections))
    wait_until(lambda: ctl.status["model_version"] > 3, "it trains")
    run("checkpoint")
    ctl.configure(**{**sections, "trainer": {"learning_rate": 0.01}})
    run("reload", "--config", "config.yaml")
    wait_until(lambda: list(data.glob("tensorboard/events*")), "there are event files")
    wait_until((data / "logs" / "trainer.log.1").exists, "a log was rotated")
    assert open_paths(data / "checkpoints") == []
    run("down")
    assert {"checkpoints", "kept", "logs", "tensorboard", "config.json"} <= set(os.listdir(data))
    (data / "logs").chmod(0o700)  # a folder of an earlier version's: nobody gets through the one above it
    assert open_paths(data) == []
    assert (ctl.folder / "served").stat().st_mode & 0o777 == 0o666
