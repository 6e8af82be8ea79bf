"""Values that nobody should pass, and what to look at afterwards."""

from __future__ import annotations

import decimal
import fractions
import math
from typing import Any

import numpy as np
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.replay import ExperienceReplayBuffer

GOOD = [0.1, 0.2]


class Vexing:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __float__(self) -> float:
        raise RuntimeError("float")

    def __len__(self) -> int:
        raise RuntimeError("len")


def rows(engine: Engine) -> Any:
    """The completed records, oldest first."""
    return ExperienceReplayBuffer(engine.instance).reader.recent(1000)


def accounted(engine: Engine) -> bool:
    """Every decision is accounted for, and as many wait as the table says."""
    lane = engine.get_stats()["lane"]
    parts = ("completed", "pending", "expired", "superseded", "dropped", "rejected", "lost")
    return bool(lane["decided"] == sum(lane[part] for part in parts) and lane["pending"] == len(engine.lane.pending))


REWARDS: list[tuple[Any, float]] = [
    (1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (np.float64(0.5), 0.5), (np.int64(-1), -1.0), (np.uint8(3), 3.0),
    (np.bool_(True), 1.0), (np.float16(0.5), 0.5), (np.longdouble(0.5), 0.5), (decimal.Decimal("0.5"), 0.5),
    (fractions.Fraction(1, 4), 0.25), (torch.tensor(0.5), 0.5), (torch.tensor([[0.5]]), 0.5), (np.array([0.5]), 0.5),
    (torch.tensor(0.5, requires_grad=True), 0.5), (torch.tensor(0.5, dtype=torch.bfloat16), 0.5), (np.array(2), 2.0),
    (3.4e38, 3.4e38), (-3.4028234663852886e38, -3.4028234663852886e38), (1e-45, 1e-45), (5e-324, 0.0), (-0.0, 0.0),
]  # fmt: skip
"""Real numbers, and as which float32 they are stored."""

TOO_LARGE: list[Any] = [
    math.nan, math.inf, -math.inf, 1e39, -1e39, 3.5e38, 3.4028236e38, 10**39, 10**400, -(10**400), np.float64(1e300),
    decimal.Decimal("1e500"), decimal.Decimal("NaN"), fractions.Fraction(10**400), np.array([np.inf]),
    torch.tensor(1e39, dtype=torch.float64), np.longdouble("1e400"),
]  # fmt: skip
"""Numbers that are not finite as float32."""

NO_NUMBERS: list[Any] = [
    None, "0.5", b"1", bytearray(b"1"), 1j, [0.5], (0.5,), {}, object(), np.array([0.5, 0.5]), np.array([]),
    torch.tensor([1.0, 2.0]), np.str_("0.5"), np.array("0.5"), decimal.Decimal("sNaN"), np.array([None]),
    np.datetime64("2020-01-01"), memoryview(b"1"), Vexing(), torch.tensor(1j), "9" * 5000,
]  # fmt: skip

NO_TEXTS: list[Any] = [7, None, b"a", ("a", 1), ["a"], 1.5, True, {}, {"a"}, Vexing(), np.array("a"), 10**5000]

NO_ACTIONS: list[Any] = [None, 3, "text", [0.5], (None,), object(), {"a": 1}, np.array([0.5]), torch.tensor(1.5)]

OBSERVATIONS: list[tuple[Any, list[float]]] = [
    ([0.1, 0.2], [0.1, 0.2]), ((1, True), [1, 1]), (np.array([0.1, 0.2]), [0.1, 0.2]), (range(1, 3), [1, 2]),
    (np.array([1, 2], np.uint64), [1, 2]), (np.array([0.1, 0.2], ">f4"), [0.1, 0.2]), (np.array([True, False]), [1, 0]),
    (np.arange(4, dtype=np.float32)[::2], [0, 2]), (np.array([0.5, 0.25], np.float16), [0.5, 0.25]),
    (torch.tensor([0.1, 0.2]), [0.1, 0.2]), (torch.tensor([0.1, 0.2], requires_grad=True), [0.1, 0.2]),
    (torch.tensor([0.5, 0.25], dtype=torch.bfloat16), [0.5, 0.25]), ([decimal.Decimal("0.1"), 0.2], [0.1, 0.2]),
    ([1e30, -1e30], [1e30, -1e30]), (np.array([3e38, -3e38], np.float32), [3e38, -3e38]), ([3.4e38, 1], [3.4e38, 1]),
    ([torch.tensor(0.5, requires_grad=True), 0.25], [0.5, 0.25]),
    ([np.float64(0.5), torch.tensor(0.25)], [0.5, 0.25]), (memoryview(np.array([0.5, 0.25])), [0.5, 0.25]),
    ([10**38, 1], [1e38, 1]), (np.array([1e-50, 5e-324]), [0, 0]), (np.array([0.5, 1], object), [0.5, 1]),
]  # fmt: skip
"""Observations of two numbers, and as what they are stored."""

MISTAKES: list[tuple[Any, str]] = [
    ([math.nan, 0.1], "feature 'hour': nan is not finite"),
    ([0.1, math.inf], "feature 'darkness': inf is not finite"),
    (np.array([0.1, -np.inf], np.float32), "feature 'darkness': -inf is not finite"),
    (np.array([1e39, 0.0]), r"feature 'hour': 1e\+39 is not finite as float32"),
    ([0.0, 10**400], "feature 'darkness': .* is not finite as float32"),
    ([None, 0.1], "feature 'hour': None is a NoneType; it must be a number"),
    (["a", 0.1], "feature 'hour': 'a' is a str; it must be a number"),
    (["0.1", "0.2"], "feature 'hour': '0.1' is a str"),
    (np.array(["0.1", "0.2"]), "feature 'hour': '0.1' is a str"),
    ([0.1, 1j], "feature 'darkness': 1j is a complex"),
    (np.array([1j, 0]), "feature 'hour': 1j is a complex"),
    (np.ma.array([0.1, 0.2], mask=[0, 1]), "feature 'darkness': None"),
    ([[0.1], [0.1, 0.2]], r"feature 'hour': \[0.1\] is a list"),
    ([0.1, Vexing()], "feature 'darkness': <Vexing .* is a Vexing; it must be a number"),
    (torch.tensor([0.1, math.nan]), "feature 'darkness': nan"),
    ([0.1], r"has the shape \(1,\), not float32 \(2,\): hour, darkness"),
    ([], r"has the shape \(0,\)"),
    ([[0.1, 0.2]], r"has the shape \(1,\)"),
    (np.zeros((2, 1)), r"has the shape \(2, 1\)"),
    (None, "None is a NoneType, not float32"),
    (0.5, "0.5 is a float, not float32"),
    ("ab", "'ab' is a str, not float32"),
    (b"ab", "b'ab' is a bytes, not float32"),
    ({"hour": 1, "darkness": 2}, "is a dict, not float32"),
    ({1, 2}, "is a set, not float32"),
    (iter([0.1, 0.2]), "is a list_iterator, not float32"),
    (np.array([(0.1, 0.2)] * 2, [("h", "f4"), ("d", "f4")]), "feature 'hour': .* is a tuple"),
    (Vexing(), "<Vexing .* is a Vexing, not float32"),
]
"""Observations of `hour` and `darkness` that are none, and what is said of them."""
