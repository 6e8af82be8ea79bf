"""Files that survive a crash: written and synced, JSON that carries its own hash, damaged things set aside by name.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

SEAL = "seal"
"""Key of the hash that a sealed JSON object has of all its other keys."""
_CHUNK = 1 << 20
_STRETCH = 1 << 16


def seal(plain: Mapping[str, Any]) -> bytes:
    """The object as JSON with the SHA-256 of the rest under `seal`."""
    # What JSON changes, such as a number as a key, is changed before it is hashed.
    content = json.loads(json.dumps(dict(plain)))
    return json.dumps({**content, SEAL: _hash(content)}, indent=1, sort_keys=True).encode()


def unseal(data: bytes) -> dict[str, Any]:
    """The object that was sealed, without its seal. Raises ValueError saying what is wrong with it."""
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    found = content.pop(SEAL, None)
    if found is None:
        raise ValueError("it has no seal: it is damaged, or an earlier program wrote it")
    if found != _hash(content):
        raise ValueError("its contents do not match its seal")
    return content


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and sync it. Raises OSError, FileExistsError too."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(path: Path, data: bytes) -> None:
    """Give a file new contents: whoever reads it finds the old ones or these, whole, also after a loss of power.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    write_synced(temporary, data)
    os.replace(temporary, path)
    sync_folder(path.parent)


def replace_whole(path: Path, data: bytes) -> None:
    """As `replace_synced`, without waiting for the disk: enough where only this process or its like may be killed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def copy_synced(source: str, target: Path) -> dict[str, Any]:
    """Copy a file to a new one and sync it; its `bytes` and `sha256`. Stretches of zeros take no room on the disk.

    Raises OSError.
    """
    digest, size = hashlib.sha256(), 0
    with open(source, "rb") as reader, open(target, "xb") as writer:
        while chunk := reader.read(_STRETCH):
            digest.update(chunk)
            if chunk.count(0) == len(chunk):
                writer.seek(len(chunk), os.SEEK_CUR)
            else:
                writer.write(chunk)
            size += len(chunk)
        writer.truncate(size)
        writer.flush()
        os.fsync(writer.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_checked(path: Path, expected: Mapping[str, Any]) -> bytes:
    """The contents of a file with these `bytes` and `sha256`. Raises OSError, or ValueError if they differ."""
    data = path.read_bytes()
    if len(data) != expected["bytes"]:
        raise ValueError(f"{path.name} is {len(data)} bytes long and was {expected['bytes']}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise ValueError(f"{path.name} does not match its hash")
    return data


def check_file(path: Path, expected: Mapping[str, Any]) -> None:
    """Compare a file with its `bytes` and `sha256` without holding it in memory. Raises OSError or ValueError."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    if size != expected["bytes"]:
        raise ValueError(f"{path.name} is {size} bytes long and was {expected['bytes']}")
    if digest.hexdigest() != expected["sha256"]:
        raise ValueError(f"{path.name} does not match its hash")


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path, kind: str, why: str) -> Path | None:
    """Rename what cannot be used to `<name>.<kind>-<time>` and say so; None if even that fails: it is left out then."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(100):
        target = path.with_name(f"{path.name}.{kind}-{stamp}{f'-{number}' if number else ''}")
        if os.path.lexists(target):
            continue
        try:
            os.rename(path, target)
        except OSError as error:
            log.error("%s is left out: %s (and cannot be renamed: %s)", path, why, error.strerror)
            return None
        log.error("%s is set aside as %s: %s", path, target.name, why)
        return target
    return None
