"""`ctl pause`: the trainer idles, decisions go on with the newest weights."""

from __future__ import annotations

from ...shared.commands import set_paused
from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl pause --instance a"
EXITS = "0 training is paused; 1 nothing runs under that name"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)


def run(options: argparse.Namespace) -> int:
    """Pause it."""
    set_paused(operate.open_running(options.instance), True)
    print(f"instance {options.instance}: training is paused; `ctl resume` lets it go on")
    return 0
