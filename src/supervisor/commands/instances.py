"""`ctl instances`: every instance that has segments in shared memory."""

from __future__ import annotations

import json
import os

from ...shared.errors import SegmentError
from ...shared.segments import list_segments, segment_path
from .. import view

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
        line = f"{entry['instance']:<24} {entry['state']:<9} version {version:<8} {entry['bytes']:>14,} bytes"
        print(f"{line}  {entry['note']}" if entry["note"] else line)
    if not found:
        print("there are none")
    return 0


def describe(name: str, parts: list[str]) -> dict[str, Any]:
    """Name, state (`dead`: segments and nobody that lives), version, bytes and a note about one instance."""
    note = ""
    try:
        shown = view.status(name)
        state, version = shown["state"], shown["model_version"]
    except SegmentError as error:
        state, version, note = "stopped", None, error.args[0].partition(": ")[2].partition(";")[0]
    if state == "stopped":
        state = "attached" if view.users(name) else "dead"
    size = 0
    for part in parts:
        try:
            size += os.stat(segment_path(name, part)).st_size
        except FileNotFoundError:
            continue
    return {"instance": name, "state": state, "model_version": version, "bytes": size, "note": note}
