"""Rows in shared memory: written so that a reader without a lock can tell a whole row from any other.

A row begins with its number. Its writer makes the number 0, writes the contents and their checksum, and stores the
number last; a reader that finds the same number before and after it copied the row has copied one whole row. A writer
that dies in between leaves a row that nobody takes. Standard library only.

The ring appends in the same order without this module, since a call more costs a twentieth of an append; a test
compares what both store, and in which order.
"""

from __future__ import annotations

from zlib import adler32

PREFIX_BYTES = 16
"""Number and checksum, before the contents."""


def checksum(contents: bytes | memoryview, number: int) -> int:
    """adler32(contents) xor the number's low 32 bits, so that a row in the wrong place is not taken for valid.

    Any single flipped bit changes it (RFC 1950 defines Adler-32; unlike a CRC it is a sum, so it can be taken of many
    rows at once).
    """
    return adler32(contents) ^ (number & 0xFFFFFFFF)


def write_row(words: memoryview, raw: memoryview, start: int, number: int, contents: bytes) -> None:
    """Write the row that begins at byte `start`; `words` and `raw` are the segment as u64 and as bytes.

    The order of the stores is the protocol: invalidate, write, make valid.
    """
    word = start >> 3
    words[word] = 0
    raw[start + PREFIX_BYTES : start + PREFIX_BYTES + len(contents)] = contents
    words[word + 1] = checksum(contents, number)
    words[word] = number


def write_numbers(words: memoryview, floats: memoryview[float], start: int, number: int, values: list[float]) -> None:
    """As `write_row`, for a row of f64 values after its number: each is whole by itself, so without a checksum."""
    word = start >> 3
    words[word] = 0
    for place, value in enumerate(values, word + 1):
        floats[place] = value
    words[word] = number


def is_whole(words: memoryview, raw: memoryview, start: int, row_bytes: int, number: int) -> bool:
    """True if the row that begins at byte `start` carries this number and its contents have their checksum."""
    word = start >> 3
    if words[word] != number:
        return False
    return bool(words[word + 1] == checksum(raw[start + PREFIX_BYTES : start + row_bytes], number))
