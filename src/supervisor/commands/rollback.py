"""`ctl rollback`: publish the weights of a checkpoint again, under a new version."""

from __future__ import annotations

from ...shared.commands import BEST, PREVIOUS, set_paused
from ...shared.errors import SupervisorError
from .. import operate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ...shared.memory.control import Control

EXAMPLE = "ctl rollback --pause"
EXITS = "0 older weights decide now; 1 there is no such checkpoint, or nothing runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument(
        "to",
        nargs="?",
        default="previous",
        metavar="VERSION|best|previous",
        help="its version, the checkpoint whose decisions earned most, or the one before those in force (default)",
    )
    parser.add_argument(
        "--pause", action="store_true", help="pause training first, so that these weights stay (`ctl resume` ends it)"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="longest wait, seconds (10)")


def run(options: argparse.Namespace) -> int:
    """Roll back."""
    argument = {"previous": PREVIOUS, "best": BEST}.get(options.to)
    if argument is None:
        if not options.to.isdecimal() or int(options.to) == PREVIOUS:
            raise SupervisorError(f"{options.to!r} is neither a version nor `best` nor `previous`")
        argument = int(options.to)
    control = operate.open_running(options.instance)
    before = control.get("version")
    known = _checkpoints(control)
    version = _roll_back(control, argument, options)
    restored = control.get("restored_version")
    # What was saved meanwhile is known too; what was removed meanwhile is known from before.
    earned = {**known, **_checkpoints(control)}.get(restored, {})
    if options.json:
        import json

        shown = {name: earned.get(name) for name in ("live_reward", "training_reward", "saved_at")}
        paused = bool(control.get("command.pause"))
        print(
            json.dumps(
                {"before": before, "restored_version": restored, "model_version": version, **shown, "paused": paused}
            )
        )
    else:
        print("\n".join(lines(options.to, version, restored, before, earned)))
        if control.get("command.pause"):
            print(f"training is paused; `ctl resume --instance {options.instance}` lets it go on")
    return 0


def lines(asked: str, version: int, restored: int, before: int, earned: dict[str, Any]) -> list[str]:
    """What came of it, for a person: which version was restored and what its decisions earned when it was saved."""
    import time

    which = {"previous": ", the checkpoint before", "best": ", whose decisions earned most"}.get(asked, "")
    text = [f"version {version} has the weights of version {restored}{which} (version {before} was in force)"]
    if earned:
        saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(earned["saved_at"]))
        text.append(f"  saved {saved}; {_earned(earned)}")
    return text


def _earned(earned: dict[str, Any]) -> str:
    if earned["live_reward"] is not None:
        return f"its decisions earned {earned['live_reward']:+.3f} on average"
    if earned["training_reward"] is not None:
        return f"mean training reward {earned['training_reward']:+.3f}; too few decisions to say what they earned"
    return "what it earned is not known"


def _roll_back(control: Control, argument: int, options: argparse.Namespace) -> int:
    """Have it done, with training paused before it if asked for: no step can come in between."""
    was_paused = bool(control.get("command.pause"))
    if options.pause:
        set_paused(control, True)
    try:
        return operate.ask(control, "rollback", argument, options.timeout)
    except SupervisorError as error:
        if options.pause and not was_paused:
            if error.args[0].endswith(operate.LATE):
                # It will still be done, and must stay then.
                raise SupervisorError(f"{error}; training stays paused (`ctl resume`)") from None
            set_paused(control, False)
        raise


def _checkpoints(control: Control) -> dict[int, dict[str, Any]]:
    from pathlib import Path

    from .checkpoints import listing

    return {entry["version"]: entry for entry in listing(Path(control.schema["data_dir"]) / "checkpoints")}
