"""Segments as numpy arrays: standard .npy files, live."""

from __future__ import annotations

import os
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from tandem.shared.errors import LayoutMismatch, SegmentExists, SegmentInvalid, SegmentMissing
from tandem.shared.memory.arrays import HEADER_BYTES, SharedArray, create_array, npy_header
from tandem.shared.memory.segments import segment_name, segment_path

ROW = np.dtype([("sequence", "<u8"), ("value", "<f4", (3,)), ("pad", "V4")])


def test_np_load_works_on_a_live_segment(instance_name: str) -> None:
    """A mapped .npy file shows what the writer writes, as it writes."""
    create_array(instance_name, "ring0", ROW, 5)
    shared = SharedArray(instance_name, "ring0", ROW, 5)
    mapped = np.load(segment_path(instance_name, "ring0"), mmap_mode="r")
    assert mapped.dtype == ROW
    assert mapped.shape == (5,)
    assert mapped.offset == HEADER_BYTES
    shared.array["value"][2] = (1, 2, 3)
    assert mapped["value"][2].tolist() == [1, 2, 3]


def test_multiprocessing_finds_the_segment(instance_name: str) -> None:
    """The segment is a `multiprocessing.shared_memory` one."""
    create_array(instance_name, "ring0", ROW, 5)
    shared = SharedArray(instance_name, "ring0", ROW, 5)
    shared.array["sequence"][4] = 99
    other = SharedMemory(segment_name(instance_name, "ring0"))
    try:
        assert other.buf is not None
        assert bytes(other.buf[:6]) == b"\x93NUMPY"
        row = HEADER_BYTES + 4 * ROW.itemsize
        assert int.from_bytes(other.buf[row : row + 8], "little") == 99
    finally:
        from multiprocessing import resource_tracker

        resource_tracker.unregister("/" + segment_name(instance_name, "ring0"), "shared_memory")
        other.close()


def test_views_of_rows_words_and_bytes_are_one_memory(instance_name: str) -> None:
    """`array`, `words` and `raw` show the same row."""
    create_array(instance_name, "ring0", ROW, 2)
    shared = SharedArray(instance_name, "ring0", ROW, 2)
    shared.words[1, 0] = 7
    assert shared.array["sequence"][1] == 7
    assert shared.raw[HEADER_BYTES + ROW.itemsize] == 7
    assert shared.row_bytes == ROW.itemsize


def test_missing_short_unfinished_and_other_segments_are_refused(instance_name: str) -> None:
    """Each has its error, and the difference is named."""
    with pytest.raises(SegmentMissing):
        SharedArray(instance_name, "ring0", ROW, 5)
    create_array(instance_name, "ring0", ROW, 5)
    with pytest.raises(SegmentExists):
        create_array(instance_name, "ring0", ROW, 5)
    with pytest.raises((SegmentInvalid, LayoutMismatch)):
        SharedArray(instance_name, "ring0", ROW, 6)
    with pytest.raises(LayoutMismatch, match=r"'shape': \(5,\).*'shape': \(4,\)"):
        SharedArray(instance_name, "ring0", ROW, 4)
    other = np.dtype([("sequence", "<u8"), ("value", "<f4", (4,))])
    with pytest.raises(LayoutMismatch, match=r"\(3,\).*\(4,\)"):
        SharedArray(instance_name, "ring0", other, 5)
    path = segment_path(instance_name, "ring0")
    with open(path, "r+b") as file:
        file.write(bytes(8))
    with pytest.raises(LayoutMismatch, match="not complete"):
        SharedArray(instance_name, "ring0", ROW, 5)
    os.truncate(path, 4096)
    with pytest.raises(SegmentInvalid, match="4096 bytes long"):
        SharedArray(instance_name, "ring0", ROW, 5)
    assert os.stat(path).st_size == 4096


def test_a_header_is_a_page_and_refuses_more() -> None:
    """Exactly 4096 bytes; a description that does not fit is refused."""
    assert len(npy_header(ROW, 10**9)) == HEADER_BYTES
    wide = np.dtype([(f"field_{i:04d}", "<u8") for i in range(300)])
    with pytest.raises(ValueError, match="fit into the header"):
        npy_header(wide, 1)


def test_registration_with_the_resource_tracker_is_left_as_it_was(instance_name: str) -> None:
    """Attaching patches nothing for good."""
    from multiprocessing import resource_tracker

    create_array(instance_name, "ring0", ROW, 2)
    before = resource_tracker.register
    SharedArray(instance_name, "ring0", ROW, 2)
    with pytest.raises(SegmentMissing):
        SharedArray(instance_name, "ring1", ROW, 2)
    assert resource_tracker.register == before


def test_dropped_arrays_give_their_descriptors_back(instance_name: str) -> None:
    """Attaching again and again, views or not, does not use up the process's files."""
    import gc

    create_array(instance_name, "ring0", ROW, 5)
    SharedArray(instance_name, "ring0", ROW, 5)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        kept = SharedArray(instance_name, "ring0", ROW, 5).array[1:3]
    del kept
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
