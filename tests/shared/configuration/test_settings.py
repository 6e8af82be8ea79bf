"""Settings: declaring them, reading plain data, and what is said about a bad value."""

# ruff: noqa: RUF009
from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass

import pytest
from tandem.shared.configuration.settings import allowed, keys, read, section, setting


@dataclass(frozen=True)
class Inner:
    size: int = setting(4, "a size", at_least=1, at_most=9)
    rate: float = setting(0.5, "a rate", above=0)
    flag: bool = setting(True, "a flag")
    names: list[str] = setting(["x"], "names")
    wide: int = setting(0, "any whole number")

    def check(self) -> list[str]:
        return ["size: 7 is unlucky"] if self.size == 7 else []


@dataclass(frozen=True)
class Outer:
    kind: str = setting("a", "a kind", choices=("a", "b"))
    free: dict[str, object] = setting({}, "anything")
    odd: str = setting("", "a text", check=lambda value: "is odd" if value == "odd" else "")
    inner: Inner = section(Inner)


def test_no_data_means_defaults() -> None:
    """None and an empty mapping are all defaults."""
    for data in (None, {}):
        assert read(Outer, data) == (Outer(), [])


def test_values_are_taken() -> None:
    """A value of each kind arrives; a whole number is a number."""
    found, problems = read(Outer, {"kind": "b", "free": {"z": 1}, "inner": {"size": 9, "rate": 2, "flag": False}})
    assert problems == []
    assert found == Outer("b", {"z": 1}, "", Inner(9, 2.0, False))
    assert isinstance(found.inner.rate, float)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"inner": {"size": 0}}, ["inner.size: 0", "below 1", "a whole number, at least 1, at most 9", "default 4"]),
        ({"inner": {"size": 10}}, ["inner.size: 10", "above 9"]),
        ({"inner": {"size": 1.5}}, ["inner.size: 1.5", "whole number"]),
        ({"inner": {"size": True}}, ["inner.size: True", "whole number"]),
        ({"inner": {"rate": 0}}, ["inner.rate: 0", "not above 0"]),
        ({"inner": {"rate": float("nan")}}, ["inner.rate: nan"]),
        ({"inner": {"rate": "fast"}}, ["inner.rate: 'fast'", "a number"]),
        ({"inner": {"flag": 1}}, ["inner.flag: 1", "true or false"]),
        ({"inner": {"names": ["a", 2]}}, ["inner.names", "list of texts"]),
        ({"kind": "c"}, ["kind: 'c'", "one of a, b"]),
        ({"inner": {"siez": 3}}, ["inner.siez: unknown key", "inner.size"]),
        ({"inner": 3}, ["inner: 3", "not a mapping"]),
        ([1], ["the document", "not a mapping"]),
        ({"inner": {"size": 7}}, ["inner.size: 7 is unlucky"]),
        ({"inner": {"size": None}}, ["inner.size: null", "whole number", "leave the line out"]),
        ({"inner": {"rate": float("inf")}}, ["inner.rate: inf", "not finite"]),
        ({"inner": {"rate": 10**400}}, ["inner.rate: 1000", "...", "not finite"]),
        ({"inner": {"rate": 10**5000}}, ["inner.rate: a int", "not finite"]),
        ({"inner": {"wide": 2**63}}, ["inner.wide: 9223372036854775808", "beyond 9223372036854775807"]),
        ({"kind": True}, ["kind: True", "quotes"]),
        ({"kind": 640}, ["kind: 640", "quotes"]),
        ({"kind": "a\0"}, ["kind: 'a\\x00'", "NUL"]),
        ({"odd": "odd"}, ["odd: 'odd' is odd"]),
        ({1: 2}, ["1: unknown key"]),
        ({None: 2}, ["null: unknown key"]),
        ({"free": {"a": {1: 2}}}, ["free:", "under a", "key 1", "quotes"]),
        ({"free": {"a": [0, float("nan")]}}, ["free:", "under a[1]", "nan", "finite"]),
        ({"free": {"a": datetime.date(2024, 1, 1)}}, ["free:", "under a", "neither text nor number"]),
        ({"free": {"a": {"b"}}}, ["free:", "neither text nor number"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed_and_takes_its_default(data: object, words: list[str]) -> None:
    """One line per problem: path, value, what is allowed, the nearest key; the default stands in."""
    found, problems = read(Outer, data)
    assert len(problems) == 1
    for word in words:
        assert word in problems[0]
    assert found == Outer()


def test_defaults_of_containers_are_not_shared() -> None:
    """Two instances never share a default list."""
    assert Inner().names is not Inner().names


def test_keys_are_dotted_paths() -> None:
    """All settings under a dataclass, in order."""
    assert keys(Outer) == [
        "kind", "free", "odd", "inner.size", "inner.rate", "inner.flag", "inner.names", "inner.wide",
    ]  # fmt: skip


def test_allowed_says_bounds_in_words() -> None:
    """Bounds and choices are spelled out."""
    fields = {field.name: field for field in dataclasses.fields(Inner)}
    assert allowed(fields["rate"]) == "a number, above 0"
    assert allowed({field.name: field for field in dataclasses.fields(Outer)}["kind"]) == "one of a, b"
