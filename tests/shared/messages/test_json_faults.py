"""What is wrong with a JSON text, and where."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.shared.messages.json_faults import find_fault


@pytest.mark.parametrize(
    ("text", "named", "is_json"),
    [
        ('{"a":{"b":[0,{"c":1e400}]}}', "a.b[1].c: the number 1e400 is too large", True),
        ("[" + "9" * 309 + "]", "[0]: a number of 309 digits is too large", True),
        ('{"a":NaN}', "a: NaN is not JSON", False),
        ("-Infinity", "-Infinity is not JSON", False),
        ('{"a":"\\ud800"}', "a: holds half of a surrogate pair", False),
        ('{"\\udfff":1}', "the name of a field holds half", False),
        ("\ufeff{}", "byte order mark", False),
        (b"\xff", "byte 0 is not UTF-8", False),
        ("[" * 200_000, "nested too deeply", False),
        ("{", "char 1", False),
        ("", "char 0", False),
    ],
    ids=str,
)
def test_the_fault_is_named(text: str | bytes, named: str, is_json: bool) -> None:
    """With the path to its field, and whether only the value is at fault."""
    fault = find_fault(text)
    assert fault is not None
    assert named in fault.text
    assert fault.is_json is is_json


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_is_right_has_no_fault(value: Any) -> None:
    """What the fast parser takes, this one does not refuse."""
    text = json.dumps(value)
    msgspec.json.decode(text)
    assert find_fault(text) is None
