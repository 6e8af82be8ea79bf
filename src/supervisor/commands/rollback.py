"""`ctl rollback`: publish the weights of a checkpoint again, under a new version."""

from __future__ import annotations

from ...shared.commands import BEST, PREVIOUS
from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl rollback best"
EXITS = "0 older weights decide now; 1 there is no such checkpoint, or nothing runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument(
        "to",
        nargs="?",
        default="previous",
        metavar="VERSION|best|previous",
        help="the checkpoint: its version, the best by live reward, or the one before the weights in force (default)",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="longest wait, seconds (10)")


def run(options: argparse.Namespace) -> int:
    """Roll back."""
    argument = {"previous": PREVIOUS, "best": BEST}.get(options.to)
    if argument is None:
        if not options.to.isdecimal() or int(options.to) == PREVIOUS:
            from ...shared.errors import SupervisorError

            raise SupervisorError(f"{options.to!r} is neither a version nor `best` nor `previous`")
        argument = int(options.to)
    control = operate.open_running(options.instance)
    before = control.get("version")
    version = operate.ask(control, "rollback", argument, options.timeout)
    restored = control.get("restored_version")
    if options.json:
        import json

        print(json.dumps({"before": before, "restored_version": restored, "model_version": version}))
    else:
        print(f"version {version} has the weights of version {restored}")
    return 0
