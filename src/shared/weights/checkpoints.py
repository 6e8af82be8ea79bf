"""Checkpoints on disk: safetensors for model and optimiser, a JSON manifest with hashes. No pickle.

A checkpoint is a folder `<version, 12 digits>`: it is written under a temporary name, synced, and renamed, so that a
folder with a final name is whole. Whatever is read is checked against the manifest's hashes first, and the manifest
against its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..durable import SEAL, seal, set_aside, sync_folder, unseal, write_synced
from ..errors import CheckpointError, OtherLearner, SpoiltCheckpoint
from .finite import became_not_finite, not_finite
from .flat_model import FlatModel

log = logging.getLogger(__name__)

FORMAT = 1
MAX_VERSION = 2**53
"""Versions above cannot be told apart in the step history."""
_KINDS: dict[type[CheckpointError], str] = {SpoiltCheckpoint: "not-finite", OtherLearner: "other"}
_MODEL, _OPTIMISER, _MANIFEST = "model.safetensors", "optimiser.safetensors", "manifest.json"


def differing_meaning(saved: Mapping[str, Any], meaning: Mapping[str, str] | None) -> str:
    """How what was saved differs in meaning from what is wanted, in words; empty if it does not."""
    if meaning is None:
        return ""
    # Earlier programs knew nothing else, and did not say so.
    theirs = {"learner": "policy_gradient", "exploration": "softmax", **saved}
    if all(theirs[name] == meaning[name] for name in meaning):
        return ""
    learner, exploration = theirs["learner"], theirs["exploration"]
    return (
        f"its weights are of the learner {learner} with exploration by {exploration}; here they are of"
        f" {meaning['learner']} with exploration by {meaning['exploration']}"
    )


def load_tensors(flat: FlatModel, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Copy saved `tensors` into a model. Raises CheckpointError naming the first difference; nothing is half-loaded."""
    views = flat.state()
    for spec in flat.layout.specs:
        tensor = tensors.get(spec.name)
        if tensor is None:
            raise CheckpointError(f"{source}: has no tensor {spec.name}; it belongs to another model")
        if tuple(tensor.shape) != spec.shape or tensor.dtype != views[spec.name].dtype:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise CheckpointError(f"{source}: {spec.name} is {found}, the model has {spec.describe()}")
    with torch.no_grad():
        for name, view in views.items():
            view.copy_(tensors[name])


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose manifest was read; the tensors are read and checked when they are loaded."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def version(self) -> int:
        """The model version that was saved."""
        return int(self.manifest["version"])

    def _read(self, name: str) -> dict[str, torch.Tensor]:
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self.folder / name}: cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest["sha256"].get(name):
            raise CheckpointError(f"{self.folder / name}: its contents do not match the manifest's hash")
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise CheckpointError(f"{self.folder / name}: is not a safetensors file: {error}") from error
        spoilt = set(not_finite(tensors)) - set(self.manifest.get("not_finite", {}).get(name, ()))
        if spoilt:
            raise SpoiltCheckpoint(f"{self.folder / name}: {min(spoilt)} has a value that is not finite")
        return tensors

    def check(self, fresh: Mapping[str, torch.Tensor] | None = None) -> None:
        """Read both files: raises CheckpointError, naming what is wrong, if they cannot be used.

        With a `fresh` model's tensors, what is not finite there may be so here, and nothing else.
        """
        spoilt = None if fresh is None else became_not_finite(self._read(_MODEL), fresh)
        if spoilt is not None:
            raise SpoiltCheckpoint(f"{self.folder / _MODEL}: {spoilt} has a value that is not finite")
        if fresh is None:
            self._read(_MODEL)
        self._read(_OPTIMISER)

    def load_model(self, flat: FlatModel) -> None:
        """Copy the weights into a model. Raises CheckpointError naming the first difference; nothing is half-loaded."""
        load_tensors(flat, self._read(_MODEL), self.folder)

    def load_optimiser(self) -> dict[str, torch.Tensor]:
        """The optimiser's tensors by name. Raises CheckpointError."""
        return self._read(_OPTIMISER)


