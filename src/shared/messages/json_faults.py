"""What is wrong with a JSON text, and in which field: for the reply to a message that was refused.

The parser on the fast path stops at the first fault and does not say where it lies. Here the text is read again, slowly
and leniently; numbers that no float can hold, constants that JSON has not got and halves of surrogate pairs are found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_LONGEST_INTEGER = 308
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Fault:
    """`text` says what is wrong, the field first if it is known. `is_json`: only a value is at fault, not the grammar.

    `value` is what could be read; None if nothing could.
    """

    text: str
    is_json: bool
    value: Any = None


class _Refused:
    """Stands in a parsed text for a value that was refused."""

    def __init__(self, reason: str, is_json: bool) -> None:
        self.reason = reason
        self.is_json = is_json


def find_fault(text: str | bytes) -> Fault | None:
    """The first fault of a JSON text; None if this parser finds none."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            return Fault(f"byte {error.start} is not UTF-8", False)
    if text.startswith("\ufeff"):
        return Fault("it begins with a byte order mark", False)
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        return Fault("it is nested too deeply", False)
    except ValueError as error:
        return Fault(str(error)[:200], False)
    found = _search(value)
    if found is None:
        return None
    path, refused = found
    return Fault(f"{path}: {refused.reason}" if path else refused.reason, refused.is_json, value)


def _integer(digits: str) -> Any:
    if len(digits) > _LONGEST_INTEGER:
        return _Refused(f"a number of {len(digits)} digits is too large", True)
    return int(digits)


def _float(digits: str) -> Any:
    value = float(digits)
    return value if abs(value) != float("inf") else _Refused(f"the number {digits[:32]} is too large", True)


def _constant(name: str) -> _Refused:
    return _Refused(f"{name} is not JSON; what is not a number is written as null", False)


def _search(value: Any) -> tuple[str, _Refused] | None:
    """Path and kind of the first fault in a parsed text."""
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, _Refused):
            return path, item
        if isinstance(item, str) and not is_text(item):
            return path, _Refused("holds half of a surrogate pair", False)
        if isinstance(item, dict):
            for name in item:
                if not is_text(name):
                    return path, _Refused("the name of a field holds half of a surrogate pair", False)
            stack += [
                (f"{path}.{name[:_LONGEST_NAME]}" if path else name[:_LONGEST_NAME], item[name])
                for name in reversed(item)
            ]
        elif isinstance(item, list):
            stack += [(f"{path}[{place}]", item[place]) for place in reversed(range(len(item)))]
    return None


def is_text(text: str) -> bool:
    """True if `text` can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
