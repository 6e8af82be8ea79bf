"""Where an instance comes from: one that lives on is adopted, another is created from what the data folder has."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from ..shared.configuration.config import parse
from ..shared.errors import LayoutMismatch
from ..shared.memory.control import Control
from ..shared.memory.ownership import OWN
from ..shared.memory.users import living, users
from . import cleanup, creation
from .creation import StartFailed, Wanted
from .display import status

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Opened:
    """An instance's control segment, its settings as they are in force, and where both come from.

    `found` says what there was to go on with, `notes` what was set aside or left out of it, a line each.
    """

    control: Control
    wanted: Wanted
    folder: Path
    adopted: bool
    found: str
    notes: tuple[str, ...] = ()


def adopt(wanted: Wanted) -> Opened | None:
    """An instance that goes on: some of its processes live, or all died of a crash.

    After a crash of everything it is taken up again only with the settings it had; else None.
    """
    try:
        control = status.open_control(wanted.instance, writable=True, whose=OWN)
        if control is None:
            return None
        Control.attach(wanted.instance, writable=False).close()  # compares the whole header with the schema
        schema = control.schema
    except LayoutMismatch as error:
        log.warning("%s", error)
        return None
    pids = living(control)
    running = parse(schema["config"], f"instance {wanted.instance!r}", schema["folder"])
    is_same = creation.same_settings(running, wanted.config)
    if not pids and not is_same:
        control.close()
        return None
    if not is_same:
        log.warning("the living processes keep the settings that they were started with (`ctl down` ends them)")
    if pids:
        log.info("instance %r lives on without a supervisor: adopting it", wanted.instance)
    else:
        log.info("instance %r was left in shared memory by a crash: taking it up again", wanted.instance)
        running = creation.with_free_port(running)
    found = f"version {control.get('version')} from shared memory"
    settings = dataclasses.replace(wanted, config=running, config_file=schema.get("config_file", ""))
    return Opened(control, settings, Path(schema["data_dir"]), True, found)


def create(wanted: Wanted, folder: Path, wait: Callable[[int], bool]) -> Opened:
    """A new instance. `wait(pidfd)` waits a while for the end of a process and says whether to give up.

    Raises StartFailed with the message of whoever could not create it.
    """
    held = users(wanted.instance)
    if held:
        raise StartFailed(
            f"instance {wanted.instance!r} cannot be created anew: {', '.join(held)} of it are still in use"
            " by a process that has no supervisor; stop that process first"
        )
    try:
        for line in cleanup.clean_up(wanted.instance):
            log.info("left by a crash: %s", line)
    except cleanup.NotSaved as error:
        raise StartFailed(str(error)) from None
    wanted = dataclasses.replace(wanted, config=creation.with_free_port(wanted.config))
    is_new = creation.is_new(folder)
    try:
        notes = creation.create(wanted, creation.environment(wanted.instance), wait)
    except StartFailed:
        # What a killed creator left; whoever made an instance of this name meanwhile is spared.
        with contextlib.suppress(cleanup.NotSaved):
            cleanup.clean_up(wanted.instance, save=False)
        raise
    for line in notes:
        log.warning("%s", line)
    control = Control.attach(wanted.instance)
    version = control.get("version")
    rings = "; the rings start empty" if wanted.fresh else ""
    found = "new" if is_new else f"version {version} saved{rings}" if version else "no version saved"
    return Opened(control, wanted, folder, False, found, tuple(notes))
