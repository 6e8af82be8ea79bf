"""Weights: any model in one flat buffer, slots that are .safetensors files, publishing and taking versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from channel_kit import fill, flat_layout, is_whole, make_channel
from safetensors.torch import load_file
from tandem.shared.errors import LayoutMismatch, ModelMismatch, SegmentInvalid, SegmentMissing
from tandem.shared.memory.segments import segment_path
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.layout import WeightsLayout
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.slots import Slots, checksum
from tandem.shared.weights.subscriber import Look

MakeChannel = Callable[..., Any]


class Odd(torch.nn.Module):
    """Several dtypes, integer buffers, tied and 0-dimensional tensors, an empty one."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = torch.nn.Linear(width, 5)
        self.norm = torch.nn.BatchNorm1d(5)
        self.second = torch.nn.Linear(5, 5, dtype=torch.float64)
        self.third = torch.nn.Linear(5, 7, dtype=torch.bfloat16)
        self.fourth = torch.nn.Linear(7, 5, dtype=torch.bfloat16)
        self.tied = torch.nn.Linear(5, 7, dtype=torch.bfloat16)
        self.tied.weight = self.third.weight
        self.scale = torch.nn.Parameter(torch.tensor(2.5))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.quarter = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))


def test_a_model_keeps_its_values_when_it_becomes_flat() -> None:
    """Every tensor is a view of one buffer, with the values, shapes and dtypes it had; tied ones stay tied."""
    torch.manual_seed(1)
    model = Odd()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flat = FlatModel(model)
    after = model.state_dict()
    assert list(after) == list(before)
    base = flat.flat.untyped_storage().data_ptr()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]), name
        assert (tensor.dtype, tensor.shape) == (before[name].dtype, before[name].shape)
        assert tensor.numel() == 0 or tensor.untyped_storage().data_ptr() == base, name
        assert tensor.data_ptr() % tensor.element_size() == 0
    assert model.tied.weight is model.third.weight
    assert flat.layout.aliases == (("tied.weight", "third.weight"),)
    assert flat.flat.numel() == flat.layout.data_bytes


def test_a_flat_model_trains_in_place() -> None:
    """The optimiser's step is seen in the flat buffer."""
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    flat = FlatModel(model)
    before = flat.flat.clone()
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    assert not torch.equal(before, flat.flat)
    assert torch.equal(flat.state()["weight"], model.weight)


def test_a_dtype_that_cannot_be_shared_is_refused() -> None:
    """It is named."""
    model = torch.nn.Module()
    model.register_buffer("odd", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ModelMismatch, match=r"odd: dtype torch\.complex64"):
        WeightsLayout.of(model)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (Odd(3), Odd(4), "first.weight F32"),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False), "bias"),
        (torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2), "bias"),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, dtype=torch.float64), "F64"),
    ],
)
def test_another_model_is_refused_with_the_first_difference(
    ours: torch.nn.Module, theirs: torch.nn.Module, words: str
) -> None:
    """Shape, dtype, a tensor more or less: named."""
    with pytest.raises(ModelMismatch, match=words):
        WeightsLayout.of(ours).check(WeightsLayout.of(theirs), "the checkpoint")
    WeightsLayout.of(ours).check(WeightsLayout.of(ours), "itself")


def test_a_quiet_slot_is_a_safetensors_file(channel: MakeChannel) -> None:
    """`safetensors.torch.load_file(path)` gives the published tensors, all dtypes."""
    torch.manual_seed(2)
    flat = FlatModel(Odd())
    made = channel(weights=flat.layout, publish=False)
    Publisher(made.slots()).publish(flat.flat, 5)
    loaded = load_file(segment_path(made.name, "weights1"))
    state = flat.state()
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize("size", [8, 256, 1 << 20])
def test_a_published_version_is_taken_whole(channel: MakeChannel, size: int) -> None:
    """TAKEN once for each version, NOTHING_NEW in between; in a condition only TAKEN is true."""
    made = channel(weights_bytes=size)
    publisher, subscriber, room = made.publisher(), made.subscriber(), made.room()
    assert subscriber.refresh(room) is Look.TAKEN
    for version in (1, 2, 3, 9, 10, 40):
        made.publish(publisher, version)
        assert subscriber.refresh(room) is Look.TAKEN
        assert subscriber.version == publisher.version == version
        assert is_whole(room, version)
        assert subscriber.refresh(room) is Look.NOTHING_NEW
    assert [found for found in Look if found] == [Look.TAKEN]


def test_a_version_that_does_not_rise_is_refused(channel: MakeChannel) -> None:
    """Versions rise, whoever asks."""
    made = channel()
    publisher = made.publisher()
    made.publish(publisher, 4)
    for version in (4, 3, -1):
        with pytest.raises((ValueError, OverflowError)):
            made.publish(publisher, version)
    assert publisher.version == 4


