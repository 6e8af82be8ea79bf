"""docs/promises.md lists every promise with the test that proves it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "promises.md"


TESTS = FOLDER.parent


def promises() -> dict[int, str]:
    """What the page says of each promise, by its number."""
    parts = re.split(r"^### (\d+)\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {int(number): text.partition("\n## ")[0] for number, text in zip(parts[::2], parts[1::2], strict=True)}


def test_every_proof_is_on_the_page_and_has_a_planted_mistake() -> None:
    """Every proof's promise is on the page, it names existing tests, and each test has a control that must fail."""
    found = promises()
    proofs = {int(path.name.split("_")[2]) for path in FOLDER.glob("test_promise_*.py")}
    assert proofs >= {*range(1, 26), 31, *range(41, 49)}
    assert set(found) >= proofs
    for number in sorted(proofs):
        names = re.findall(r"`(test_\w+\.py)`", found[number])
        assert any(name.startswith(f"test_promise_{number:02}_") for name in names)
        for name in names:
            text = (FOLDER / name).read_text(encoding="utf-8")
            functions = re.findall(r"^def (test_\w+)", text, re.MULTILINE)
            assert any(not function.startswith("test_promise_") for function in functions), f"{name} has no control"


def test_the_page_names_the_test_of_every_promise() -> None:
    """1 to 49, each with at least one file that exists, below `tests/promises` or `tests`, and a figure."""
    found = promises()
    assert sorted(found) == list(range(1, 50))
    for number, text in found.items():
        names = re.findall(r"`([\w/]+\.py)`", text.partition("- Figure:")[0])
        assert names, number
        assert all((FOLDER / name).is_file() or (TESTS / name).is_file() for name in names), (number, names)
        assert re.search(r"^- Figure: \S", text, re.MULTILINE), number


def test_figures_are_written_where_they_belong() -> None:
    """`benchmarks/promises.py` replaces one figure, however many lines it took, and nothing else."""
    sys.path.insert(0, str(TESTS.parent / "benchmarks"))
    try:
        import promises as script
    finally:
        del sys.path[0]
    page = PAGE.read_text(encoding="utf-8")
    changed = script.fill(page, {2: ["one", "two"]}, full=True)
    before, after = page.splitlines(), changed.splitlines()
    assert [line for line in after if line not in before] == [line for line in after if "one; two (" in line]
    assert changed.count("### ") == page.count("### ")
    assert changed.count("- Figure: ") == page.count("- Figure: ")
