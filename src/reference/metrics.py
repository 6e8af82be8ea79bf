"""The tables of docs/metrics.md, printed by `python -m tandem.reference.metrics`.

Standard library only.
"""

from __future__ import annotations

import textwrap

from ..shared.telemetry.metric_families import GROUPS

BEGIN = "<!-- tables: printed by python -m tandem.reference.metrics -->"
END = "<!-- end of the tables -->"


def tables() -> str:
    """A list for each group of metrics, in Markdown: name, type and labels, meaning, and where the values come from."""
    lines = [BEGIN]
    for title, families in GROUPS:
        lines += ["", f"### {title}", ""]
        for family in families:
            labels = "".join(f", `{label}`" for label in family.labels)
            text = f"`{family.shown}` ({family.kind}{labels}): {family.help} From {family.source}."
            lines += textwrap.wrap(
                text, 100, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    print(tables())
