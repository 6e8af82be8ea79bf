"""Configuration files as people write them: numbers are numbers, and what would be misread is one clear line."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from tandem.shared.configuration.yaml_file import plain_loader, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1e3", 1000.0), ("1E+3", 1000.0), ("-2.5e-1", -0.25), ("1.e2", 100.0), (".5", 0.5),
        ("1_000", 1000), ("1_000.5", 1000.5), ("0", 0), ("-7", -7), ("+7", 7), ("0x1f", 31), ("0o17", 15), ("0b101", 5),
        ("0.25", 0.25), ("5.", 5.0), (".inf", math.inf), ("-.inf", -math.inf),
    ],
)  # fmt: skip
def test_numbers(text: str, value: float) -> None:
    """What reads like a number is one."""
    found, problems = read(f"a: {text}")
    assert problems == []
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    "text", ["1:30", "12:30:45", "0600", "007", "2024-01-31", "2024-99-99", "1.2.3", "e3", ".", "_1", "1e", "::1"]
)
def test_texts(text: str) -> None:
    """What reads like a time, a date, a mode or an address stays the text that was written."""
    assert read(f"a: {text}") == ({"a": text}, [])


def test_the_rest_is_as_ever() -> None:
    """Truth values, nothing, lists, anchors and merges."""
    text = "a: &x {b: yes, c: ~, d: [1, 'two']}\ne: {<<: *x, c: 3}\nf: *x\n"
    assert read(text) == (yaml.safe_load(text), [])
    assert read("") == (None, [])
    assert read("# nothing\n") == (None, [])


@pytest.mark.parametrize("base", ["SafeLoader", "CSafeLoader"])
def test_both_loaders_can_be_made_plain(base: str) -> None:
    """The fast one for files that are read while decisions are made."""
    if hasattr(yaml, base):
        loaded = yaml.load("a: 1e-3\nb: 1:30", plain_loader(getattr(yaml, base)))
        assert loaded == {"a": 0.001, "b": "1:30"}


DEEP = "a: " + "[" * 60 + "]" * 60
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainer:\n  a: 1\n  b: 2\n  a: 3\n", ["trainer.a: stands twice (lines 2 and 4)"]),
        ("{a: 1, a: 1}", ["a: stands twice"]),
        ("a: 1\n'a': 2\n", ["a: stands twice"]),
        ("a: &x\n  b: [*x]\n", ["a.b[0]: is an anchor that contains itself"]),
        ("a: &x [*x]\n", ["a[0]: is an anchor that contains itself"]),
        ("a: 1\n---\nb: 2\n", ["line 2", "another document"]),
        ("a:\n\tb: 1\n", ["line 2, column 1", "\\t", "indent with spaces"]),
        ("a: [1\n", ["line 2"]),
        ("? [1, 2]\n: 3\n", ["line 1", "not a text"]),
        ("a: !!python/object:os.system x\n", ["line 1", "constructor"]),
        ("a: *nowhere\n", ["nowhere", "line 1"]),
        (f"a: {'9' * 5000}\n", ["cannot be read"]),
        (DEEP, ["levels"]),
        ("a: " + "[" * 2000, ["nested too deeply"]),
        (LAUGHS, ["more than 50000 values"]),
        ("a: '\x07'\n", ["cannot be read"]),
    ],
)
def test_what_would_be_misread_is_one_line(text: str, words: list[str]) -> None:
    """The line says what and where; there are no data then."""
    found, problems = read(text)
    assert found is None
    assert len(problems) == 1
    assert "\n" not in problems[0]
    for word in words:
        assert word in problems[0]


def test_every_double_key_is_listed() -> None:
    """Several mistakes are several lines."""
    text: Any = "a: 1\na: 2\nb: {c: 1, c: 2}\n"
    assert len(read(text)[1]) == 2
