"""`ctl status`: what runs."""

from __future__ import annotations

from ..display import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

EXAMPLE = "ctl status --instance a --json"
EXITS = "0 all that should run does, and learns; 1 a part of it does not (degraded), or nothing runs (stopped)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    shown = status.status(options.instance)
    if options.json:
        import json

        print(json.dumps(shown))
    else:
        print("\n".join(lines(shown)))
    return 0 if shown["state"] == "running" else 1


def lines(shown: dict[str, Any]) -> list[str]:
    """The status for a person."""
    text = [f"instance {shown['instance']}: {shown['state']}{' (training paused)' if shown['paused'] else ''}"]
    if shown["state"] == "stopped":
        return text
    for name, process in {"trainer": shown["trainer"], **status.servers(shown)}.items():
        text.append(f"  {name:<10} {_process(process)}")
    supervisor = shown["supervisor"]["pid"]
    text.append(f"  supervisor {f'process {supervisor}' if supervisor else 'gone; `ctl up` adopts what runs'}")
    text.append(f"  model      version {shown['model_version']}, {_age(shown['model_age_s'])} old")
    buffer = shown["buffer"]
    text.append(
        f"  buffer     {buffer['size']} of {buffer['capacity']} ({buffer['utilization']:.0%}),"
        f" {buffer['pending']} pending"
    )
    if shown["url"]:
        text.append(f"  dashboard  {shown['url']}/dashboard")
    text += [f"  degraded   {reason}" for reason in shown["reasons"]]
    text += [f"  notice     {notice}" for notice in shown["notices"]]
    return text


def _process(process: dict[str, Any]) -> str:
    if process["pid"] is None:
        return str(process["state"])
    parts = [process["state"], f"process {process['pid']}"]
    if process["uptime_s"] is not None:
        parts.append(f"up {_age(process['uptime_s'])}")
    parts.append(f"{process['restarts']} restarts")
    if process["progress_age_s"] is not None:
        parts.append(f"progress {_age(process['progress_age_s'])} ago")
    return ", ".join(parts)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
