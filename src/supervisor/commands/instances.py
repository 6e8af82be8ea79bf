"""`ctl instances`: every instance that has segments in shared memory."""

from __future__ import annotations

import json
import os

from ...shared.errors import ForeignFile, SegmentError
from ...shared.memory.ownership import owner_name
from ...shared.memory.segments import list_segments, segment_path
from ...shared.memory.users import users
from ..display import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

EXAMPLE = "ctl instances"
EXITS = "0 (also if there are none)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="as one JSON list")


def run(options: argparse.Namespace) -> int:
    """List them."""
    found = [describe(name, parts) for name, parts in list_segments().items()]
    if options.json:
        print(json.dumps(found))
        return 0
    for entry in found:
        version = "-" if entry["model_version"] is None else entry["model_version"]
        size = f"{entry['bytes']:>14,} bytes"
        line = f"{entry['instance']:<24} {entry['state']:<9} version {version:<8} {size}  {entry['user']}"
        print(f"{line}  {entry['note']}" if entry["note"] else line)
    if not found:
        print("there are none")
    return 0


def describe(name: str, parts: list[str]) -> dict[str, Any]:
    """Name, state, version, bytes, owner and a note about one instance.

    The state is `dead` for segments of which nobody lives, and `closed` where this user may not look.
    """
    note = ""
    try:
        shown = status.status(name)
        state, version = shown["state"], shown["model_version"]
    except SegmentError as error:
        state, version, note = "stopped", None, error.args[0].partition(": ")[2].partition(";")[0]
    except ForeignFile:
        state, version = "closed", None
    if state == "stopped":
        state = "attached" if users(name) else "dead"
    size, owner = 0, None
    for part in parts:
        try:
            facts = os.lstat(segment_path(name, part))
        except FileNotFoundError:
            continue
        size += facts.st_size
        owner = facts.st_uid if part == "control" or owner is None else owner
    user = "" if owner is None else owner_name(owner)
    return {"instance": name, "state": state, "model_version": version, "bytes": size, "user": user, "note": note}
