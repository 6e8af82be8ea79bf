"""`ctl demo`: play the bundled game against a server that learns from it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from ...shared.configuration.config import load
from ..demo import Game, ProgressLine, play, quiet_logging
from .up import config_path, with_port

EXAMPLE = "ctl demo --seconds 30 --json"
EXITS = "0 it was played; 1 something did not start or failed; 2 the configuration is refused; 130 stopped by a signal"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, metavar="N", help="end after N seconds (default: Ctrl-C ends it)")
    parser.add_argument(
        "--speed", type=float, metavar="X", default=100.0, help="the game's time against real time (default: 100)"
    )
    parser.add_argument("--territories", type=int, metavar="N", help="territories played at once")
    parser.add_argument("--seed", type=int, metavar="K", help="of the game's world")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port of the server (default: any free one)")
    parser.add_argument("--config", metavar="FILE", help="configuration, as for `ctl up`")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object, as the last line")


def run(options: argparse.Namespace) -> int:
    """Play it."""
    config = with_port(load(config_path(options.config)), options.port)
    if config.inference.command.strip():
        # The demonstration is of the bundled server.
        config = dataclasses.replace(config, inference=dataclasses.replace(config.inference, command=""))
    quiet_logging()
    game = Game(options.seconds, options.speed, options.territories, options.seed)
    result = play(config, game, _tell, ProgressLine())
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if result is None:
        return 130
    print(json.dumps(result) if options.json else summary(result))
    return 0


def _tell(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


def summary(result: dict[str, Any]) -> str:
    """The figures for a person."""
    version, reward, latency = result["model_version"], result["mean_reward"], result["latency_ms"]
    return "\n".join(
        (
            f"{result['decisions']} decisions ({result['decisions_per_s']:.0f}/s), {result['send']} sent,"
            f" {result['wait']} blocked, {result['errors']} errors",
            f"answered in {latency['p50']:.2f} ms (median), {latency['p99']:.2f} ms (99 %)",
            f"{result['completed']} experiences completed, {result['pending']} pending,"
            f" {result['training_steps']} training steps",
            f"version {version['first']} -> {version['last']}, mean reward"
            f" {_number(reward['first_quarter'])} -> {_number(reward['last_quarter'])}",
        )
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
