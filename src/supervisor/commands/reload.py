"""`ctl reload`: apply changed settings to a running instance, as far as they can change while it runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from ...shared.config import CONFIG_FILE, Config, load, parse, read_reloaded
from ...shared.ownership import OWN, be_private
from .. import operate
from .config import flatten, live_paths
from .up import config_path

EXAMPLE = "ctl reload --config configs/continuous_training.yaml"
EXITS = "0 what can change has changed; 1 nothing runs, or the trainer refused; 2 the file is refused: nothing changed"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--config", metavar="FILE", help="the changed file (default: as for `ctl up`)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="longest wait, seconds (10)")


def run(options: argparse.Namespace) -> int:
    """Validate, write and ask the trainer to read."""
    asked = load(config_path(options.config))
    control = operate.open_running(options.instance, OWN)
    be_private("0600")
    schema = control.schema
    path = Path(schema["data_dir"]) / CONFIG_FILE
    running = parse(schema["config"], f"instance {options.instance!r}", schema["folder"])
    if control.get("trainer.config_revision"):
        running = read_reloaded(path.parent, schema["folder"])
    # What the command line decided at the start is no change.
    asked = dataclasses.replace(asked, data_dir=running.data_dir)
    asked = dataclasses.replace(asked, inference=dataclasses.replace(asked.inference, port=running.inference.port))
    live, fixed = changes(running, asked)
    if live:
        before = path.read_bytes() if path.exists() else None
        _write(path, merged(running, asked, live))
        try:
            operate.ask(control, "reload", 0, options.timeout)
        except BaseException:
            # A refused change must not come into force with the next reload.
            if before is None:
                path.unlink()
            else:
                path.write_bytes(before)
            raise
    for name, (old, new) in live.items():
        print(f"{name}: {old} -> {new}")
    for name, (old, new) in fixed.items():
        print(f"{name}: {old} -> {new} needs a restart (`ctl down`, then `ctl up`)")
    if not live and not fixed:
        print("nothing has changed")
    return 0


Changes = dict[str, tuple[object, object]]


def changes(old: Config, new: Config) -> tuple[Changes, Changes]:
    """Path -> old and new value of the settings that differ: those that may change while running, and the others."""
    before, after, allowed = dict(flatten(old.to_dict())), dict(flatten(new.to_dict())), live_paths()
    differing = {name: (before[name], after[name]) for name in after if before.get(name) != after[name]}
    live = {name: pair for name, pair in differing.items() if name in allowed}
    return live, {name: pair for name, pair in differing.items() if name not in allowed}


def merged(old: Config, new: Config, names: Changes) -> dict[str, object]:
    """The old settings with the new values of these."""
    plain = old.to_dict()
    for name in names:
        section, _, key = name.partition(".")
        plain[section][key] = getattr(getattr(new, section), key)
    return plain


def _write(path: Path, plain: dict[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    os.replace(temporary, path)
