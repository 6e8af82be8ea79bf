"""`ctl checkpoint`: save the newest weights and the optimiser's state now."""

from __future__ import annotations

from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl checkpoint"
EXITS = "0 it is on disk; 1 it could not be saved, or nothing runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="longest wait, seconds (30)")


def run(options: argparse.Namespace) -> int:
    """Save one."""
    version = operate.ask(operate.open_running(options.instance), "checkpoint", 0, options.timeout)
    print(f"version {version} is saved")
    return 0
