"""A segment that is missing or too short is an error; attaching never creates or grows one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from proof import figure
from tandem.shared.errors import TandemError
from tandem.shared.memory.segments import FOLDER, segment_path

MakeChannel = Callable[..., Any]


def use_everything(name: str) -> None:
    """Attach and open every end."""
    from channel_kit import attach_channel

    made = attach_channel(name, timeout=0)
    try:
        made.reader().sample(1)
        made.subscriber()
        made.publisher()
        made.claim().release()
    finally:
        made.control.close()


def sizes(name: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in Path(FOLDER).glob(f"tandem.{name}.*")}


def silently_changed(made: Any, path: str, attach: Callable[[], None]) -> bool:
    """True if attaching after the damage raised no typed error or changed a file."""
    before = sizes(made.name)
    raised = False
    try:
        attach()
    except TandemError as error:
        raised = path in str(error)
    return not raised or sizes(made.name) != before


PARTS = ["control", "ring0", "pending0", "weights0", "weights3"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("length", [None, 0, 8, 4096, -1])
def test_promise_22_nothing_is_recreated(channel: MakeChannel, part: str, length: int | None) -> None:
    """Unlinked or cut to any length, a segment is a typed error that names it, and stays as it is."""
    made = channel()
    use_everything(made.name)
    path = segment_path(made.name, part)
    if length is None:
        os.unlink(path)
    else:
        os.truncate(path, length if length >= 0 else os.stat(path).st_size + length)
    assert not silently_changed(made, path, lambda: use_everything(made.name))
    figure(22, f"0 of {len(PARTS) * 5} damages")


def test_mapping_without_looking_first_creates_and_grows(channel: MakeChannel) -> None:
    """The same check finds torch.from_file used alone."""
    made = channel()
    path = segment_path(made.name, "weights0")
    length = os.stat(path).st_size

    def careless() -> None:
        torch.from_file(path, shared=True, size=length, dtype=torch.uint8)

    os.truncate(path, 100)
    assert silently_changed(made, path, careless)
    os.unlink(path)
    assert silently_changed(made, path, careless)
