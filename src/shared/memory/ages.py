"""Ages of pending decisions over a reboot: the monotonic clock begins again, and how long they have waited stays.

Standard library only.
"""

from __future__ import annotations

import struct
import time
from typing import Any
from zlib import adler32

from .processes import boot_id

_HEADER_BYTES = 4096
_PREFIX = struct.Struct("<QQ")
_TIME = struct.Struct("<q")


def clock() -> dict[str, Any]:
    """What has to be saved beside pending tables so that `rebase` can tell how old their entries were."""
    return {"boot_id": boot_id(), "monotonic_ns": time.monotonic_ns()}


def rebase(segment: bytes, record_bytes: int, entry_bytes: int, saved: Any) -> bytes:
    """A pending table's segment that was saved at `saved` (see `clock`), with its times on the clock of this boot.

    Within a boot they are right as they are. After another they are set so that each decision has waited as long as it
    had when it was saved. Damaged entries are left alone.
    """
    now = clock()
    if not isinstance(saved, dict) or saved.get("boot_id") == now["boot_id"]:
        return segment
    shift = now["monotonic_ns"] - int(saved["monotonic_ns"])
    data = bytearray(segment)
    for start in range(_HEADER_BYTES, len(data) - entry_bytes + 1, entry_bytes):
        ticket, checksum = _PREFIX.unpack_from(data, start)
        body = memoryview(data)[start + _PREFIX.size : start + entry_bytes]
        if ticket and adler32(body) ^ (ticket & 0xFFFFFFFF) == checksum:
            # After the record and the hash of the key, see records.RecordLayout.
            at = record_bytes - _PREFIX.size + 8
            moved = _TIME.unpack_from(body, at)[0] + shift
            _TIME.pack_into(body, at, min(max(moved, -(2**63)), now["monotonic_ns"]))
            _PREFIX.pack_into(data, start, ticket, adler32(body) ^ (ticket & 0xFFFFFFFF))
    return bytes(data)
