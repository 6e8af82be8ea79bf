"""`ctl reset`: begin anew with fresh weights."""

from __future__ import annotations

import sys

from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl reset --yes"
EXITS = "0 fresh weights decide now; 1 it failed, or nothing runs; 2 --yes is missing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--yes", action="store_true", help="do it: what was learned no longer decides")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="longest wait, seconds (10)")


def run(options: argparse.Namespace) -> int:
    """Reset."""
    if not options.yes:
        print(
            f"ctl: this replaces the weights of instance {options.instance!r} by fresh ones and forgets what was"
            " experienced; `ctl reset --yes` does it. The weights of now are saved first, for a `ctl rollback`",
            file=sys.stderr,
        )
        return 2
    control = operate.open_running(options.instance)
    before = control.get("version")
    version = operate.ask(control, "reset", 0, options.timeout)
    if options.json:
        import json

        print(json.dumps({"before": before, "generation": control.get("generation"), "model_version": version}))
    else:
        print(f"version {version} has fresh weights")
    return 0
