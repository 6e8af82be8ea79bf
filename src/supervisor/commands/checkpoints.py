"""`ctl checkpoints`: what is on disk to roll back to."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from .logs import data_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

EXAMPLE = "ctl checkpoints --json"
EXITS = "0 (also if there are none)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--data-dir", default="data", help="data_dir of an instance that does not run (data)")


def run(options: argparse.Namespace) -> int:
    """List them."""
    folder = data_folder(options.instance, options.data_dir) / "checkpoints"
    found = listing(folder)
    damaged = sorted(path.name for path in folder.glob("*.damaged-*"))
    if options.json:
        print(json.dumps({"folder": str(folder), "checkpoints": found, "set_aside": damaged}))
        return 0
    for entry in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["saved_at"]))
        score = "" if entry["live_reward"] is None else f"  decisions earned {entry['live_reward']:+.3f}"
        print(f"version {entry['version']:>8}  {when}  {entry['bytes']:>12,} bytes{score}")
    if not found:
        print(f"there are none in {folder}")
    for name in damaged:
        print(f"{name} is damaged and was set aside")
    return 0


def listing(folder: Path) -> list[dict[str, Any]]:
    """The checkpoints of a folder, oldest first, from their manifests; unreadable ones are left out."""
    found = []
    for path in sorted(folder.glob("[0-9]*/manifest.json")):
        if path.parent.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                found.append(_entry(path))
    return found


def _entry(path: Path) -> dict[str, Any]:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    metrics = manifest.get("metrics") or {}
    return {
        "version": int(manifest["version"]),
        "saved_at": path.stat().st_mtime,
        "bytes": sum(file.stat().st_size for file in path.parent.iterdir()),
        "live_reward": _number(metrics.get("live_score", metrics.get("live_reward"))),
        "training_reward": _number(metrics.get("mean_reward")),
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
