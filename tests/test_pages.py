"""The pages: narrow, without dead links or paths, and in the words of the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

WIDEST, WIDEST_ROW = 100, 120

PRIVATE = re.compile(
    r"\b(letters?|outbox(es)?|keeper|hurry|put away|excused?|orphans?|troubles|mail|judge[sd]?|judging|live guard)\b",
    re.IGNORECASE,
)
"""Words that this project once had for itself; the glossary has the ones that others use."""
NAMES = re.compile(r"`[^`\n]*`|\*\*mail\*\*|Application\(troubles=\.\.\.\)")
"""Names of segments, fields, keys and calls may hold them."""


def prose(text: str) -> list[tuple[int, str]]:
    """The numbered lines of a page that are no code."""
    lines, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            lines.append((number, line))
    return lines


def too_wide(text: str) -> list[int]:
    """Numbers of the lines that are too wide: prose, or a row of a table."""
    found = []
    for number, line in prose(text):
        is_address = re.fullmatch(r"\s*(- )?<?(\[.*\]\()?\S+\)?>?[.,;]?", line) is not None
        if len(line) > (WIDEST_ROW if line.startswith("|") else WIDEST) and not is_address:
            found.append(number)
    return found


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as they are made from the text."""
    titles = [line.lstrip("#").strip() for _, line in prose(text) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path, text: str) -> list[str]:
    """Relative links to files or headings that are not there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def dead_paths(text: str) -> list[str]:
    """Paths in backticks that look like files of the repository and are none."""
    named = re.findall(r"`((?:src|tests|docs|configs|examples|benchmarks|proofs)/[\w./-]+\.\w+)`", text)
    return [path for path in named if not (ROOT / path).exists()]


def broken_spans(text: str) -> list[str]:
    """Lines in which an inline code span begins or ends that stands on two lines."""
    return [line for _, line in prose(text) if line.count("`") % 2]


def private_words(text: str) -> list[str]:
    """Words of our own among the prose."""
    return [found.group() for _, line in prose(text) for found in PRIVATE.finditer(NAMES.sub("", line))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_reads_well(page: Path) -> None:
    """Lines of at most 100 columns, rows of at most 120, no dead link or path, no broken code span, no private word."""
    text = page.read_text(encoding="utf-8")
    assert too_wide(text) == []
    assert dead_links(page, text) == []
    assert dead_paths(text) == []
    assert broken_spans(text) == []
    assert private_words(text) == []


def test_the_checks_can_fail() -> None:
    """Each finds what was planted for it, and lets names, code and addresses be."""
    assert too_wide("word " * 30) == [1]
    assert too_wide(f"| {'cell ' * 30}|") == [1]
    assert too_wide("```\n" + "x " * 80 + "\n```\n") == []
    assert dead_links(ROOT / "README.md", "[a](docs/nowhere.md) [b](docs/glossary.md#no-such-term)") != []
    assert dead_links(ROOT / "README.md", "[a](docs/glossary.md#deciding) [b](https://example.org)") == []
    assert dead_paths("`src/shared/nowhere.py`") == ["src/shared/nowhere.py"]
    assert broken_spans("call `ctl\nup` and wait") != []
    assert broken_spans("```sh\necho `date\n```\ncall `ctl up`\nand wait") == []
    assert private_words("a letter in the outbox, `mail<k>`") == ["letter", "outbox"]


def test_the_readme_shows_six_figures() -> None:
    """The others are on the page of their own."""
    part = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Figures")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| (?!what|---)", part, re.MULTILINE)) == 6


def test_the_tree_names_every_module() -> None:
    """docs/architecture.md: every module of src/ but those of `queen/` and the commands, in its room."""
    tree = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("```\nsrc/")[2].partition("```")[0]
    words = set(re.findall(r"\w+", tree))
    modules = [path for path in (ROOT / "src").rglob("*.py") if not {"queen", "commands"} & set(path.parts)]
    assert [path.stem for path in modules if path.stem not in words | {"__main__"}] == []