class CheckpointStore:
    """The checkpoints of one instance in one folder.

    `meaning` (`learner` and `exploration`, see `shared.learning.meaning_of`) is what weights mean here: it is saved
    with each checkpoint, and one of another meaning is never loaded, although its tensors may fit. Without it any will
    do.
    """

    def __init__(self, folder: Path, meaning: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.meaning = meaning

    def save(
        self,
        version: int,
        model: Mapping[str, torch.Tensor],
        optimiser: Mapping[str, torch.Tensor],
        details: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint and return its folder. `details` (config, metrics, ...) go into the manifest.

        Raises CheckpointError if the disk refuses; nothing half-written keeps a final name.
        """
        final = self.folder / f"{version:012d}"
        temporary = self.folder / f".{version:012d}.{os.getpid()}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            hashes, constants = {}, {}
            for name, tensors in ((_MODEL, model), (_OPTIMISER, optimiser)):
                constants[name] = not_finite(tensors)
                data = save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()})
                hashes[name] = hashlib.sha256(data).hexdigest()
                write_synced(temporary / name, data)
            manifest = {"format": FORMAT, "version": version, "time": time.time(), **details, "sha256": hashes}
            manifest.update(self.meaning or {})
            # Constants such as a mask of -inf: whoever saves has made sure that nothing became so.
            manifest["not_finite"] = {name: names for name, names in constants.items() if names}
            write_synced(temporary / _MANIFEST, seal(manifest))
            sync_folder(temporary)
            self._discard(final)
            os.rename(temporary, final)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(f"{final}: cannot be written: {error}") from error
        return final

    def all(self) -> list[Checkpoint]:
        """Every checkpoint with a readable manifest, oldest version first; others are logged and left out."""
        found = []
        for path in self._folders():
            try:
                found.append(self._open(path))
            except CheckpointError as error:
                log.error("checkpoint %s is left out: %s", path, error)
        return found

    def newest(self, repair: bool = False, fresh: Mapping[str, torch.Tensor] | None = None) -> Checkpoint | None:
        """The newest checkpoint whose files match their hashes and hold finite numbers (see `check`), or None.

        With `repair` those that cannot be used and are newer are set aside by name, else they are only named.
        """
        for path in reversed(self._folders()):
            try:
                checkpoint = self._open(path)
                checkpoint.check(fresh)
            except CheckpointError as error:
                if repair:
                    set_aside(path, _KINDS.get(type(error), "damaged"), str(error))
                else:
                    log.error("%s: %s; an older checkpoint is tried", path, error)
                continue
            return checkpoint
        return None

    def _open(self, path: Path) -> Checkpoint:
        """The checkpoint in a folder. Raises CheckpointError, OtherLearner if it means something else."""
        checkpoint = Checkpoint(path, read_manifest(path))
        difference = differing_meaning(checkpoint.manifest, self.meaning)
        if difference:
            raise OtherLearner(difference)
        return checkpoint

    def _folders(self) -> list[Path]:
        """What bears the name of a version, oldest first; none, logged, if the folder cannot be read."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error("%s cannot be read: %s", self.folder, error.strerror)
            return []
        return [self.folder / name for name in sorted(names, key=_as_version) if is_version(name)]

    def prune(self, keep: int, spare: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """Remove all but the newest `keep` checkpoints and those whose version is in `spare`."""
        for checkpoint in self.all()[: -keep or None]:
            if checkpoint.version not in spare:
                self._discard(checkpoint.folder)
        for left in self.folder.glob(".*"):
            if not left.is_symlink() and left.is_dir() and left.name.rpartition(".")[2] != str(os.getpid()):
                shutil.rmtree(left, ignore_errors=True)

    def _discard(self, folder: Path) -> None:
        """Remove a checkpoint. It loses its name first: one that is half removed must not look whole."""
        doomed = self.folder / f".{folder.name}.old.{os.getpid()}"
        try:
            os.rename(folder, doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)


def is_version(name: str) -> bool:
    """True if a checkpoint's folder may have this name."""
    return name.isascii() and name.isdecimal()


def _as_version(name: str) -> int:
    return int(name[:30]) if is_version(name) else 0


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises CheckpointError saying why it cannot be used."""
    try:
        data = (folder / _MANIFEST).read_bytes()
        manifest = json.loads(data)
        # Those of earlier programs have no seal.
        if isinstance(manifest, dict) and SEAL in manifest:
            manifest = unseal(data)
        if manifest["format"] != FORMAT or int(manifest["version"]) != int(folder.name):
            raise ValueError("another format or version")
        if not 0 <= int(manifest["version"]) <= MAX_VERSION:
            raise ValueError(f"no version above {MAX_VERSION} can be")
        if not isinstance(manifest["sha256"], dict):
            raise TypeError("no hashes")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"its manifest cannot be used ({error})") from error
    return dict(manifest)
