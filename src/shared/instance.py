"""One running instance: creating all of its segments, and attaching to them by name.

`python -m tandem.shared.instance --instance NAME` creates one from the configuration on its standard input, as JSON (a
short-lived process, so that the supervisor never imports torch). The control segment's schema carries the whole
effective configuration: who attaches needs the name only. If the creator dies half way the control segment has no
magic, nobody attaches, and the next `ctl up` sweeps what is left.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from .actions.heads import record_sizes, schema_of
from .application import Application, load_application
from .configuration.config import Config, parse, read_reloaded
from .errors import ApplicationError, CheckpointError, LayoutMismatch, TandemError
from .experiences.earnings import RewardRules
from .experiences.forwarded_rewards import CELL, cell_rows
from .experiences.records import RecordLayout
from .learning import learner_name, meaning_of
from .memory.arrays import create_array
from .memory.control import Control
from .memory.ownership import be_private
from .memory.segments import check_instance, list_segments, segment_path
from .model_checks.check import checked_model
from .model_checks.witness import Witness, witness
from .models.default import DefaultModel, EstimatingModel, check_estimable
from .saved_state import WEIGHTS, SavedState, SavedStateUnusable, find_saved, put_aside, restore
from .weights.checkpoints import MAX_VERSION, CheckpointStore, differing_meaning, load_tensors
from .weights.finite import became_not_finite
from .weights.flat_model import FlatModel
from .weights.layout import WeightsLayout
from .weights.publisher import Publisher
from .weights.slots import Slots, create_slots

_PENDING_BYTES, _LEAST_PENDING = 4 << 20, 1024
"""What a lane's pending table takes where `inference.pending_capacity` is auto, and the entries it has at least."""

NOTE = "note: "
"""Begins each line in which the creating process tells what it set aside or left out."""


def record_layout(application: Application) -> RecordLayout:
    """The record layout of an application."""
    context = application.context_dtype
    return RecordLayout(
        features=len(application.features),
        heads=len(application.heads),
        components=len(application.gate_components),
        context_bytes=0 if context is None else context.itemsize,
        **record_sizes(application.heads),
    )


def configured_application(config: Config) -> Application:
    """The configuration's application, with the model that its learner trains.

    Under `reward_regression` what a model of the user's own gives is taken for expected rewards (ModuleEstimates), and
    under `policy_gradient` an application without one gets a model of logits. Raises what `load_application` raises.
    """
    application = load_application(config.application, config.settings, Path(config.folder))
    return with_model_for(application, learner_name(config.trainer.learner, application.heads))


def with_model_for(application: Application, learner: str) -> Application:
    """The application with a `build_model` that this learner trains. Raises ApplicationError if there can be none."""
    sizes, features = [head.size for head in application.heads], len(application.features)
    own = not isinstance(application.build_model, DefaultModel)
    if learner == "reward_regression" and len(sizes) != 1:
        raise ApplicationError(
            f"application {application.name}: trainer.learner: reward_regression estimates the reward of each choice of"
            f" one action head, and there are {len(sizes)}; choose policy_gradient"
        )
    if learner == "reward_regression" and own:
        check_estimable(application.name, application.heads[0])
        build: Any = EstimatingModel(application.build_model, features, sizes[0])
    elif learner == "policy_gradient" and not own:
        build = DefaultModel.of(features, application.heads, as_logits=True)
    else:
        return application
    return dataclasses.replace(application, build_model=build)


def seeded_model(application: Application, seed: int) -> torch.nn.Module:
    """A model with fresh weights; `seed` -1 draws them from the system."""
    if seed < 0:
        torch.seed()
    else:
        torch.manual_seed(seed)
    return application.build_model()


def create_instance(
    instance: str,
    config: Config,
    fresh: bool = False,
    config_file: str = "",
    other_process: Witness | None = None,
) -> None:
    """Create every segment of an instance; version 0, or the newest saved version, is published at once.

    The experiences that the last stop saved in the data folder come back, unless `fresh`. `config_file` is where the
    configuration was read (empty: nowhere), for a later reload. With `other_process` the model is compared with that of
    another process, too. Saved state that is damaged, or was made for something else, is set aside by name in favour of
    the newest that is good.

    Raises SegmentExists, SegmentSpaceError, ConfigError, ApplicationError (a model that cannot be shared or trained
    among them), or CheckpointError if the newest checkpoint belongs to another model. Whatever was created is removed
    again after an error, and nothing else.
    """
    check_instance(instance)
    application = configured_application(config)
    flat = _checked(application, config, other_process)
    data_dir = (Path(config.data_dir) / instance).absolute()
    saved = load_saved(data_dir, flat, meaning_of(config.trainer, application))
    try:
        state = None if fresh else saved.state
        _create_segments(instance, config, application, flat, saved.version, state, config_file)
    except SavedStateUnusable as error:
        # All was removed again: it may have been filled in part.
        put_aside(error)
        _create_segments(instance, config, application, flat, saved.version, None, config_file)


