"""Values from outside, converted in one place: texts and numbers, or one ValueError that says what would be right."""

from __future__ import annotations

import hashlib
import math
import reprlib
import struct
from collections.abc import Iterable
from typing import Any

FLOAT32_MAX = 3.4028234663852886e38
FLOAT32_TINY = 1.1754943508222875e-38
"""The smallest normal float32."""

MASKED = -1e9
"""The logit of a choice that must not be taken (finite, so that entropy stays finite too)."""

BAD_DATA = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""What senseless data make Python raise. Anything else (a time limit, the end of the program) is for the caller."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def key_hash(key: bytes) -> int:
    """64-bit hash of an encoded key, the same in every process: by it a key is found in another lane's table."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def id_hash(text: str) -> int:
    """64-bit hash of a client's id (of a request, a reward, a candidate), as `key_hash`; never 0, which means none."""
    return key_hash(text.encode("utf-8", "surrogatepass")) or 1


def shown(value: Any) -> str:
    """`value` for a message: short, and whatever its own `__repr__` does."""
    try:
        return " ".join(_repr.repr(value).split())[:100]
    except Exception:  # a number of 5,000 digits, for one
        return "a value"


def described(value: Any) -> str:
    """`7 is an int`, `None is a NoneType`."""
    kind = type(value).__name__
    return f"{shown(value)} is {'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def as_text(name: str, value: Any) -> str:
    """`value` as a plain str. Raises ValueError if it is no text; nothing is made a text of that is none."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise ValueError(f"{name}: {described(value)}; it must be text (str)")


def as_bool(name: str, value: Any) -> bool:
    """`value` as a bool, if it is one of Python or numpy. Raises ValueError for all else."""
    if type(value) is bool:
        return value
    if type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise ValueError(f"{name}: {described(value)}; it must be True or False")


def as_number(name: str, value: Any) -> float:
    """`value` as a float: whatever Python or numpy takes for one real number, arrays and tensors of one element too.

    One that is beyond float64 becomes infinite. Raises ValueError for texts, complex numbers, None and all else.
    """
    if type(value) is float:
        return value
    plain = value
    try:
        if hasattr(value, "item"):
            plain = value.item()
        if hasattr(type(plain), "__float__") or hasattr(type(plain), "__index__"):
            try:
                return float(plain)
            except OverflowError:
                return float("inf") if plain > 0 else float("-inf")
    except Exception as error:
        raise ValueError(f"{name}: {described(value)}; it must be a number ({error})") from error
    raise ValueError(f"{name}: {described(value)}; it must be a number")


def fits_float32(number: float) -> bool:
    """True if the number is finite, as float32 too: what is stored and trained with is float32."""
    return -FLOAT32_MAX <= number <= FLOAT32_MAX


def nearest_float32(number: float) -> float:
    """The number, or the end of float32's range that it lies beyond."""
    return min(max(number, -FLOAT32_MAX), FLOAT32_MAX)


def all_fit_float32(numbers: Iterable[float]) -> bool:
    """`fits_float32` of each, in one call for ordinary ones."""
    try:
        if math.hypot(*numbers) <= FLOAT32_MAX:
            return True
    except OverflowError:  # an int beyond float64
        return False
    return all(map(fits_float32, numbers))


def as_float32_number(name: str, value: Any) -> float:
    """`as_number`, and ValueError for one that is not finite or beyond float32."""
    number = as_number(name, value)
    if not fits_float32(number):
        raise ValueError(f"{name}: {shown(value)} is not finite as float32; it must be within -3.4e38 and 3.4e38")
    return number


def storable_reward(value: object) -> float | None:
    """`value` as a number that a record can hold (finite as float32); None if it is not one."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if fits_float32(number) else None
