"""The features of an observation: float32[F], each of them finite, or one ValueError that names the feature."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .values import FLOAT32_MAX, as_float32_number, described

_Array = np.ndarray
_FLOAT32 = np.dtype(np.float32)
_SAFE_SQUARES = 1e76
"""Numbers whose squares add up to less fit into float32."""
_NAMES_SHOWN = 8


def as_features(value: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """`value` (a sequence, an array or a tensor of F numbers of any real type) as float32[F] in memory of its own.

    Raises ValueError naming the first feature that is no number or not finite as float32, or the shape.
    """
    if type(value) is _Array and value.shape == (len(names),) and value.dtype.kind in "biuf":
        wide = value.astype(np.float64)
        if wide.dot(wide) < _SAFE_SQUARES:
            return wide.astype(np.float32)
    numbers = [
        as_float32_number(f"observation: feature {name!r}", item)
        for name, item in zip(names, _items(value, names), strict=True)
    ]
    return np.array(numbers, np.float32)


def _items(value: Any, names: Sequence[str]) -> Sequence[Any]:
    """The numbers in `value`, one for each name."""
    if isinstance(value, (list, tuple)):
        shape: tuple[int, ...] = (len(value),)
        items: Sequence[Any] = value
    else:
        try:
            array = value if hasattr(value, "shape") and hasattr(value, "tolist") else np.asarray(value)
            shape, items = tuple(array.shape), array.tolist()
        except Exception as error:
            raise ValueError(f"observation: {described(value)}, {_wanted(names)} ({error})") from error
        if not shape:
            raise ValueError(f"observation: {described(value)}, {_wanted(names)}")
    if shape != (len(names),):
        raise ValueError(f"observation: has the shape {shape}, {_wanted(names)}")
    return items


def _wanted(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"not float32 ({len(names)},): {', '.join(names[:_NAMES_SHOWN])}{more}"


class PlainFeatures:
    """The `encode` of an application that brings none: the observation's numbers are the features, in order."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def __call__(self, observation: Any) -> NDArray[np.float32]:
        """float32[F], in memory of its own. Raises ValueError as `as_features` does."""
        if _are_plain(observation, len(self._names)):
            with contextlib.suppress(Exception):  # as in FeatureEncoder.write
                return np.array(observation, np.float32)
        return as_features(observation, self._names)


def _are_plain(observation: Any, count: int) -> bool:
    """True for a list or a tuple of `count` numbers that are finite as float32; most others are False."""
    kind = type(observation)
    if not (kind is list or kind is tuple) or len(observation) != count:
        return False
    try:
        return math.hypot(*observation) <= FLOAT32_MAX
    except Exception:
        return False


class FeatureEncoder:
    """Writes the features of observations, made by the application's `encode`, to where they are kept."""

    def __init__(self, encode: Callable[[Any], Any], names: Sequence[str]) -> None:
        self._encode = encode
        self._is_plain = isinstance(encode, PlainFeatures)
        self._names = tuple(names)
        self._shape = (len(self._names),)

    @property
    def width(self) -> int:
        """Features of an observation."""
        return self._shape[0]

    def write(self, observation: Any, target: NDArray[np.float32]) -> None:
        """Encode into `target` (float32[F]).

        Raises ValueError if the features are not F finite numbers, and in place of Python's own errors that `encode`
        raises (KeyError, TypeError, ...). Those that the application defines pass as they are, and so do time limits.
        """
        if self._is_plain:
            if _are_plain(observation, self._shape[0]):
                try:
                    target[:] = observation
                    return
                except Exception:  # numpy does not take every number, a tensor with a gradient for one
                    pass
            features = observation
        else:
            features = self._encoded(observation)
        if type(features) is _Array and features.dtype == _FLOAT32 and features.shape == self._shape:
            target[:] = features
            # Anything that is not finite makes the sum so; large numbers may, and are looked at one by one.
            if math.isfinite(target.dot(target)):
                return
        target[:] = as_features(features, self._names)

    def _encoded(self, observation: Any) -> Any:
        try:
            return self._encode(observation)
        except Exception as error:
            if isinstance(error, (ValueError, OSError)) or type(error).__module__ != "builtins":
                raise
            raise ValueError(f"observation: cannot be encoded: {error!r}") from error