def _checked(application: Application, config: Config, other_process: Witness | None) -> FlatModel:
    """A model of the application with fresh weights, after the user's own part of it was found to be a model."""
    own = _users_own(application)
    flat = checked_model(own, config.trainer, functools.partial(seeded_model, own), other_process, config.folder)
    return flat if own is application else FlatModel(seeded_model(application, config.trainer.seed))


def _users_own(application: Application) -> Application:
    """The application with the model that the user wrote."""
    build = application.build_model
    return (
        dataclasses.replace(application, build_model=build.build) if isinstance(build, EstimatingModel) else application
    )


def _create_segments(
    instance: str,
    config: Config,
    application: Application,
    flat: FlatModel,
    version: int,
    state: SavedState | None,
    config_file: str,
) -> None:
    records, mode = record_layout(application), int(config.supervisor.mode, 8)
    before = list_segments(instance).get(instance, [])
    control = Control.create(
        instance,
        {
            "slots": config.weights.slots,
            "lanes": config.inference.lanes,
            "capacity": config.trainer.buffer_capacity,
            "record_bytes": records.record.itemsize,
            "pending_capacity": pending_capacity(config, records),
            "pending_bytes": records.pending.itemsize,
            "weights_bytes": len(flat.layout.header()) + flat.layout.data_bytes,
            "weights_offset": len(flat.layout.header()),
            "supervisor.port": config.inference.port,
        },
        _schema(instance, config, application, flat, config_file),
        mode,
    )
    try:
        _create_lanes(control, records, mode)
        create_slots(control, flat.layout, config.weights.slots, mode)
        Publisher(Slots(control, flat.layout)).publish(flat.flat, version)
        if state is not None:
            restore(control, state)
        control.finish()
    except BaseException:
        _remove_new(instance, before)
        raise
    finally:
        control.close()


