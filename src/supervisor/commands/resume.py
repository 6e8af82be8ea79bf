"""`ctl resume`: the trainer goes on after a pause."""

from __future__ import annotations

from ...shared.commands import set_paused
from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl resume --instance a"
EXITS = "0 training goes on; 1 nothing runs under that name"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)


def run(options: argparse.Namespace) -> int:
    """Let it go on."""
    set_paused(operate.open_running(options.instance), False)
    print(f"instance {options.instance}: training goes on")
    return 0
