"""Real processes for the proofs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


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
