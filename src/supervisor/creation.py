"""What a supervisor starts: the process that creates the segments, and the command lines of the children.

The segments are created by a short-lived process, so that the supervisor never imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..shared.configuration.config import Config
from ..shared.errors import SupervisorError, need_extra
from ..shared.memory import layout
from ..shared.memory.processes import module_command

_NOTE = "note: "


class StartFailed(SupervisorError):
    """The instance did not come up; the message holds the reason and the last lines of the log."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be created: `fresh` with empty rings; `config_file` is where the configuration was read, if it was."""

    instance: str
    config: Config
    fresh: bool
    config_file: str


def create(wanted: Wanted, environment: dict[str, str], wait: Callable[[int], bool]) -> list[str]:
    """Create the segments; what was set aside or left out on the way, in words.

    `wait(pidfd)` waits a while for the creator's end and says whether to give up. Raises StartFailed with the creator's
    message. A creator that fails removes what it created; one that is killed leaves it.
    """
    command = module_command("tandem.shared.instance", "--instance", wanted.instance)
    command += ["--folder", wanted.config.folder, *(["--fresh"] if wanted.fresh else [])]
    command += ["--config-file", wanted.config_file] if wanted.config_file else []
    # In memory: a full disk is no reason not to start.
    with (
        os.fdopen(os.memfd_create("wanted"), "w+") as given,
        os.fdopen(os.memfd_create("output"), "w+b") as output,
    ):
        json.dump(wanted.config.to_dict(), given)
        given.seek(0)
        creator = subprocess.Popen(
            command, stdin=given, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        stopped = _wait_for(creator, wait)
        output.seek(0)
        text = output.read().decode("utf-8", "replace").strip()
    if creator.returncode:
        if stopped:
            raise StartFailed("stopped before the instance was created")
        raise StartFailed(text or f"the instance could not be created (status {creator.returncode})")
    return [line[len(_NOTE) :] for line in text.splitlines() if line.startswith(_NOTE)]


def _wait_for(creator: subprocess.Popen[bytes], wait: Callable[[int], bool]) -> bool:
    stopped = False
    pidfd = os.pidfd_open(creator.pid)
    try:
        while creator.poll() is None:
            if wait(pidfd):
                stopped = True
                creator.kill()
    finally:
        os.close(pidfd)
    return stopped


def is_new(folder: Path) -> bool:
    """True if the data folder of an instance holds nothing that it learned."""
    if any(os.path.lexists(folder / name) for name in ("kept", "kept.old")):
        return False
    try:
        names = os.listdir(folder / "checkpoints")
    except OSError:
        return True
    return not any(name.isdecimal() for name in names)


def with_free_port(config: Config) -> Config:
    """The configuration with port 0 replaced by a free one. Raises StartFailed if the port is taken."""
    inference = config.inference
    if inference.command.strip():
        return config
    with socket.socket(socket.AF_INET6 if ":" in inference.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((inference.host, inference.port))
        except OSError as error:
            raise StartFailed(
                f"the server cannot listen on {inference.host} port {inference.port}: {error.strerror};"
                " choose another with --port (0: any free one)"
            ) from None
        port = probe.getsockname()[1]
    return dataclasses.replace(config, inference=dataclasses.replace(inference, port=port))


def same_settings(running: Config, asked: Config) -> bool:
    """True if an instance with the settings `running` may be taken up again for these."""
    if asked.inference.port == 0:
        asked = dataclasses.replace(asked, inference=dataclasses.replace(asked.inference, port=running.inference.port))
    return dataclasses.replace(running, data_dir="") == dataclasses.replace(asked, data_dir="")


def environment(instance: str) -> dict[str, str]:
    """The environment of an instance's processes."""
    # A server of the user's own, such as `uvicorn app:app`, runs in the environment that the supervisor runs in.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "TANDEM_INSTANCE": instance, "PYTHONUNBUFFERED": "1"}


def child_commands(instance: str, config: Config) -> dict[str, list[str]]:
    """The command lines of the children that this configuration asks for.

    Raises MissingExtra if it asks for the bundled server, and its packages are not installed.
    """
    commands = {}
    if config.trainer.enabled:
        commands["trainer"] = module_command("tandem.trainer_proc", "--instance", instance)
    command = config.inference.command.strip()
    if not command:
        need_extra("server", "the bundled server", ("starlette", "uvicorn", "websockets", "msgspec"))
        for name in layout.SERVERS[: config.inference.workers]:
            commands[name] = module_command("tandem.inference_proc", "--instance", instance)
    elif command != "none":
        commands["inference"] = shlex.split(command)
    return commands
