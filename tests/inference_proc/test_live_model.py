"""The live model: what a forward pass writes never reaches the published weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tandem.inference_proc.live_model import LiveModel
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.slots import checksum
from tandem.shared.weights.subscriber import Look

MakeChannel = Callable[..., Any]


class Counting(torch.nn.Module):
    """It counts its calls in a buffer, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
        self.register_buffer("calls", torch.zeros(3))
        self.register_buffer("same", self.calls)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.calls += 1
        return (self.layer(observations) + self.same,)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_buffer_that_forward_writes_is_the_readers_own(channel: MakeChannel, in_place: bool) -> None:
    """The slot stays as it was published, for this reader and all others; each version brings the buffers anew."""
    trained = FlatModel(Counting())
    made = channel(weights=trained.layout, publish=False)
    publisher = Publisher(made.slots())
    live = LiveModel(FlatModel(Counting()), made.slots(), in_place)
    rows = torch.zeros(1, 2)
    for version in (1, 2, 6):
        trained.state()["calls"].fill_(10.0 * version)
        publisher.publish(trained.flat, version)
        assert live.refresh() is Look.TAKEN
        expected = trained.model.layer(rows) + 10.0 * version
        with torch.inference_mode():
            for call in (1, 2):
                assert torch.equal(live.flat.model(rows)[0], expected + call)
        slots = made.slots()
        index = slots.find(version)
        assert torch.equal(slots.data[index], trained.flat)
        assert checksum(slots.data[index]) == made.control.get(f"slot.{index}.checksum")
        assert live.is_whole()
        weight = live.flat.model.layer.weight
        own = live._subscriber._slots.data[index]
        assert (own.data_ptr() <= weight.data_ptr() < own.data_ptr() + own.numel()) == in_place
