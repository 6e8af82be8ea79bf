"""Durations: which bucket holds one, and what share took how long."""

from __future__ import annotations

import pytest
from tandem.shared.memory.durations import DECISION, FRESHNESS, Scale


def test_percentiles_are_interpolated() -> None:
    """A percentile lies in the bucket that holds it; the open bucket counts as its lower bound."""
    scale = Scale(16, 3)
    assert scale.percentile([10, 0, 0], 0.5) == pytest.approx(8e-6)
    assert scale.percentile([1, 0, 1], 1.0) == pytest.approx(16e-6 * 2**0.5)
    assert 16e-6 < scale.percentile([1, 8, 1], 0.5) < 16e-6 * 2**0.5
    with pytest.raises(ValueError, match="nothing"):
        scale.percentile([0, 0, 0], 0.5)


@pytest.mark.parametrize("scale", [DECISION, FRESHNESS])
def test_a_duration_lies_in_the_first_bucket_that_it_fits(scale: Scale) -> None:
    """A bound belongs to its bucket, a nanosecond more to the next one; what is longer than all is in the last one."""
    for place, bound in enumerate(scale.bounds_ns):
        assert scale.bucket(bound) == place
        assert scale.bucket(bound + 1) == place + 1
        assert scale.bounds[place] == pytest.approx(bound * 1e-9, rel=1e-4)
    assert scale.bucket(10**15) == len(scale.bounds)
