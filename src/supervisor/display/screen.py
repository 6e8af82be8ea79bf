"""The screen of `ctl top` as lines of styled text: for a terminal of any size, or plain.

Standard library only; the command turns the styles into colours with rich.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .status import servers as servers_of
from .top_sample import Reader, Reading

Span = tuple[str, str]
"""Text and its style, as rich names it; an empty style is plain."""
Line = list[Span]

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#@"
_STATES = {"running": "green", "starting": "yellow", "degraded": "yellow", "backoff": "yellow", "stopping": "yellow"}
_LABEL = 11
_VALUE = 24


def sparkline(values: Iterable[float], width: int, blocks: str = BLOCKS) -> str:
    """The newest `width` values as blocks, from the least to the greatest of them; a NaN is a gap."""
    newest = list(values)[-width:] if width > 0 else []
    finite = [value for value in newest if math.isfinite(value)]
    if not finite:
        return ""
    least, span = min(finite), max(finite) - min(finite)
    steps = len(blocks) - 2
    shown = []
    for value in newest:
        height = 1 + round((value - least) / span * steps) if span and math.isfinite(value) else len(blocks) // 2
        shown.append(blocks[height] if math.isfinite(value) else " ")
    return "".join(shown)


def bar(share: float, width: int, is_unicode: bool) -> str:
    """A bar of `width` characters of which `share` is filled."""
    filled = round(min(1.0, max(0.0, share)) * width)
    full, empty = ("█", "░") if is_unicode else ("#", ".")
    return full * filled + empty * (width - filled)


def compose(reader: Reader, reading: Reading, width: int = 80, is_unicode: bool = True) -> list[Line]:
    """Everything but the line of keys: at most 21 lines, none of them wider than `width`."""
    status = reading.status
    lines = [_title(status)]
    if status["state"] == "stopped":
        return [*lines, [], [("Nothing runs under this name. `ctl up` starts it.", "")]]
    page = _Page(reader, reading, width, is_unicode)
    lines += page.model() + page.learning() + page.decisions() + page.experiences()
    return [_cut(line, width) for line in lines]


class _Page:
    def __init__(self, reader: Reader, reading: Reading, width: int, is_unicode: bool) -> None:
        self._columns = reader.columns
        self._reading = reading
        self._width = width
        self._is_unicode = is_unicode

    def model(self) -> list[Line]:
        reading, status = self._reading, self._reading.status
        age = status["model_age_s"]
        pace = "" if age is None or age < 30 else "yellow"
        version: Line = [
            _label("version"),
            (f"{status['model_version']}", "bold"),
            (f"  {_age(age)} old", pace),
            (f"   {reading.metrics['steps_per_second']:.2f} steps/s", ""),
            (f"   {reading.rollbacks} rollbacks", ""),
        ]
        if reading.restored_version:
            version.append((f" (last: to {reading.restored_version})", "dim"))
        lines = [self._rule("Model"), version]
        servers = list(servers_of(status).values())
        lines += [_process("trainer", status["trainer"]), _process("inference", servers[0])]
        if len(servers) > 1:
            lines[-1] = _workers(servers)
        supervisor = status["supervisor"]["pid"]
        lines.append([_label("supervisor"), (f"process {supervisor}", "") if supervisor else ("gone", "yellow")])
        return lines

    def learning(self) -> list[Line]:
        metrics = self._reading.metrics
        if not metrics["total_steps"]:
            return [self._rule("Learning"), [("no training step yet", "dim")]]
        reward = f"{_number(metrics['mean_reward'])}  actual {_number(metrics['actual_reward'])}"
        entropy = f"{_number(metrics['entropy'])} nats"
        fresh, fresher = self._reading.freshness
        return [
            self._rule("Learning"),
            self._graph("loss", _number(metrics["average_loss"]), "loss"),
            self._graph("reward", reward, "reward"),
            self._graph("entropy", entropy, "entropy"),
            [
                _label("lag"),
                (f"mean {_fixed(metrics['lag_mean'], 1)}, max {_fixed(metrics['lag_max'], 0)} versions", ""),
                (f"   step {_fixed(metrics['average_step_ms'], 1)} ms", ""),
                (f"   gradient {_number(metrics['gradient_norm'])}", ""),
            ],
            [
                _label("freshness"),
                ("-" if fresh is None or fresher is None else f"p50 {fresh:.2f} s   p99 {fresher:.2f} s", ""),
            ],
            [
                _label("steps"),
                (f"{metrics['total_steps']:.0f}   skipped {metrics['skipped_steps']:.0f}", ""),
                (f"   overruns {metrics['overruns']:.0f}", ""),
                _warning("   errors", metrics["total_errors"]),
                _warning("   refused", metrics["refused"]),
            ],
        ]

    def decisions(self) -> list[Line]:
        reading = self._reading
        rate = reading.decisions_per_second
        shown = "" if rate is None else f"{rate:.1f}/s"
        total = reading.lanes["send"] + reading.lanes["wait"]
        share = reading.sent_share
        sent = "none in this moment" if share is None else f"{share:.0%}"
        lines = [
            self._rule("Decisions"),
            self._graph("decisions", shown, "decisions"),
            self._graph("sent", sent, "sent"),
        ]
        times = reading.percentiles
        latency = "" if times is None else "   ".join(f"p{percent} {times[percent] * 1e3:.2f} ms" for percent in times)
        lines.append(
            [
                _label("latency"),
                (latency or "-", ""),
                (f"   total {total}", ""),
                _warning("   errors", reading.lanes["errors"]),
            ]
        )
        return lines

    def experiences(self) -> list[Line]:
        reading, buffer, lanes = self._reading, self._reading.status["buffer"], self._reading.lanes
        pending = lanes["pending"] / reading.pending_capacity if reading.pending_capacity else 0.0
        ended = "   ".join(f"{name} {lanes[name]}" for name in ("completed", "expired", "superseded", "dropped"))
        return [
            self._rule("Experiences"),
            self._gauge("ring", f"{buffer['size']} of {buffer['capacity']}", buffer["utilization"]),
            self._gauge("pending", f"{lanes['pending']} of {reading.pending_capacity}", pending),
            [_label("ended"), (ended, ""), _warning("   lost", lanes["lost"])],
        ]

    def _rule(self, title: str) -> Line:
        line = "─" if self._is_unicode else "-"
        return [(f"{line} {title} ".ljust(self._width, line), "dim")]

    def _graph(self, name: str, value: str, column: str) -> Line:
        blocks = BLOCKS if self._is_unicode else ASCII
        room = self._width - _LABEL - _VALUE - 1
        return [_label(name), (value.ljust(_VALUE), ""), (sparkline(self._columns[column], room, blocks), "cyan")]

    def _gauge(self, name: str, value: str, share: float) -> Line:
        room = max(1, self._width - _LABEL - _VALUE - 7)
        return [
            _label(name),
            (value.ljust(_VALUE), ""),
            (bar(share, room, self._is_unicode), "cyan"),
            (f" {share:5.0%}", ""),
        ]


def plain(lines: list[Line]) -> str:
    """The lines without styles."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def _title(status: dict[str, Any]) -> Line:
    state = status["state"]
    line: Line = [("tandem", "bold"), (f"  instance {status['instance']}  ", ""), (state, _STATES.get(state, "red"))]
    if status["paused"]:
        line.append(("  training paused", "yellow"))
    if status["url"]:
        line.append((f"  {status['url']}/dashboard", "dim"))
    return line


