"""`ctl up`: start an instance, in the foreground or detached."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import logging.handlers
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ...shared.configuration.addresses import reachable
from ...shared.configuration.config import Config, load
from ...shared.errors import ConfigError, ForeignFile, SupervisorError, TandemError
from ...shared.logs import configure_logging
from ...shared.memory.ownership import be_private, own_folder, users_umask
from ...shared.memory.processes import module_command
from ...shared.memory.segments import refuse_foreign
from .. import lock
from ..children.logfile import LogFile, tail
from ..supervisor import Supervisor

EXAMPLE = "ctl up -d --instance a --port 8020 --config configs/continuous_training.yaml"
EXITS = "0 it was started (and, in the foreground, stopped again); 1 it did not come up; 2 the configuration is refused"

DEFAULT_CONFIG = "configs/continuous_training.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="return when everything is ready, and run on")
    parser.add_argument("--config", metavar="FILE", help=f"configuration (default: {DEFAULT_CONFIG} if it is there)")
    parser.add_argument("--port", type=int, metavar="N", help="port of the bundled server (0: any free one)")
    parser.add_argument("--fresh", action="store_true", help="start with empty rings, whatever the last stop saved")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Start it."""
    path = config_path(options.config)
    config = with_port(load(path), options.port)
    refuse_foreign(options.instance)
    holder, _ = lock.holder(options.instance)
    if holder:
        raise lock.InstanceBusy(options.instance, holder)
    be_private(config.supervisor.mode)
    _take_folder(Path(config.data_dir).absolute() / options.instance)
    if options.detach:
        return _detach(options, path, config)
    report = _to_terminal if options.report is None else _to_pipe(options.report)
    supervisor = Supervisor(options.instance, config, options.fresh, config_file=absolute(path))
    supervisor.detached = options.report is not None
    _start_logging(supervisor, config, to_file=options.report is None)
    supervisor.handle_signals(hangup=options.report is None)
    try:
        with supervisor:
            supervisor.wait_ready()
            report(_ready(supervisor))
            supervisor.run()
    except (TandemError, OSError) as error:
        if not supervisor.stopping:
            logging.getLogger(__name__).error("%s", error)
            report({"failed": "\n".join(filter(None, (str(error), supervisor.not_saved)))})
            return 1
    return 1 if supervisor.not_saved else 0


def absolute(path: str | None) -> str:
    """Where the configuration was read, for whoever reads it again from another folder; empty if it was not."""
    return os.path.abspath(path) if path is not None and os.path.exists(path) else ""


def config_path(asked: str | None) -> str | None:
    """The configuration file to read: what was asked for, else the default one if it is there.

    Raises ConfigError if what was asked for is not there.
    """
    if asked is not None:
        if not os.path.exists(asked):
            raise ConfigError(asked, ["there is no such file"])
        return asked
    return DEFAULT_CONFIG if os.path.exists(DEFAULT_CONFIG) else None


def with_port(config: Config, port: int | None) -> Config:
    """The configuration with the port of the command line."""
    if port is None:
        return config
    if not 0 <= port <= 65535:
        raise SupervisorError(f"--port: {port} is not between 0 and 65535")
    return dataclasses.replace(config, inference=dataclasses.replace(config.inference, port=port))


def _start_logging(supervisor: Supervisor, config: Config, to_file: bool) -> None:
    configure_logging(config.logging)
    if to_file:
        # Detached, standard error is the log file already.
        output = LogFile(supervisor.folder / "logs" / "supervisor.log", 0, 0)
        os.close(_open(output))
        handler = _OwnLog(output.path)
        root = logging.getLogger()
        handler.setFormatter(root.handlers[0].formatter)
        root.addHandler(handler)


class _OwnLog(logging.handlers.WatchedFileHandler):
    """A log file that comes back when it was removed; a disk that refuses costs the line and nothing else."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line if that is possible."""
        with contextlib.suppress(OSError):
            super().emit(record)


