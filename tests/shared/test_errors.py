"""The error tree: one base, data inside, messages that say what to do."""

from __future__ import annotations

import inspect

import pytest
from tandem.shared import errors
from tandem.shared.errors import ConfigError, LaneBusy, SegmentError, SegmentSpaceError, TandemError

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_tandem_error_and_drawn_in_the_tree(cls: type[Exception]) -> None:
    """One `except TandemError` catches everything raised on purpose, and the module's drawing names each class."""
    assert issubclass(cls, TandemError)
    assert cls.__name__ in (errors.__doc__ or "")
    assert cls.__doc__


def test_a_config_error_lists_every_problem() -> None:
    """Each problem has a line of its own, under the source."""
    error = ConfigError("x.yaml", ["a: 1 is below 2", "b: unknown key"])
    assert error.problems == ("a: 1 is below 2", "b: unknown key")
    assert str(error).splitlines() == ["x.yaml: 2 problems", "  a: 1 is below 2", "  b: unknown key"]
    assert str(ConfigError("x.yaml", ["a"])).startswith("x.yaml: 1 problem\n")


def test_a_space_error_carries_bytes_and_the_way_out() -> None:
    """It says what is needed, what is free and the flag that raises it."""
    error = SegmentSpaceError("/dev/shm/tandem.a.ring0", 1000, 10)
    assert (error.needed, error.free, error.segment) == (1000, 10, "/dev/shm/tandem.a.ring0")
    assert isinstance(error, SegmentError)
    for part in ("1000", "10", "--shm-size"):
        assert part in str(error)


def test_a_busy_lane_names_the_holders() -> None:
    """The process ids of the holders are in the message and in the error."""
    error = LaneBusy("default", [12, 34])
    assert error.holders == (12, 34)
    assert "12, 34" in str(error)