def test_a_slot_in_the_making_is_not_taken(channel: MakeChannel) -> None:
    """BUSY, before anything is copied, and the next look takes the version."""
    made = channel()
    publisher, subscriber, room = made.publisher(), made.subscriber(), made.room()
    made.publish(publisher, 1)
    subscriber.refresh(room)
    made.publish(publisher, 2)
    made.control.set("slot.2.sequence", 2 * 6 - 1)
    assert subscriber.refresh(room) is Look.BUSY
    assert subscriber.version == 1
    assert is_whole(room, 1)
    made.control.set("slot.2.sequence", 4)
    assert subscriber.refresh(room) is Look.TAKEN
    assert is_whole(room, 2)


def test_verification_finds_a_damaged_slot(channel: MakeChannel) -> None:
    """With the checksum a flipped bit is noticed and nothing is taken."""
    made = channel()
    publisher, subscriber, room = made.publisher(), made.subscriber(verify=True), made.room()
    subscriber.refresh(room)
    made.publish(publisher, 1)
    slots = made.slots()
    slots.data[1][17] ^= 4
    assert subscriber.refresh(room) is Look.BUSY
    assert subscriber.version == 0
    slots.data[1][17] ^= 4
    assert subscriber.refresh(room) is Look.TAKEN


def test_a_slot_can_be_read_in_place(channel: MakeChannel) -> None:
    """What was computed from the held slot counts only if it is whole afterwards."""
    made = channel()
    publisher, subscriber = made.publisher(), made.subscriber()
    made.publish(publisher, 1)
    assert subscriber.look() is Look.TAKEN
    assert subscriber.version == -1
    held = subscriber.hold()
    assert subscriber.version == 1
    assert is_whole(held, 1)
    assert subscriber.is_whole()
    assert subscriber.look() is Look.NOTHING_NEW
    for version in (2, 3, 4):
        made.publish(publisher, version)
    assert subscriber.is_whole()
    made.publish(publisher, 5)
    assert not subscriber.is_whole()
    assert subscriber.look() is Look.TAKEN
    assert subscriber.hold().data_ptr() == held.data_ptr()
    assert subscriber.is_whole()


def test_a_model_is_bound_to_other_memory_and_back(channel: MakeChannel) -> None:
    """Re-pointing the parameters changes every tensor, tied ones included, and copies nothing."""
    torch.manual_seed(3)
    model = Odd()
    flat = FlatModel(model)
    made = channel(weights=flat.layout, publish=False)
    Publisher(made.slots()).publish(flat.flat, 1)
    own, slot = flat.flat, made.slots().data[1]
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own.zero_()
    flat.bind(slot)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert model.tied.weight is model.third.weight
    assert model.first.weight.untyped_storage().data_ptr() == slot.untyped_storage().data_ptr()
    flat.bind(own)
    assert not model.first.weight.any()


def test_the_checksum_is_the_xor_of_words() -> None:
    """The last word is zero padded; an empty buffer has 0."""
    assert checksum(torch.zeros(0, dtype=torch.uint8)) == 0
    assert checksum(torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 3], dtype=torch.uint8)) == 2
    flat = fill(torch.zeros(24, dtype=torch.uint8), 3)
    assert checksum(flat) == int(flat.numpy().view("<u8")[0])


def test_slots_that_are_missing_short_or_another_model_s_are_refused(channel: MakeChannel) -> None:
    """Each has its error, and nothing is created or grown."""
    import os

    made = channel()
    path = segment_path(made.name, "weights2")
    with pytest.raises((LayoutMismatch, SegmentInvalid)):
        Slots(made.control, flat_layout(512))
    with open(path, "r+b") as file:
        file.seek(20)
        file.write(b"x")
    with pytest.raises(LayoutMismatch, match="another model"):
        made.slots()
    os.truncate(path, 4096)
    with pytest.raises(SegmentInvalid, match="4096 bytes"):
        made.slots()
    assert os.stat(path).st_size == 4096
    os.unlink(path)
    with pytest.raises(SegmentMissing):
        made.slots()
    assert not os.path.exists(path)


def test_slots_are_torch_shared_tensors(channel: MakeChannel) -> None:
    """In torch's own sense, views included."""
    made = channel()
    for data in made.slots().data:
        assert data.is_shared()
        assert data[8:16].is_shared()


def test_two_attachments_are_one_memory(instance_name: str) -> None:
    """What one writes the other reads."""
    made = make_channel(instance_name)
    first, second = made.slots(), made.slots()
    first.data[1][3] = 99
    assert second.data[1][3] == 99
    made.control.close()
