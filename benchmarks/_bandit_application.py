"""An application of F plain numbers and one choice of K: what bandits.py plays every set and every world with.

It is copied beside each configuration, where server and trainer find it. Its settings say F and K.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tandem import ActionHead, Application


def create(settings: dict[str, Any], folder: Path) -> Application:
    """The least that can be said of it: names for its numbers, and one head. Everything else is a default."""
    names = tuple(f"x{index}" for index in range(settings["features"]))
    return Application("bandit", names, (ActionHead("choice", settings["choices"]),))
