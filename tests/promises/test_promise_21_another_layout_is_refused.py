"""A control segment that differs in any header field from what was created is refused, and the difference named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure
from tandem.shared.errors import SegmentError
from tandem.shared.memory import layout
from tandem.shared.memory.control import Control

MakeChannel = Callable[..., Any]


def accepted(made: Any, attach: Callable[[str], Control]) -> list[str]:
    """Change each header field in turn, several ways; those changes that an attacher takes or does not name."""
    control, passed = made.control, []
    for name in layout.HEADER_FIELDS:
        before = control.get(name)
        changed = [before + 1, before * 2 + 1]
        if layout.kind(name) == "u64":
            changed = [value % 2**64 for value in (before + 1, before - 1, before ^ 1 << 40, 0)]
        for value in changed:
            if value == before:
                continue
            control.set(name, value)
            try:
                attach(made.name).close()
            except SegmentError as error:
                named = name in str(error) or name.replace("_", " ") in str(error)
                if not named and name != "magic":
                    passed.append(f"{name}: not named in {error}")
            else:
                passed.append(name)
            control.set(name, before)
    attach(made.name).close()
    return passed


def test_promise_21_another_layout_is_refused(channel: MakeChannel) -> None:
    """Every header field counts."""
    assert accepted(channel(), Control.attach) == []
    figure(21, f"100 % of {len(layout.HEADER_FIELDS)} fields, each changed four ways")


def test_looking_at_magic_and_version_alone_is_not_enough(channel: MakeChannel) -> None:
    """The same changes pass a reader that compares nothing else."""
    assert accepted(channel(), lambda name: Control.attach(name, check_schema=False))


def test_promise_21_the_schema_text_is_guarded(channel: MakeChannel) -> None:
    """Any changed byte of the schema is noticed."""
    made = channel()
    for at in range(made.control.get("schema_bytes")):
        made.control.bytes[layout.SCHEMA_AT + at] ^= 1
        with pytest.raises(SegmentError, match="schema"):
            Control.attach(made.name)
        made.control.bytes[layout.SCHEMA_AT + at] ^= 1
    Control.attach(made.name).close()
