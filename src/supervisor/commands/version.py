"""`ctl version`: the version counter, and nothing else."""

from __future__ import annotations

import sys

from ...shared.memory.users import living
from ..display import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl version --wait 100 --timeout 60   # until version 100 is published"
EXITS = "0 the number was printed; 1 nothing runs under that name, or --wait timed out"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--json", action="store_true", help="as a JSON object with its age in seconds")
    parser.add_argument("--watch", action="store_true", help="print each new version until Ctrl-C")
    parser.add_argument("--wait", type=int, metavar="N", help="wait until version N or a later one")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="longest --wait, seconds (60)")


def run(options: argparse.Namespace) -> int:
    """Print the version."""
    control = status.open_control(options.instance)
    if control is None or not living(control):
        print(f"ctl: nothing runs as instance {options.instance!r}", file=sys.stderr)
        return 1
    if options.watch or options.wait is not None:
        return _follow(options)
    version = control.get("version")
    if options.json:
        _print_json(options.instance, version, status.age(control.get("published_ns")))
    else:
        print(version)
    return 0


def _print_json(instance: str, version: int, age: float | None) -> None:
    import json

    print(json.dumps({"instance": instance, "model_version": version, "model_age_s": age}))


def _follow(options: argparse.Namespace) -> int:
    import time

    deadline = time.monotonic() + options.timeout
    shown = -1
    while True:
        control = status.open_control(options.instance)
        if control is None or not living(control):
            print(f"ctl: instance {options.instance!r} is gone", file=sys.stderr)
            return 1
        version = control.get("version")
        reached = options.wait is not None and version >= options.wait
        if version != shown and (options.watch or reached):
            shown = version
            if options.json:
                _print_json(options.instance, version, status.age(control.get("published_ns")))
            else:
                print(version, flush=True)
        control.close()
        if reached:
            return 0
        if options.wait is not None and time.monotonic() >= deadline:
            print(f"ctl: version {options.wait} did not come within {options.timeout:g} s", file=sys.stderr)
            return 1
        time.sleep(0.02)
