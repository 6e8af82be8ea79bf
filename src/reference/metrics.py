"""The tables of docs/metrics.md, printed by `python -m tandem.reference.metrics`.

Standard library only.
"""

from __future__ import annotations

from ..shared.telemetry.metric_families import GROUPS

BEGIN = "<!-- tables: printed by python -m tandem.reference.metrics -->"
END = "<!-- end of the tables -->"


def tables() -> str:
    """One table for each group of metrics, in Markdown."""
    lines = [BEGIN]
    for title, families in GROUPS:
        lines += ["", f"### {title}", "", "| metric | type | labels | meaning | comes from |", "|---|---|---|---|---|"]
        for family in families:
            labels = ", ".join(f"`{label}`" for label in family.labels)
            lines.append(f"| `{family.shown}` | {family.kind} | {labels} | {family.help} | {family.source} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    print(tables())
