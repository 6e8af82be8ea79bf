"""`ctl down`: stop an instance and remove its segments, whether or not its supervisor lives."""

from __future__ import annotations

from .. import cleanup

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl down --instance a"
EXITS = (
    "0 nothing of the instance is left (also if nothing ran); 1 somebody holds it and does not end, or what it learned"
    " cannot be saved: its shared memory is left in place then"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds until a stuck supervisor is killed (60)"
    )
    parser.add_argument(
        "--discard",
        action="store_true",
        help="throw away what shared memory holds instead of saving it; checkpoints stay",
    )


def run(options: argparse.Namespace) -> int:
    """Stop it."""
    from ...shared.memory.ownership import be_private
    from ...shared.memory.segments import check_instance

    be_private("0600")

    done = cleanup.stop_instance(check_instance(options.instance), options.timeout, options.discard)
    print(f"instance {options.instance}: {'; '.join(done) if done else 'nothing ran'}")
    return 0
