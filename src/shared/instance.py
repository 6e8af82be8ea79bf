"""One running instance: creating all of its segments, and attaching to them by name.

`python -m tandem.shared.instance --instance NAME` creates one from the configuration on its standard input, as JSON (a
short-lived process, so that the supervisor never imports torch). The control segment's schema carries the whole
effective configuration: who attaches needs the name only. If the creator dies half way the control segment has no
magic, nobody attaches, and the next `ctl up` sweeps what is left.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .application import Application, check_forward, load_application
from .arrays import create_array
from .checkpoints import CheckpointStore, load_tensors
from .config import Config, parse, read_reloaded
from .control import Control
from .errors import CheckpointError, LayoutMismatch, TandemError
from .keep import kept_version, restore
from .mail import LETTER, outbox_rows
from .records import RecordLayout
from .segments import check_instance, remove_instance, segment_path
from .weights import FlatModel, Publisher, Slots, WeightsLayout, create_slots


def record_layout(application: Application) -> RecordLayout:
    """The record layout of an application."""
    context = application.context_dtype
    return RecordLayout(
        features=len(application.features),
        heads=len(application.heads),
        components=len(application.gate_components),
        context_bytes=0 if context is None else context.itemsize,
    )


def seeded_model(application: Application, seed: int) -> torch.nn.Module:
    """A model with fresh weights; `seed` -1 draws them from the system."""
    if seed < 0:
        torch.seed()
    else:
        torch.manual_seed(seed)
    return application.build_model()


def create_instance(instance: str, config: Config, fresh: bool = False) -> None:
    """Create every segment of an instance; version 0, or the newest kept version, is published at once.

    The experiences that the last stop kept in the data folder come back, unless `fresh`.

    Raises SegmentExists, SegmentSpaceError, ApplicationError, ConfigError, or ModelMismatch if the newest checkpoint
    belongs to another model. Whatever was created is removed again after an error.
    """
    check_instance(instance)
    application = load_application(config.application, config.settings, Path(config.folder))
    records = record_layout(application)
    flat = FlatModel(seeded_model(application, config.trainer.seed))
    check_forward(flat.model, application)
    data_dir = (Path(config.data_dir) / instance).absolute()
    kept = data_dir / "kept"
    version = load_newest(data_dir, flat)
    mode = int(config.supervisor.mode, 8)
    control = Control.create(
        instance,
        {
            "slots": config.weights.slots,
            "lanes": config.inference.lanes,
            "capacity": config.trainer.buffer_capacity,
            "record_bytes": records.record.itemsize,
            "pending_capacity": config.inference.pending_capacity,
            "pending_bytes": records.pending.itemsize,
            "weights_bytes": len(flat.layout.header()) + flat.layout.data_bytes,
            "weights_offset": len(flat.layout.header()),
            "supervisor.port": config.inference.port,
        },
        {
            "application": application.name,
            "features": list(application.features),
            "heads": [[head.name, head.size, list(head.labels)] for head in application.heads],
            "gate_components": list(application.gate_components),
            "records": records.schema(),
            "tensors": flat.layout.schema(),
            "data_dir": str(data_dir),
            "folder": config.folder,
            "config": config.to_dict(),
        },
        mode,
    )
    letters = outbox_rows(config.inference.lanes, config.inference.pending_capacity)
    try:
        for lane in range(config.inference.lanes):
            create_array(instance, f"ring{lane}", records.record, config.trainer.buffer_capacity, mode)
            create_array(instance, f"pending{lane}", records.pending, config.inference.pending_capacity, mode)
            create_array(instance, f"mail{lane}", LETTER, letters, mode)
        create_slots(control, flat.layout, config.weights.slots, mode)
        Publisher(Slots(control, flat.layout)).publish(flat.flat, version)
        if not fresh:
            restore(control, kept)
        control.finish()
    except BaseException:
        remove_instance(instance)
        raise
    finally:
        control.close()


def load_newest(data_dir: Path, flat: FlatModel) -> int:
    """Load the newest weights that were saved in an instance's folder, a checkpoint's or those of the last stop.

    Returns their version, 0 if there are none. Raises CheckpointError if they belong to another model.
    """
    store, kept = CheckpointStore(data_dir / "checkpoints"), data_dir / "kept"
    checkpoint = store.newest()
    version = kept_version(kept)
    try:
        if checkpoint is not None and checkpoint.version >= version:
            checkpoint.load_model(flat)
            return checkpoint.version
        if version > 0:
            load_tensors(flat, load_file(kept / "weights.safetensors"), kept)
            return version
    except (CheckpointError, SafetensorError) as error:
        raise CheckpointError(f"{error}; move the folder {store.folder.parent} away to start afresh") from error
    return 0


class Instance:
    """An attached instance: its control segment, configuration, application and layouts.

    Raises SegmentMissing, SegmentInvalid, LayoutMismatch or ApplicationError.
    """

    def __init__(self, name: str = "default", timeout: float = 0.0) -> None:
        self.name = name
        self.control = Control.attach(name, timeout=timeout)
        schema = self.control.schema
        self.config = parse(schema["config"], f"instance {name!r}", schema["folder"])
        self.data_dir = Path(schema["data_dir"])
        self.application = load_application(self.config.application, self.config.settings, Path(schema["folder"]))
        self.records = record_layout(self.application)
        self._check(schema)

    def _check(self, schema: dict[str, Any]) -> None:
        heads = [[head.name, head.size, list(head.labels)] for head in self.application.heads]
        for what, theirs, ours in (
            ("features", schema["features"], list(self.application.features)),
            ("action heads", schema["heads"], heads),
            ("gate components", schema["gate_components"], list(self.application.gate_components)),
            ("record layout", schema["records"], self.records.schema()),
        ):
            if theirs != ours:
                path = segment_path(self.name, "control")
                raise LayoutMismatch(path, f"was created for other {what}: {theirs}, this program has {ours}")

    def config_in_force(self) -> Config:
        """The configuration with what was reloaded since the instance was created.

        Raises OSError, ValueError or ConfigError if the reloaded file is damaged.
        """
        if not self.control.get("trainer.config_revision"):
            return self.config
        return read_reloaded(self.data_dir, self.config.folder)

    def build_model(self) -> FlatModel:
        """A model of the application in a flat buffer, with initial weights of no importance."""
        return FlatModel(seeded_model(self.application, self.config.trainer.seed))

    def open_slots(self, weights: WeightsLayout) -> Slots:
        """The weights slots. Raises ModelMismatch naming the first tensor that differs from the instance's."""
        theirs = [(name, dtype, tuple(shape)) for name, dtype, shape in self.control.schema["tensors"]]
        ours = [(spec.name, spec.dtype, spec.shape) for spec in weights.specs]
        if theirs != ours:
            pairs = [*zip(theirs, ours, strict=False), *zip(theirs[len(ours) :], [None] * len(theirs), strict=False)]
            first = next((pair for pair in pairs if pair[0] != pair[1]), (None, ours[-1]))
            raise LayoutMismatch(
                segment_path(self.name, "weights0"), f"holds the tensor {first[0]} where this model has {first[1]}"
            )
        return Slots(self.control, weights)

    def checkpoints(self) -> CheckpointStore:
        """The instance's checkpoints on disk."""
        return CheckpointStore(self.data_dir / "checkpoints")


def main(arguments: list[str] | None = None) -> int:
    """Create an instance from the command line: 0, or 1 with one message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tandem.shared.instance", description="Create an instance.")
    parser.add_argument("--instance", default="default")
    parser.add_argument("--folder", default=".", help="where the configuration's relative paths start")
    parser.add_argument("--fresh", action="store_true", help="start with empty rings")
    options = parser.parse_args(arguments)
    try:
        config = parse(json.load(sys.stdin), "the configuration on standard input", options.folder)
        create_instance(options.instance, config, options.fresh)
    except (TandemError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
