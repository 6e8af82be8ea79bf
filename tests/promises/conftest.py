"""Makes the channel kit importable, here and in child processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KIT = str(Path(__file__).parents[1] / "kit")
if KIT not in sys.path:
    sys.path.append(KIT)


@pytest.fixture
def channel(instance_name: str) -> Iterator[Callable[..., Any]]:
    """`channel(capacity=..., ...)` creates a channel without an application, see `channel_kit.make_channel`."""
    from channel_kit import make_channel

    made = []

    def make(**settings: Any) -> Any:
        made.append(make_channel(instance_name, **settings))
        return made[-1]

    yield make
    for item in made:
        item.control.close()


@pytest.fixture(scope="session")
def _nursery() -> Iterator[Any]:
    from proof import Nursery

    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def nursery(_nursery: Any) -> Iterator[Any]:
    """Forks real processes from an interpreter of its own, see `proof.Nursery`; none outlives the test."""
    yield _nursery
    _nursery.clean()