def pending_capacity(config: Config, records: RecordLayout) -> int:
    """How many decisions of one lane may wait for their reward."""
    asked = config.inference.pending_capacity
    if not isinstance(asked, str):
        return asked
    # An entry, and for each lane the cells in which it may leave something for it.
    each = records.pending.itemsize + cell_rows(config.inference.lanes, 1000) * CELL.itemsize // 1000
    return max(_LEAST_PENDING, _PENDING_BYTES // each)


def _create_lanes(control: Control, records: RecordLayout, mode: int) -> None:
    instance, lanes, pending = control.instance, control.get("lanes"), control.get("pending_capacity")
    for lane in range(lanes):
        create_array(instance, f"ring{lane}", records.record, control.get("capacity"), mode)
        create_array(instance, f"pending{lane}", records.pending, pending, mode)
        create_array(instance, f"mail{lane}", CELL, cell_rows(lanes, pending), mode)


def _schema(
    instance: str, config: Config, application: Application, flat: FlatModel, config_file: str
) -> dict[str, Any]:
    return {
        "application": application.name,
        "features": list(application.features),
        "heads": schema_of(application.heads),
        "gate_components": list(application.gate_components),
        "meaning": meaning_of(config.trainer, application),
        "records": record_layout(application).schema(),
        "tensors": flat.layout.schema(),
        "data_dir": str((Path(config.data_dir) / instance).absolute()),
        "folder": config.folder,
        "config_file": config_file,
        "config": config.to_dict(),
    }


def _remove_new(instance: str, before: list[str]) -> None:
    """Remove what was created here: what was there before may belong to somebody who lives."""
    parts = [part for part in list_segments(instance).get(instance, []) if part not in before and part != "lock"]
    for part in sorted(parts, key=lambda part: part != "control"):
        os.unlink(segment_path(instance, part))


@dataclass(frozen=True)
class Saved:
    """What a data folder has to go on with: the version whose weights were loaded (0: none), and the saved state."""

    version: int
    state: SavedState | None


def load_newest(data_dir: Path, flat: FlatModel, meaning: dict[str, str]) -> int:
    """Load the newest good weights that were saved in an instance's folder, a checkpoint's or those of the last stop.

    Returns their version, 0 if there are none. Changes nothing in the folder. Raises CheckpointError if they belong to
    another model.
    """
    return load_saved(data_dir, flat, meaning, repair=False).version


def load_saved(data_dir: Path, flat: FlatModel, meaning: dict[str, str], repair: bool = True) -> Saved:
    """Load the newest good weights into the model and find what the last stop saved.

    What is damaged, of another `meaning` (see `shared.learning.meaning_of`) or (with no checkpoint that fits) of
    another model is named, and with `repair` set aside. Raises CheckpointError if the newest good checkpoint belongs to
    another model.
    """
    store = CheckpointStore(data_dir / "checkpoints", meaning)
    checkpoint = store.newest(repair, flat.state())
    state = find_saved(data_dir / "kept", repair)
    unusable = None
    if state is not None and state.version > (0 if checkpoint is None else checkpoint.version):
        try:
            _load_state(state, flat, meaning)
            return Saved(state.version, state)
        except SavedStateUnusable as error:
            unusable = error
    if checkpoint is not None:
        try:
            checkpoint.load_model(flat)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; move the folder {data_dir} away to start afresh") from error
    if unusable is not None:
        put_aside(unusable, repair)
        state = None
    return Saved(0 if checkpoint is None else checkpoint.version, state)


def _load_state(state: SavedState, flat: FlatModel, meaning: dict[str, str]) -> None:
    """Copy the saved weights into a model. Raises SavedStateUnusable; nothing is half-loaded."""
    difference = differing_meaning(state.state["fingerprint"].get("meaning") or {}, meaning)
    if difference:
        raise SavedStateUnusable(state.folder, "other", difference)
    if state.version > MAX_VERSION:
        raise SavedStateUnusable(state.folder, "damaged", f"no version above {MAX_VERSION} can be")
    try:
        tensors = load_safetensors(state.read(WEIGHTS))
    except SafetensorError as error:
        raise SavedStateUnusable(state.folder, "damaged", f"{WEIGHTS}: {error}") from error
    spoilt = became_not_finite(tensors, flat.state())
    if spoilt is not None:
        raise SavedStateUnusable(state.folder, "not-finite", f"{WEIGHTS}: {spoilt} has a value that is not finite")
    try:
        load_tensors(flat, tensors, Path(WEIGHTS))
    except CheckpointError as error:
        raise SavedStateUnusable(state.folder, "other", str(error)) from error


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
        self.application = configured_application(self.config)
        self.records = record_layout(self.application)
        self._check(schema)

    def _check(self, schema: dict[str, Any]) -> None:
        for what, theirs, ours in (
            ("features", schema["features"], list(self.application.features)),
            ("action heads", schema["heads"], schema_of(self.application.heads)),
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

    def reward_rules(self) -> RewardRules:
        """What decisions earn by the settings in force; if the reloaded file is damaged, by those of the creation."""
        try:
            config = self.config_in_force()
        except (OSError, ValueError, TandemError):
            config = self.config
        return RewardRules.of(config.inference)

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
        return CheckpointStore(self.data_dir / "checkpoints", meaning_of(self.config.trainer, self.application))


def _fresh_model(config: Config) -> torch.nn.Module:
    return _users_own(configured_application(config)).build_model()


def main(arguments: list[str] | None = None) -> int:
    """Create an instance from the command line: 0, or 1 with one message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tandem.shared.instance", description="Create an instance.")
    parser.add_argument("--instance", default="default")
    parser.add_argument("--folder", default=".", help="where the configuration's relative paths start")
    parser.add_argument("--fresh", action="store_true", help="start with empty rings")
    parser.add_argument("--config-file", default="", help="where the configuration was read, for a later reload")
    options = parser.parse_args(arguments)
    # Small tensors are computed faster by one thread, and the machine may be busy.
    torch.set_num_threads(1)
    notes = logging.StreamHandler(sys.stdout)
    notes.setLevel(logging.WARNING)
    notes.setFormatter(logging.Formatter(NOTE + "%(message)s"))
    logging.getLogger().addHandler(notes)
    try:
        config = parse(json.load(sys.stdin), "the configuration on standard input", options.folder)
        be_private(config.supervisor.mode)
        with witness(functools.partial(_fresh_model, config)) as other_process:
            create_instance(options.instance, config, options.fresh, options.config_file, other_process)
    except (TandemError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