def _take_folder(folder: Path) -> None:
    try:
        own_folder(folder)
    except ForeignFile:
        raise
    except OSError as error:
        raise _unusable(folder, error) from None


def _open(output: LogFile) -> int:
    try:
        return output.open()
    except ForeignFile:
        raise
    except OSError as error:
        raise _unusable(output.path.parent.parent, error) from None


def _unusable(folder: Path, error: OSError) -> SupervisorError:
    return SupervisorError(
        f"the data folder {folder} cannot be used ({error.strerror}: {error.filename});"
        " make room or rights, or choose another with data_dir"
    )


def _ready(supervisor: Supervisor) -> dict[str, Any]:
    address, opened = reachable(supervisor.config.inference.host, supervisor.port), supervisor.opened
    assert opened is not None
    return {
        "instance": supervisor.instance,
        "adopted": opened.adopted,
        "url": f"http://{address}" if supervisor.port else None,
        "children": [child.name for child in supervisor.children],
        "data_folder": str(supervisor.folder),
        "data_found": opened.found,
        "notes": list(opened.notes),
    }


def _to_terminal(message: dict[str, Any]) -> None:
    if "failed" not in message:
        print("\n".join([*describe(message), "Ctrl-C stops it"]), flush=True)


def _to_pipe(descriptor: int) -> Any:
    def report(message: dict[str, Any]) -> None:
        try:
            os.write(descriptor, json.dumps(message).encode() + b"\n")
            os.close(descriptor)
        except OSError:
            pass  # whoever started us went away, or has had its answer

    return report


def describe(message: dict[str, Any]) -> list[str]:
    """What a person is told when everything is ready."""
    *others, last = message["children"] or ["shared memory"]
    what = f"{', '.join(others)} and {last}" if others else last
    how = "adopted: " if message["adopted"] else ""
    lines = [f"instance {message['instance']}: {how}{what} ready"]
    lines += [f"  note: {note}" for note in message["notes"]]
    lines.append(f"  data folder: {message['data_folder']} ({message['data_found']})")
    if message["url"]:
        lines += [f"  dashboard  {message['url']}/dashboard", f"  WebSocket  ws{message['url'][4:]}/ws"]
    return lines


def _detach(options: argparse.Namespace, path: str | None, config: Config) -> int:
    supervisor = Supervisor(options.instance, config)
    output = LogFile(
        supervisor.folder / "logs" / "supervisor.log", config.supervisor.log_max_bytes, config.supervisor.log_files
    )
    descriptor = _open(output)
    start = output.size()
    answer, report = os.pipe()
    command = module_command("tandem.supervisor", "up", "--instance", options.instance, "--report", str(report))
    command += ["--fresh"] if options.fresh else []
    command += [] if path is None else ["--config", path]
    command += [] if options.port is None else ["--port", str(options.port)]
    print(f"instance {options.instance}: starting", file=sys.stderr, flush=True)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True,
        pass_fds=(report,), umask=users_umask(),
    )  # fmt: skip
    os.close(report)
    os.close(descriptor)
    try:
        with os.fdopen(answer, "rb") as pipe:
            line = pipe.readline()
    except KeyboardInterrupt:
        print(f"\nctl: it goes on starting; `ctl down --instance {options.instance}` stops it", file=sys.stderr)
        raise
    message = json.loads(line) if line else {"failed": _last_words(output.path, start)}
    if "failed" in message:
        process.wait()
        print(f"ctl: {message['failed']}", file=sys.stderr)
        return 1
    process.returncode = 0  # it runs on: nobody is to wait for it
    print("\n".join(describe(message)))
    print(f"  logs       {output.path.parent}")
    return 0


def _last_words(path: Path, start: int) -> str:
    lines = tail(path, 10, start)
    return "the supervisor ended without a word" + "".join(f"\n  | {line}" for line in lines)
