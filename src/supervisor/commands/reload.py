"""`ctl reload`: apply changed settings to a running instance, as far as they can change while it runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shared.configuration.config import CONFIG_FILE, Config, load, parse, read_reloaded
from ...shared.durable import write_synced
from ...shared.errors import SupervisorError
from ...shared.memory.ownership import OWN, be_private
from .. import operate
from .config import flatten, reloadable_paths
from .up import config_path

if TYPE_CHECKING:
    from ...shared.memory.control import Control

EXAMPLE = "ctl reload --instance a"
EXITS = "0 what can change has changed; 1 nothing runs, there is no file, or the trainer refused; 2 the file is refused"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument(
        "--config", metavar="FILE", help="the changed file (default: the one that the instance was started with)"
    )
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="longest wait, seconds (10)")


def run(options: argparse.Namespace) -> int:
    """Validate, write and ask the trainer to read."""
    asked = None if options.config is None else load(config_path(options.config))
    control = operate.open_running(options.instance, OWN)
    be_private("0600")
    schema = control.schema
    asked = asked or load(own_file(schema, options.instance))
    path = Path(schema["data_dir"]) / CONFIG_FILE
    running = parse(schema["config"], f"instance {options.instance!r}", schema["folder"])
    if control.get("trainer.config_revision"):
        running = _in_force(path.parent, schema["folder"])
    # What the command line decided at the start is no change.
    asked = dataclasses.replace(asked, data_dir=running.data_dir)
    asked = dataclasses.replace(asked, inference=dataclasses.replace(asked.inference, port=running.inference.port))
    reloadable, fixed = changes(running, asked)
    if reloadable:
        _apply(control, path, merged(running, asked, reloadable), options.timeout)
    for name, (old, new) in reloadable.items():
        print(f"{name}: {old} -> {new}")
    for name, (old, new) in fixed.items():
        print(f"{name}: {old} -> {new} needs a restart (`ctl down`, then `ctl up`)")
    if not reloadable and not fixed:
        print("nothing has changed")
    return 0


def own_file(schema: dict[str, Any], instance: str) -> str:
    """The file that the instance was started with.

    Raises SupervisorError if there is none: the defaults are never meant by it.
    """
    path = schema.get("config_file", "")
    if not path:
        raise SupervisorError(
            f"instance {instance!r} was started without a configuration file: name one, `ctl reload --config FILE`"
        )
    if not os.path.exists(path):
        raise SupervisorError(
            f"the file that instance {instance!r} was started with: {path} does not exist; nothing was changed"
        )
    return str(path)


def _in_force(folder: Path, base: str) -> Config:
    try:
        return read_reloaded(folder, base)
    except (OSError, ValueError) as error:
        raise SupervisorError(
            f"{folder / CONFIG_FILE}, which holds the settings in force, cannot be read ({error}); nothing was changed:"
            " `ctl down` and `ctl up` begin anew"
        ) from None


def _apply(control: Control, path: Path, plain: dict[str, object], timeout: float) -> None:
    """Write the settings and have the trainer read them. Raises SupervisorError: then the old file is there again."""
    try:
        before = path.read_bytes() if path.exists() else None
        _write(path, json.dumps(plain, indent=1).encode())
    except OSError as error:
        raise SupervisorError(f"{path} cannot be written ({error.strerror}); nothing was changed") from None
    try:
        operate.ask(control, "reload", 0, timeout)
    except BaseException:
        # A refused change must not come into force with the next reload.
        if before is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, before)
        raise


Changes = dict[str, tuple[object, object]]


def changes(old: Config, new: Config) -> tuple[Changes, Changes]:
    """Path -> old and new value of the settings that differ: those that may change while running, and the others."""
    before, after, allowed = dict(flatten(old.to_dict())), dict(flatten(new.to_dict())), reloadable_paths()
    differing = {name: (before[name], after[name]) for name in after if before.get(name) != after[name]}
    reloadable = {name: pair for name, pair in differing.items() if name in allowed}
    return reloadable, {name: pair for name, pair in differing.items() if name not in allowed}


def merged(old: Config, new: Config, names: Changes) -> dict[str, object]:
    """The old settings with the new values of these."""
    plain = old.to_dict()
    for name in names:
        section, _, key = name.partition(".")
        plain[section][key] = getattr(getattr(new, section), key)
    return plain


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        write_synced(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
