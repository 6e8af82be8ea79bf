"""`ctl replay`: a checkpoint that is trained on logged decisions."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...shared.configuration.config import load
from .up import config_path

EXAMPLE = "ctl replay --log data/shop/decisions --config config.yaml --to replayed"
EXITS = "0 it was trained; 1 the log cannot be read or trained on; 2 the configuration is refused"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--log", required=True, metavar="DIR", help="a folder of logged decisions")
    parser.add_argument("--config", metavar="FILE", help="application and settings of the training, as for `ctl up`")
    parser.add_argument("--to", default="replayed", metavar="DIR", help="the checkpoint (default: replayed)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same weights (0)")
    parser.add_argument("--json", action="store_true", help="print what came of it as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Train it."""
    import logging

    from ...offline.replay import replay

    logging.getLogger("tandem").setLevel(logging.WARNING)
    made = replay(Path(options.log), load(config_path(options.config)), Path(options.to), options.seed, _tell)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    found = {"checkpoint": str(made.checkpoint), "version": made.version, "decisions": made.decisions}
    text = f"{made.checkpoint}: {made.version:,} steps on {made.decisions:,} decisions"
    print(json.dumps(found) if options.json else text)
    return 0


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rreplay: {done:,} of {total:,} decisions", end="", file=sys.stderr, flush=True)