def _process(name: str, process: dict[str, Any]) -> Line:
    state = process["state"]
    line: Line = [_label(name), (state.ljust(9), _STATES.get(state, "red"))]
    if process["pid"] is None:
        return line
    line.append((f" process {process['pid']}", ""))
    if process["uptime_s"] is not None:
        line.append((f"   up {_age(process['uptime_s'])}", ""))
    line.append((f"   {process['restarts']} restarts", "yellow" if process["restarts"] else ""))
    late = process["progress_age_s"]
    if late is not None:
        line.append((f"   turned {_age(late)} ago", "yellow" if late > 3 else ""))
    return line


def _workers(servers: list[dict[str, Any]]) -> Line:
    """All processes of the server in one line: the page has no room for one each."""
    states = [server["state"] for server in servers]
    worst = next((state for state in states if state != "running"), "running")
    line: Line = [_label("inference"), (f"{states.count('running')} of {len(servers)} ".ljust(9), "")]
    line.append((worst, _STATES.get(worst, "red")))
    restarts = sum(server["restarts"] for server in servers)
    line.append((f"   {restarts} restarts", "yellow" if restarts else ""))
    ages = [server["progress_age_s"] for server in servers if server["progress_age_s"] is not None]
    if ages:
        line.append((f"   turned {_age(max(ages))} ago", "yellow" if max(ages) > 3 else ""))
    return line


def _label(name: str) -> Span:
    return name.ljust(_LABEL), "bold"


def _warning(name: str, count: float) -> Span:
    return f"{name} {count:.0f}", "yellow" if count else ""


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _cut(line: Line, width: int) -> Line:
    shown: Line = []
    for text, style in line:
        shown.append((text[:width], style))
        width -= len(text)
        if width <= 0:
            break
    return shown
