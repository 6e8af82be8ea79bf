"""Hostile values at every entry of a real instance, for some seconds; `benchmarks/fuzz.py` does the same for longer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = ("hostile calls", "hostile frames", "hostile requests", "hostile files", "hostile rows", "killed inference")


def test_hostile_values_at_every_entry_disturb_nobody() -> None:
    """Honest clients are served, records are right, the weights move, a server comes back: whatever others send."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--minutes", "0.2", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["violations"] == 0, found
    assert all(found.get(name) for name in ROUNDS), found
