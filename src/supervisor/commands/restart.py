"""`ctl restart`: replace the trainer, the server, or both."""

from __future__ import annotations

from ...shared.memory import layout
from ...shared.memory.ownership import OWN
from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl restart trainer"
EXITS = "0 the new process is ready; 1 nothing runs, nobody supervises it, or it did not come back"


FIRST = f"{layout.SERVERS[0]}-1"
"""The first of several workers alone."""
NAMES = ("trainer", layout.SERVERS[0], FIRST, *layout.SERVERS[1:])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument(
        "process", nargs="?", choices=NAMES, metavar="PROCESS",
        help="only trainer, or inference (of several workers one after the other), or the second worker: inference-2",
    )  # fmt: skip
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="longest wait, seconds (120)")


def run(options: argparse.Namespace) -> int:
    """Replace them and wait."""
    names = supervised(options.instance)
    if options.process == layout.SERVERS[0]:
        names = [layout.SERVERS[0], *(name for name in names if name in layout.SERVERS[1:])]
    elif options.process:
        names = [layout.SERVERS[0] if options.process == FIRST else options.process]
    for name, pid in operate.restart(options.instance, names, options.timeout).items():
        print(f"{name}: process {pid} is ready")
    return 0


def supervised(instance: str) -> list[str]:
    """The children that the instance has."""
    from ..display import status

    control = operate.open_running(instance, OWN)
    return [name for name in operate.RESTART_SIGNALS if status.is_supervised(control, name)]
