"""Run the proofs of what the channel promises and write their figures into docs/promises.md.

`python benchmarks/promises.py [--full] [NUMBER ...]` runs the tests of all promises, or of those named, and replaces
their figures on the page; `--full` runs the long proofs (hours on two cores). The exit status is pytest's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "promises.md"

_MODELS = (2, 8)
"""Promises of which spin checks a model too."""
_ELSEWHERE = {47: "processes/test_workers.py", 49: "processes/test_decision_log.py"}
"""Files outside of `tests/promises` that report a figure."""


def proofs(numbers: list[int]) -> list[str]:
    """The files that prove these promises; all of them if none is named."""
    folder = ROOT / "tests" / "promises"
    others = [str(ROOT / "tests" / path) for number, path in _ELSEWHERE.items() if not numbers or number in numbers]
    if not numbers:
        return [str(folder), *others]
    files = [str(path) for number in numbers for path in sorted(folder.glob(f"test_promise_{number:02}_*.py"))]
    return files + others + [str(folder / "test_proofs.py")] * any(number in _MODELS for number in numbers)


def run(numbers: list[int], full: bool) -> tuple[int, dict[int, list[str]]]:
    """pytest's status, and the figures that the proofs reported."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures"
        path.touch()
        environment = {**os.environ, "TANDEM_FIGURES": str(path)}
        if full:
            environment["TANDEM_PROOF"] = "full"
        command = [sys.executable, "-m", "pytest", "-q", *proofs(numbers), "--timeout", "7200" if full else "300"]
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        figures: dict[int, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            texts = figures.setdefault(found["promise"], [])
            if found["figure"] not in texts:
                texts.append(found["figure"])
    return status, figures


def fill(page: str, figures: dict[int, list[str]], full: bool) -> str:
    """The page with these figures at their promises."""
    day = time.strftime("%Y-%m-%d", time.gmtime()) + (", full" if full else "")
    for number, texts in figures.items():
        text = textwrap.fill(
            f"{'; '.join(texts)} ({day})", 100, initial_indent="- Figure: ", subsequent_indent="  ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        page, count = re.subn(
            rf"^(### {number}\. .*?)^- Figure: .*?\n(?=\n|\Z)",
            lambda found, text=text: f"{found[1]}{text}\n",
            page,
            count=1,
            flags=re.MULTILINE | re.DOTALL,
        )
        if not count:
            raise ValueError(f"docs/promises.md has no promise {number} with a figure")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    status, figures = run(options.numbers, options.full)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), figures, options.full), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
