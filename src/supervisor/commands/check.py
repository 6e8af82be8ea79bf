"""`ctl check`: one line and a status, as monitoring systems expect."""

from __future__ import annotations

from ...shared.errors import SegmentError
from ..display import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

EXAMPLE = "ctl check --max-age 30"
EXITS = "0 everything runs and learns, and the weights are young enough; 2 otherwise"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--max-age", type=float, metavar="S", help="oldest acceptable weights, seconds (default: any)")


def run(options: argparse.Namespace) -> int:
    """Ask it, and say in one line how it is."""
    try:
        shown = status.status(options.instance)
    except SegmentError as error:
        print(f"CRITICAL: instance {options.instance}: {error}")
        return 2
    line, bad = summary(shown, None if options.max_age is None else float(options.max_age))
    print(f"{'CRITICAL' if bad else 'OK'}: instance {options.instance}: {line}")
    return 2 if bad else 0


def summary(shown: dict[str, Any], max_age: float | None) -> tuple[str, bool]:
    """What to say about a status, and whether it is bad."""
    state, age = shown["state"], shown["model_age_s"]
    if state != "running":
        return "; ".join([state, *shown["reasons"]]), True
    if max_age is not None and (not isinstance(age, float) or age > max_age):
        paused = " (training is paused)" if shown["paused"] else ""
        return f"version {shown['model_version']} is {age} s old, more than {max_age:g} s{paused}", True
    return "; ".join([f"version {shown['model_version']}, {age} s old", *shown["notices"]]), False
