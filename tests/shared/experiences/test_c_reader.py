"""A reader in C, written from docs/shared-memory.md alone, gets the version and whole weights."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from channel_kit import attach_channel, pattern
from safetensors.numpy import load_file
from tandem.shared.memory import layout

SOURCE = Path(__file__).parents[3] / "examples" / "c_reader" / "reader.c"
COMPILER = shutil.which("cc")
MakeChannel = Callable[..., Any]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled program."""
    if COMPILER is None:
        pytest.skip("no C compiler on this machine")
    program = str(tmp_path_factory.mktemp("reader") / "reader")
    subprocess.run([COMPILER, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, str(SOURCE)], check=True, timeout=60)
    return program


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_its_offsets_are_those_of_the_layout() -> None:
    """What the program says and what the table says are the same numbers."""
    text = SOURCE.read_text(encoding="utf-8")
    stated = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+),?\n", text)}
    assert stated == {
        "MAGIC_AT": layout.offset("magic"),
        "LAYOUT_VERSION_AT": layout.offset("layout_version"),
        "SEGMENT_BYTES_AT": layout.offset("segment_bytes"),
        "SLOTS_FIELD_AT": layout.offset("slots"),
        "WEIGHTS_BYTES_AT": layout.offset("weights_bytes"),
        "WEIGHTS_OFFSET_AT": layout.offset("weights_offset"),
        "VERSION_AT": layout.offset("version"),
        "SLOT_TABLE_AT": layout.SLOTS_AT,
        "SLOT_STRIDE": layout.SLOT_BYTES,
        "SEQUENCE_AT": layout.SLOT_FIELDS["sequence"][0],
        "CHECKSUM_AT": layout.SLOT_FIELDS["checksum"][0],
    }
    assert f"0x{layout.MAGIC:016X}" in text
    assert f"LAYOUT_VERSION {layout.LAYOUT_VERSION}\n" in text


def test_it_prints_version_and_weights(reader: str, channel: MakeChannel, tmp_path: Path) -> None:
    """The copy is a .safetensors file with the published values."""
    made = channel(weights_bytes=4096)
    publisher = made.publisher()
    for version in (1, 2, 3, 7):
        made.publish(publisher, version)
        done = run(reader, made.name, str(tmp_path / "copy.safetensors"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"version {version}\nweights 4096 bytes")
        assert done.stdout.rstrip().endswith("tries 1")
        assert set(load_file(tmp_path / "copy.safetensors")["words"].view("u8").tolist()) == {int(pattern(version))}


def test_it_is_consistent_while_a_trainer_publishes(
    reader: str, channel: MakeChannel, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """Every copy is one version's, in the midst of publishes."""
    import threading

    made = channel(weights_bytes=1 << 20)
    stop = threading.Event()

    def publish() -> None:
        publisher = attach_channel(made.name).publisher()
        version = 0
        while not stop.is_set():
            version += 1
            made.publish(publisher, version)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        versions = []
        for _ in range(10):
            done = run(reader, made.name, str(tmp_path / "copy.safetensors"))
            assert done.returncode == 0, done.stderr
            versions.append(int(done.stdout.split()[1]))
            words = set(load_file(tmp_path / "copy.safetensors")["words"].view("u8").tolist())
            assert words == {int(pattern(versions[-1]))}
    finally:
        stop.set()
        thread.join()
    assert versions == sorted(versions)
    assert versions[-1] > versions[0]


def test_it_refuses_what_is_not_there_or_not_known(reader: str, channel: MakeChannel) -> None:
    """No instance, another layout, a damaged slot: a message and status 1."""
    assert "No such file" in run(reader, "no-such-instance").stderr
    made = channel()
    made.control.set("layout_version", layout.LAYOUT_VERSION + 1)
    assert "another layout" in run(reader, made.name).stderr
    made.control.set("layout_version", layout.LAYOUT_VERSION)
    made.slots().data[0][5] ^= 1
    done = run(reader, made.name)
    assert done.returncode == 1
    assert "no version could be taken" in done.stderr
