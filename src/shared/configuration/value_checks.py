"""What is wrong with a text setting beyond being a text: each function answers in words, or with an empty text.

The last two are about `inference.workers`, which concerns other settings.

Standard library only.
"""

from __future__ import annotations

import ipaddress
import keyword
import re
import shlex
from collections.abc import Mapping
from typing import Any

MOST_LANES = 16
"""As many as shared memory has room for."""

_NOTHING = ("none", "null", "nil", "~")
_LABEL = "[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)


def module(value: str) -> str:
    """A module's dotted name, such as `shop.lights`."""
    good = all(part.isidentifier() and not keyword.iskeyword(part) for part in value.split("."))
    if good and value.lower() not in _NOTHING:
        return ""
    return "is not a module name such as 'lights' or 'shop.lights' (without .py)"


LEARNERS = ("auto", "reward_regression", "policy_gradient")
"""Learners that need no module:attribute."""
_NO_LEARNER = f"is not of the form module:attribute (or one of {', '.join(LEARNERS)})"


def learner(value: str) -> str:
    """A module and what to take of it, or one of the project's own."""
    if value in LEARNERS:
        return ""
    name, colon, attribute = value.partition(":")
    return "" if colon and not module(name) and attribute.isidentifier() else _NO_LEARNER


def folder(value: str) -> str:
    """A folder's path."""
    if not value.strip():
        return "names no folder"
    if value.strip().lower() in _NOTHING:
        return "is no folder's name; leave the line out for the default"
    return ""


def command(value: str) -> str:
    """A command line as a POSIX shell splits it, `none`, or nothing."""
    stripped = value.strip()
    if stripped.lower() in _NOTHING and stripped != "none":
        return "is not a command; write none, in small letters, for servers that attach by themselves"
    try:
        words = shlex.split(value)
    except ValueError as error:
        return f"cannot be split into words: {str(error).lower()}"
    if stripped and not (words and words[0]):
        return "begins with an empty word where the program should be"
    return ""


def host(value: str) -> str:
    """An address or a host's name; empty for all addresses."""
    if value.startswith("[") and value.endswith("]"):
        return "is an address in brackets; leave them out"
    if value.strip().lower() in _NOTHING:
        return "is no address; leave the line out for the default"
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if value and (not _HOST.fullmatch(value) or re.fullmatch(r"[0-9.]+", value)):
            return "is neither an address such as 127.0.0.1 or ::1 nor a host's name; the port is a setting of its own"
    return ""


def workers(count: int, command: str, lanes: int) -> list[str]:
    """Problems of `inference.workers` with the settings beside it."""
    if count == 1:
        return []
    if command.strip():
        return [
            f"workers: {count} processes are started of the bundled server alone, and command is {command!r};"
            " set workers to 1 and let that server start its own"
        ]
    if lanes < count:
        return [
            f"lanes: {lanes} writer lanes are too few for {count} workers, each of which needs one;"
            f" set inference.lanes to {count} or more, or leave it out"
        ]
    return []


def with_lanes(inference: Any, default: int) -> dict[str, Any]:
    """The section `inference` with a lane for each worker where only the workers are set; else nothing."""
    if not isinstance(inference, Mapping) or "lanes" in inference:
        return {}
    count = inference.get("workers")
    if not isinstance(count, int) or isinstance(count, bool) or not default < count <= MOST_LANES:
        return {}
    return {"inference": {**inference, "lanes": count}}
