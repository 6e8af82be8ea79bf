"""`ctl config`: the settings in force and where each comes from; `--check` validates a file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...shared.configuration.config import PLAN_KEYS, Config, load, parse, read_reloaded, read_yaml
from ...shared.errors import SupervisorError
from ...shared.memory.users import living
from ..display import status
from .up import config_path

EXAMPLE = "ctl config --check configs/continuous_training.yaml"
EXITS = "0 the settings are good; 1 nothing runs under that name; 2 the file is refused"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", metavar="FILE", help="the file that `ctl up` would read (as there)")
    parser.add_argument("--check", metavar="FILE", help="only validate this file")
    parser.add_argument("--instance", metavar="NAME", help="the settings of this running instance instead")
    parser.add_argument("--json", action="store_true", help="as one JSON object: path -> value and origin")


def run(options: argparse.Namespace) -> int:
    """Print or validate them."""
    if options.check is not None:
        if not Path(options.check).is_file():
            raise SupervisorError(f"{options.check}: there is no such file")
        load(options.check)
        print(f"{options.check}: good")
        return 0
    if options.instance is not None:
        config, given, source = running_config(options.instance)
    else:
        path = config_path(options.config)
        config, given, source = load(path), given_paths(path), path or ""
    settings = {
        name: {"value": value, "origin": source if name in given else "default"}
        for name, value in flatten(config.to_dict())
    }
    if options.json:
        print(json.dumps(settings))
        return 0
    width = max(len(name) for name in settings)
    for name, entry in settings.items():
        print(f"{name:<{width}}  {json.dumps(entry['value'], ensure_ascii=False):<24}  {entry['origin']}")
    return 0


def running_config(instance: str) -> tuple[Config, set[str], str]:
    """The settings in force in a running instance, and its file; those that are not the default count as given."""
    control = status.open_control(instance)
    if control is None or not living(control):
        raise SupervisorError(f"nothing runs as instance {instance!r}")
    schema = control.schema
    config = parse(schema["config"], f"instance {instance!r}", schema["folder"])
    if control.get("trainer.config_revision"):
        with contextlib.suppress(OSError, ValueError):
            config = read_reloaded(Path(schema["data_dir"]), schema["folder"])
    control.close()
    defaults = dict(flatten(Config().to_dict()))
    given = {name for name, value in flatten(config.to_dict()) if defaults.get(name) != value}
    return config, given, schema.get("config_file") or f"instance {instance}"


def flatten(plain: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every setting; the application's own settings stay one value."""
    for name, value in plain.items():
        if isinstance(value, dict) and not (path == "" and name == "settings"):
            yield from flatten(value, f"{path}{name}.")
        else:
            yield path + name, value


def given_paths(path: str | None) -> set[str]:
    """Dotted paths of the settings that a (valid) file gives."""
    if path is None or not Path(path).is_file():
        return set()
    data = read_yaml(Path(path))[0] or {}
    names = {name for name, _ in flatten(data)} | {"settings"} & set(data)
    return {f"trainer.{name}" if name in PLAN_KEYS else name for name in names}


def reloadable_paths() -> set[str]:
    """Dotted paths of the settings that may change while an instance runs."""
    found = set()
    for section in dataclasses.fields(Config):
        default = getattr(Config(), section.name)
        if dataclasses.is_dataclass(default):
            found |= {f"{section.name}.{f.name}" for f in dataclasses.fields(default) if f.metadata.get("reloadable")}
    return found
