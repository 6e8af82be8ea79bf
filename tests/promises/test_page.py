"""docs/promises.md lists every promise with the test that proves it."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "promises.md"


def test_every_proof_is_on_the_page_and_has_a_planted_mistake() -> None:
    """Every proof's promise has a row, the row names existing tests, and each test has a control that must fail."""
    rows = dict(re.findall(r"^\| (\d+) \| .*? \| (.*?) \| .* \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    proofs = {int(path.name.split("_")[2]) for path in FOLDER.glob("test_promise_*.py")}
    assert proofs >= {*range(1, 26), 31}
    assert set(map(int, rows)) == proofs
    for number, tests in rows.items():
        names = re.findall(r"`(test_\w+\.py)`", tests)
        assert any(name.startswith(f"test_promise_{int(number):02}_") for name in names)
        for name in names:
            text = (FOLDER / name).read_text(encoding="utf-8")
            functions = re.findall(r"^def (test_\w+)", text, re.MULTILINE)
            assert any(not function.startswith("test_promise_") for function in functions), f"{name} has no control"
