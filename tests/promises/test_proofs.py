"""The protocols' models: spin finds no error in them as designed, and one for each way to get them wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from proof import figure

MODELS = Path(__file__).parents[2] / "proofs"
pytestmark = pytest.mark.skipif(not (shutil.which("spin") and shutil.which("gcc")), reason="spin or gcc is not here")


def check(folder: Path, model: str, *macros: str) -> tuple[int, str, int]:
    """Check a model exhaustively: number of errors, the assertion violated, states."""
    done = subprocess.run(
        ["spin", *(f"-D{macro}" for macro in macros), "-run", "-DSAFETY", str(MODELS / model)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=150,
        check=False,
    )
    output = done.stdout + done.stderr
    errors = re.search(r"errors: (\d+)", output)
    assert errors, output
    assert "max search depth too small" not in output
    violated = re.search(r"assertion violated (.*) \(at depth", output)
    states = re.search(r"(\d+) states, stored", output)
    return int(errors[1]), violated[1] if violated else "", int(states[1]) if states else 0


@pytest.mark.parametrize(
    ("model", "macros"),
    [
        ("weights.pml", ()),
        ("weights.pml", ("STEPS=4",)),
        ("weights.pml", ("STEPS=8",)),
        ("weights.pml", ("SLOTS=1", "CRASHES=0")),
        ("ring.pml", ()),
        ("ring.pml", ("REORDER", "CHECKSUM")),
    ],
)
def test_as_designed_it_is_safe(tmp_path: Path, model: str, macros: tuple[str, ...]) -> None:
    """No interleaving and no crash breaks a claim; with reordered stores, the checksum tells."""
    errors, violated, states = check(tmp_path, model, *macros)
    assert (errors, violated) == (0, "")
    assert states > 1000
    figure(8 if "REORDER" in macros else 2, f"{model} {' '.join(macros)}: 0 errors in {states:,} states")


@pytest.mark.parametrize(
    ("model", "macro", "violated"),
    [
        ("weights.pml", "NO_ODD_MARK", "one==two"),
        ("weights.pml", "LENIENT", ">=have"),
        ("weights.pml", "SLOTS=1", "quiet"),
        ("ring.pml", "NO_INVALIDATION", "one==n"),
        ("ring.pml", "COUNT_FIRST", ""),
        ("ring.pml", "REORDER", "one==n"),
    ],
)
def test_each_mistake_is_found(tmp_path: Path, model: str, macro: str, violated: str) -> None:
    """No odd mark, a lenient reader, one slot and a crash, no invalidation, another order: each breaks its claim."""
    errors, found, _ = check(tmp_path, model, macro)
    assert errors > 0
    assert violated in found
