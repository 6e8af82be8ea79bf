"""`ctl top`: the status and the newest figures, again and again."""

from __future__ import annotations

import sys
import time

from .. import view
from .status import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ...shared.control import Control

EXAMPLE = "ctl top --every 2"
EXITS = "0 shown until Ctrl-C; 1 with --once, if the instance is not running"

_BARS = " ▁▂▃▄▅▆▇█"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between two looks (1)")
    parser.add_argument("--once", action="store_true", help="look once")


def run(options: argparse.Namespace) -> int:
    """Show it."""
    decided: tuple[float, int] | None = None
    try:
        while True:
            shown = view.status(options.instance)
            text = lines(shown)
            control = None if shown["state"] == "stopped" else view.open_control(options.instance)
            if control is not None:
                now = time.monotonic()
                count = sum(control.get(f"lane.{index}.decided") for index in range(control.get("lanes")))
                rate = None if decided is None else (count - decided[1]) / max(1e-9, now - decided[0])
                decided = (now, count)
                text += figures(control, rate)
                control.close()
            if options.once:
                print("\n".join(text))
                return 0 if shown["state"] == "running" else 1
            sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(text) + "\n")
            sys.stdout.flush()
            time.sleep(options.every)
    except KeyboardInterrupt:
        return 0


def figures(control: Control, rate: float | None) -> list[str]:
    """Training figures and the last minute of loss and reward."""
    rows = control.history(limit=60)
    text = [
        "",
        f"  decisions  {'-' if rate is None else f'{rate:.0f}/s'}",
        f"  steps      {control.get('metrics.steps_per_second'):.2f}/s,"
        f" {control.get('metrics.average_step_ms'):.1f} ms each, {control.get('metrics.total_errors')} failed,"
        f" {control.get('metrics.refused')} refused, {control.get('metrics.overruns')} overrun",
        f"  lag        {control.get('metrics.lag_mean'):.1f} versions (largest {control.get('metrics.lag_max'):.0f})",
    ]
    for name in ("loss", "reward"):
        values = [row[name] for row in rows if row["event"] == 0]
        if values:
            text.append(f"  {name:<9}  {values[-1]:+.4f}  {spark(values)}")
    return text


def spark(values: list[float]) -> str:
    """The values as a line of bars between their least and greatest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[1 + int((value - low) / span * (len(_BARS) - 2))] for value in values)
