"""`ctl clean`: remove what dead instances left in shared memory; living ones are never touched."""

from __future__ import annotations

import os
import time

from ...shared.errors import ForeignFile, SegmentError, TandemError
from ...shared.memory.ownership import OWN, be_private
from ...shared.memory.segments import list_segments, segment_path
from ...shared.memory.users import living, users
from .. import cleanup
from ..display import status
from ..lock import InstanceBusy, InstanceLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_MAKING = 60.0
"""Seconds within which an incomplete instance is taken to be in the making."""

EXAMPLE = "ctl clean"
EXITS = "0 (what lives, or belongs to another user, is left alone and named); 1 it could not be saved, or is another's"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--instance", metavar="NAME", help="only this one")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")


def run(options: argparse.Namespace) -> int:
    """Sweep."""
    be_private("0600")
    names = [name for name in list_segments() if options.instance in (None, name)]
    status = 0
    for name in names:
        try:
            print(f"{name}: {sweep(name, options.dry_run)}")
        except ForeignFile as error:
            if options.instance is not None:
                raise
            print(f"{name}: left alone: {error}")
        except (TandemError, OSError) as error:
            # The others are swept all the same.
            print(f"{name}: {error}")
            status = 1
    if not names:
        print("there is nothing to clean")
    return status


def sweep(instance: str, dry_run: bool = False) -> str:
    """Remove a dead instance's segments; what was done, in words.

    Raises NotSaved if they had to be left in place, ForeignFile if they are another user's.
    """
    try:
        lock = InstanceLock(instance)
    except InstanceBusy as error:
        return f"lives (process {error.holder})"
    with lock:
        alive = _alive(instance)
        if alive:
            return f"lives ({alive})"
        if dry_run:
            return "dead; would be removed"
        try:
            return "; ".join(cleanup.clean_up(instance, other_layout=True)) or "removed its lock"
        except cleanup.InUse as error:
            return f"lives (somebody uses {', '.join(error.held)})"


def _alive(instance: str) -> str:
    """Who of the instance lives, in words; empty if nobody does."""
    held = users(instance)
    if held:
        return f"somebody uses {', '.join(held)}"
    try:
        control = status.open_control(instance, whose=OWN)
    except SegmentError:
        return ""  # of another layout, and nobody holds any of it
    if control is None:
        return "it is being created" if _is_new(instance) else ""
    try:
        pids = living(control)
    finally:
        control.close()
    return f"process {', '.join(map(str, pids))}" if pids else ""


def _is_new(instance: str) -> bool:
    """True if the segment may still be in the making: its creator holds nothing yet."""
    try:
        return time.time() - os.stat(segment_path(instance, "control")).st_mtime < _MAKING
    except FileNotFoundError:
        return False
