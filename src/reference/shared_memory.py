"""The tables of docs/shared-memory.md, made from layout.py.

`python -m tandem.reference.shared_memory docs/shared-memory.md` brings them up to date. Standard library only. What
stands between two markers of the page is replaced; everything else is left as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..shared.memory import layout

_START, _END = "<!-- table {} -->", "<!-- end {} -->"


def _rows(fields: list[tuple[str, str, str]], start: int) -> list[str]:
    lines = ["| offset | field | type | meaning |", "|---:|---|---|---|"]
    lines += [
        f"| {start + 8 * index} | `{name}` | {kind} | {text} |" for index, (name, kind, text) in enumerate(fields)
    ]
    return lines


def _control() -> list[str]:
    lines = []
    further = {f"process {name}": name for name in layout.SERVERS[2:]}
    for title, writer, start, fields in layout.GROUPS:
        if title in further:
            if further[title] == layout.SERVERS[-1]:
                lines += [
                    f"The same for each further worker, 64 bytes apart, to `{layout.SERVERS[-1]}` at {start}.",
                    "",
                ]
            continue
        lines += [f"**{title}** (written by: {writer})", "", *_rows(fields, start), ""]
    return lines[:-1]


def _regions() -> list[str]:
    names = {"slot": "weights slots", "lane": "writer lanes"}
    lines = ["| offset | bytes | what |", "|---:|---:|---|", f"| 0 | {layout.SLOTS_AT} | single fields |"]
    lines += [
        f"| {start} | {stride * count} | {names[name]}: {count} times {stride} bytes |"
        for name, _, start, stride, count, _ in layout.TABLES
    ]
    rows, row = layout.HISTORY_ROWS, layout.HISTORY_ROW_BYTES
    lines += [
        f"| {layout.HISTORY_AT} | {rows * row} | history of steps: {rows} rows of {row} bytes |",
        f"| {layout.SCHEMA_AT} | {layout.SCHEMA_ROOM} | schema: JSON, UTF-8, `schema_bytes` long |",
        f"| {layout.CONTROL_BYTES} | | end |",
    ]
    return lines


def _repeated(wanted: str) -> list[str]:
    for name, writer, start, stride, count, fields in layout.TABLES:
        if name == wanted:
            return [
                f"Entry i (from 0, at most {count}) starts at {start} + {stride} * i. Written by: {writer}.",
                "",
                *_rows(fields, 0),
            ]
    raise KeyError(wanted)


def _history() -> list[str]:
    fields = [("number", "u64", "from 1; 0 while the row is written")]
    fields += [(name, "f64", text) for name, text in layout.HISTORY_COLUMNS]
    start, rows, row = layout.HISTORY_AT, layout.HISTORY_ROWS, layout.HISTORY_ROW_BYTES
    return [
        f"Row n (from 1) starts at {start} + {row} * ((n - 1) mod {rows}). Written by: trainer.",
        "",
        *_rows(fields, 0),
    ]


def _constants() -> list[str]:
    return [
        "| constant | value |",
        "|---|---|",
        f"| magic | 0x{layout.MAGIC:016X} as a little-endian u64, the bytes `TANDEM`, 0, 1 |",
        f"| layout version | {layout.LAYOUT_VERSION} |",
        f"| states | {', '.join(f'{index} {name}' for index, name in enumerate(layout.STATES))} |",
        f"| commands | {', '.join(f'{index} {name}' for index, name in enumerate(layout.COMMANDS))} |",
        f"| answers | {', '.join(f'{index} {name}' for index, name in enumerate(layout.ANSWERS))} |",
    ]


def tables() -> dict[str, str]:
    """The generated parts of the page by name."""
    return {
        "constants": "\n".join(_constants()),
        "regions": "\n".join(_regions()),
        "control": "\n".join(_control()),
        "slot": "\n".join(_repeated("slot")),
        "lane": "\n".join(_repeated("lane")),
        "history": "\n".join(_history()),
    }


def fill(page: str) -> str:
    """The page with its tables up to date. Raises ValueError if a marker is missing."""
    for name, text in tables().items():
        start, end = _START.format(name), _END.format(name)
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no {start} ... {end}")
        page = f"{before}{start}\n\n{text}\n\n{end}{after}"
    return page


def main(arguments: list[str]) -> int:
    """Bring the pages named up to date."""
    for name in arguments:
        path = Path(name)
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
