"""Declaring and reading settings: frozen dataclasses whose fields carry bounds, choices and a line of text.

`read(cls, mapping, path)` turns plain data (a YAML document) into an instance and a list of problems, each
naming the path, the value and what is allowed. A value with a problem takes its default, so that a
caller who may not fail can still go on.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


# Many parameters: one for each thing that can be said of a setting, by name.
def setting(
    default: Any,
    text: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    reloadable: bool = False,
    check: Callable[[Any], str] | None = None,
) -> Any:
    """A dataclass field with bounds and its documentation. `reloadable`: may change while the instance runs.

    `words` may stand in a number's place, as they are; where one of them is `none`, null means the same.
    `check(value)` says what else is wrong with a value of the right kind, an empty string if nothing is.
    """
    metadata = {
        "text": text,
        "above": above,
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,
        "words": words,
        "reloadable": reloadable,
        "check": check,
    }
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type[T]) -> T:
    """A dataclass field that is itself a group of settings."""
    field: T = dataclasses.field(default_factory=cls)
    return field


def allowed(field: dataclasses.Field[Any]) -> str:
    """What a setting accepts, in words: `a whole number, at least 1`."""
    meta = field.metadata
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    words = [_KIND_WORDS.get(_kind(field), str(field.type))]
    if meta["above"] is not None:
        words.append(f"above {meta['above']:g}")
    if meta["at_least"] is not None:
        words.append(f"at least {meta['at_least']:g}")
    if meta["at_most"] is not None:
        words.append(f"at most {meta['at_most']:g}")
    return ", ".join(words) + "".join(f"; or {word}" for word in meta["words"])


LARGEST = 2**63 - 1
"""The largest whole number of a setting: what shared memory and files hold as a signed word."""

_KIND_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping",
    "list": "a list of texts",
}


def _kind(field: dataclasses.Field[Any]) -> str:
    return str(field.type).partition("[")[0].partition(" |")[0]


def _word(field: dataclasses.Field[Any], value: Any) -> str | None:
    """The word that stands in a number's place, or None."""
    word = "none" if value is None else value
    return word if isinstance(word, str) and word in field.metadata["words"] else None


def _fault(field: dataclasses.Field[Any], value: Any) -> str:
    """Why `value` does not fit, or an empty string."""
    meta, kind = field.metadata, _kind(field)
    if _word(field, value) is not None:
        return ""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": is_number,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
        "dict": isinstance(value, Mapping),
        "list": isinstance(value, list) and all(isinstance(item, str) for item in value),
    }[kind]
    if not fits:
        return f"is not {_KIND_WORDS[kind]}{_why(value, kind)}"
    if kind == "int" and abs(value) > LARGEST:
        return f"is beyond {LARGEST}"
    if kind == "float" and not _is_finite(value):
        return "is not finite"
    if kind == "str" and "\0" in value:
        return "holds a NUL character"
    if kind == "dict" and (fault := not_plain(value)):
        return fault
    if meta["choices"] and value not in meta["choices"]:
        return "is not " + allowed(field)
    if meta["above"] is not None and value <= meta["above"]:
        return f"is not above {meta['above']:g}"
    if meta["at_least"] is not None and value < meta["at_least"]:
        return f"is below {meta['at_least']:g}"
    if meta["at_most"] is not None and value > meta["at_most"]:
        return f"is above {meta['at_most']:g}"
    return "" if meta["check"] is None else str(meta["check"](value))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number above all floating-point ones
        return False


def _why(value: Any, kind: str) -> str:
    """What YAML may have made of what was written."""
    if value is None:
        return "; leave the line out for the default"
    if isinstance(value, bool) and kind == "str":
        return "; unquoted, yes, no, on, off, true and false are no text: put it in quotes"
    if isinstance(value, (int, float)) and kind == "str":
        return "; put it in quotes"
    return ""


def not_plain(value: Any, path: str = "") -> str:
    """Why a value cannot go to other processes as JSON and come back the same, or an empty string."""
    where = f"holds, under {path}," if path else "is"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{where} a mapping with the key {shown(key)}, which is no text; put it in quotes"
            if fault := not_plain(item, f"{path}.{key}" if path else key):
                return fault
        return ""
    if isinstance(value, (list, tuple)):
        return next((fault for i, item in enumerate(value) if (fault := not_plain(item, f"{path}[{i}]"))), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} {value}, which is not finite"
    if value is None or isinstance(value, (str, bool, float)) or (isinstance(value, int) and abs(value) <= LARGEST):
        return ""
    return f"{where} {shown(value)}, which is neither text nor number"


def shown(value: Any) -> str:
    """A value in a message: as YAML writes it where Python differs, and not longer than a line."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def unknown_key(path: str, known: Iterable[str]) -> str:
    """The problem line of a key that nobody reads, with the nearest valid one."""
    known = list(known)
    key = path.rpartition(".")[2]
    leaves = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(path, known, 1, 0.6) or [
        leaves[leaf] for leaf in difflib.get_close_matches(key, list(leaves), 1, 0.6)
    ]
    return f"{path}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def keys(cls: type[Any], path: str = "") -> list[str]:
    """Dotted paths of all settings under a dataclass."""
    hints = get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            found += keys(hints[field.name], f"{path}{field.name}.")
        else:
            found.append(path + field.name)
    return found


def read(cls: type[T], data: Any, path: str = "", known: list[str] | None = None) -> tuple[T, list[str]]:
    """An instance of `cls` from plain `data`, and the problems found in it, one line each.

    A `check(self) -> list[str]` method of a dataclass adds problems that concern several fields; if it finds
    any, the fields of that group take their defaults.
    """
    known = keys(cls) if known is None else known
    problems: list[str] = []
    values: dict[str, Any] = {}
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        return cls(), [f"{path.rstrip('.') or 'the document'}: {shown(data)} is not a mapping of keys to values"]
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in data.items():
        field = fields.get(key) if isinstance(key, str) else None
        if field is None:
            problems.append(unknown_key(f"{path}{key if isinstance(key, str) else shown(key)}", known))
        elif dataclasses.is_dataclass(hints[key]):
            values[key], more = read(hints[key], value, f"{path}{key}.", known)
            problems += more
        elif fault := _fault(field, value):
            hint = f"allowed: {allowed(field)}; default {default_of(field)!r}"
            problems.append(f"{path}{key}: {shown(value)} {fault} ({hint})")
        else:
            word = _word(field, value)
            values[key] = word or (float(value) if _kind(field) == "float" else value)
    result = cls(**values)
    check = getattr(result, "check", None)
    if check is not None and (faults := check()):
        problems += [path + fault for fault in faults]
        result = cls(**{key: value for key, value in values.items() if dataclasses.is_dataclass(hints[key])})
    return result, problems


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A setting's default."""
    if field.default is not dataclasses.MISSING:
        return field.default
    assert field.default_factory is not dataclasses.MISSING
    return field.default_factory()
