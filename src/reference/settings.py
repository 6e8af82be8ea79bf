"""The documented configuration file: every setting with its default, its meaning and what is allowed.

`python -m tandem.reference.settings` prints what `configs/continuous_training.yaml` holds.
"""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any, get_type_hints

import yaml

from ..shared.configuration.config import Config
from ..shared.configuration.settings import allowed, default_of

_HEAD = """\
# Every setting of an instance, with its default. A missing file or key means the default.
# The first ten settings of the section `trainer` may also stand at the top level, as in a flat file.
# `ctl config` prints what is in force and where each value comes from; `ctl reload` applies those marked (reloadable).
"""


def _comment(field: dataclasses.Field[Any]) -> list[str]:
    mark = " (reloadable)" if field.metadata["reloadable"] else ""
    text = f"{field.metadata['text']}{mark} [{allowed(field)}]"
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="#   ")


def _lines(cls: type[Any], indent: str) -> list[str]:
    hints = get_type_hints(cls)
    lines: list[str] = []
    for field in dataclasses.fields(cls):
        if not field.metadata:
            if dataclasses.is_dataclass(hints[field.name]):
                summary = (hints[field.name].__doc__ or "").partition("\n")[0]
                lines += ["", f"# {summary}", f"{field.name}:", *_lines(hints[field.name], indent + "  ")]
            continue
        value = yaml.safe_dump(default_of(field), default_flow_style=True, width=200).removesuffix("...\n").strip()
        lines += [indent + line for line in (*_comment(field), f"{field.name}: {value}")]
    return lines


def page() -> str:
    """The whole file."""
    return _HEAD + "\n" + "\n".join(_lines(Config, "")).lstrip("\n") + "\n"


if __name__ == "__main__":
    print(page(), end="")
