"""Engines do not survive a fork: two processes would write into one lane. The child's copy says so instead."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from ..shared.claim import Refusal

if TYPE_CHECKING:
    from .engine import Engine

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_registered = False


def guard_against_forks(engine: Engine) -> None:
    """Make the copy of `engine` in every forked child raise TandemError when it is used."""
    global _registered
    if not _registered:
        os.register_at_fork(after_in_child=_disown)
        _registered = True
    _engines.add(engine)


def _disown() -> None:
    refusal = Refusal(
        "this engine was attached before its process forked, and its lane belongs to the parent;"
        " call Engine.attach in the child (with uvicorn or gunicorn: in the application's start-up)"
    )
    for engine in list(_engines):
        engine.disown(refusal)
    _engines.clear()
