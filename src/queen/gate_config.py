"""The parameters of the simulation gate: defaults, checks, and the file that may change while the server runs."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ..shared.configuration.yaml_file import plain_loader
from ..shared.errors import ConfigError

log = logging.getLogger(__name__)

DISRUPTION_MODES = ("counts", "decay")
OBSOLETE = {
    "energy_spawn_cost": "use energy_parasite_cost",
    "combat_spawn_cost": "use combat_parasite_cost",
    "exploration_decay_time": "use exploration_max_time",
    "confidence_threshold": "the gate is never overridden by confidence",
}
"""Keys that older files carry and nobody reads, and what to do instead."""

_POSITIVE = (
    "safe_range", "threat_decay", "energy_pursuit_range", "combat_pursuit_range", "protector_attack_range",
    "flee_range", "ignore_range", "disruption_decay", "energy_parasite_cost", "combat_parasite_cost",
    "exploration_max_time", "exploration_half_life", "hot_reload_interval",
)  # fmt: skip
_NOT_NEGATIVE = (
    "kill_range", "survival_weight", "disruption_weight", "location_weight", "exploration_coefficient",
    "exploration_min",
)  # fmt: skip
_SHARES = ("hive_proximity_weight", "worker_proximity_weight")
_WEIGHTS = ("survival_weight", "disruption_weight", "location_weight")
_MAX_AXIS = 1024

# libyaml's loader is about ten times faster, which matters because a reload happens between two decisions.
_Loader: Any = plain_loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


# Many attributes: one for each key of the file.
@dataclass(frozen=True)
class GateConfig:
    """Every parameter of the gate. Distances are in chunks, costs in queen energy, times in seconds."""

    kill_range: float = 2.0
    safe_range: float = 8.0
    threat_decay: float = 0.5
    energy_pursuit_range: float = 6.0
    combat_pursuit_range: float = 7.5
    protector_attack_range: float = 1.2
    disruption_mode: str = "counts"
    flee_range: float = 3.0
    ignore_range: float = 10.0
    disruption_decay: float = 0.3
    hive_proximity_weight: float = 0.3
    worker_proximity_weight: float = 0.4
    energy_parasite_cost: float = 15.0
    combat_parasite_cost: float = 25.0
    survival_weight: float = 0.4
    disruption_weight: float = 0.5
    location_weight: float = 0.1
    reward_threshold: float = 0.6
    exploration_coefficient: float = 0.2
    exploration_max_time: float = 300.0
    exploration_min: float = 0.02
    exploration_half_life: float = 5000.0
    chunks_per_axis: int = 20
    gate_enabled: bool = True
    hot_reload_interval: float = 5.0

    @property
    def current(self) -> GateConfig:
        """Itself: a configuration can stand where a file that may change is expected."""
        return self

    @property
    def chunks(self) -> int:
        """The number of chunks, `chunks_per_axis` squared."""
        return self.chunks_per_axis * self.chunks_per_axis

    @property
    def max_chunk_distance(self) -> float:
        """The distance between two opposite corners, in chunks."""
        return math.sqrt(2.0) * (self.chunks_per_axis - 1)

    def cost(self, spawn_type: int) -> float:
        """The queen energy that a parasite of this type (0 energy, 1 combat) costs."""
        return self.combat_parasite_cost if spawn_type else self.energy_parasite_cost


_NAMES = tuple(field.name for field in fields(GateConfig))


def read_gate_config(data: Any, source: str) -> GateConfig:
    """The configuration that the mapping `data` describes; `source` names it in messages.

    Unknown and obsolete keys are logged as warnings and ignored. Raises ConfigError listing every problem.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(source, ["must hold flat keys such as 'kill_range: 2.0'" if data is not None else "is empty"])
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in OBSOLETE:
            log.warning("%s: %s has no effect: %s", source, key, OBSOLETE[key])
        elif key not in _NAMES:
            near = get_close_matches(str(key), _NAMES, 1)
            log.warning("%s: unknown key %r is ignored%s", source, key, f"; did you mean {near[0]}?" if near else "")
        else:
            problem, checked = _typed(key, value)
            if problem:
                problems.append(problem)
            else:
                values[key] = checked
    config = replace(GateConfig(), **values)
    problems += _out_of_range(config, values)
    if problems:
        raise ConfigError(source, problems)
    return config


def load_gate_config(path: Path) -> GateConfig:
    """Read the YAML file at `path`. Raises ConfigError if it is missing, unreadable, empty, not YAML or invalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # Without the path, which the message begins with: `/health` shows the rest to whoever may ask.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(str(path), [f"cannot be read: {reason}"]) from error
    try:
        data = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(str(path), [f"is not YAML: {' '.join(str(error).split())}"]) from error
    return read_gate_config(data, str(path))


def _typed(key: str, value: Any) -> tuple[str, Any]:
    if key == "gate_enabled":
        return ("", value) if isinstance(value, bool) else (f"{key}: {value!r} is not true or false", None)
    if key == "disruption_mode":
        if value in DISRUPTION_MODES:
            return "", value
        return f"{key}: {value!r} is not one of {', '.join(DISRUPTION_MODES)}", None
    if key == "chunks_per_axis":
        if type(value) is not int:
            return f"{key}: {value!r} is not an integer", None
        if not 1 <= value <= _MAX_AXIS:
            return f"{key}: {value!r} is not in 1..{_MAX_AXIS}", None
        return "", value
    if type(value) is int:
        try:
            return "", float(value)
        except OverflowError:
            return f"{key}: {value!r} is too large", None
    if type(value) is not float or not math.isfinite(value):
        return f"{key}: {value!r} is not a finite number", None
    return "", value


def _out_of_range(config: GateConfig, given: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in given:
        value = given[key]
        if key in _POSITIVE and value <= 0:
            problems.append(f"{key}: {value!r} must be above 0")
        elif key in _NOT_NEGATIVE and value < 0:
            problems.append(f"{key}: {value!r} is below 0")
        elif key in _SHARES and not 0 <= value <= 1:
            problems.append(f"{key}: {value!r} is not in 0..1")
    if config.safe_range <= config.kill_range:
        problems.append(f"safe_range: {config.safe_range!r} must be above kill_range ({config.kill_range!r})")
    if config.ignore_range <= config.flee_range:
        problems.append(f"ignore_range: {config.ignore_range!r} must be above flee_range ({config.flee_range!r})")
    total = sum(getattr(config, key) for key in _WEIGHTS)
    if abs(total - 1.0) > 0.01 + 1e-9:
        problems.append(f"{' + '.join(_WEIGHTS)}: {total:g} must be 1 (within 0.01)")
    return problems


def _in_one_line(error: ConfigError) -> str:
    # The name without its folder: `/health` shows it to whoever may reach the server.
    return f"{Path(error.source).name}: {'; '.join(error.problems)}"


class GateConfigFile:
    """The configuration in force, read from a file that is looked at again every `hot_reload_interval`.

    `current` is replaced by one assignment: a decision that took it once uses one configuration throughout. `problem`
    says why the file as it is now is not in force; it is empty if it is.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self.current = GateConfig()
        self.problem = ""
        if path is not None:
            self._seen = self._stamp()
            try:
                self.current = load_gate_config(path)
            except ConfigError as error:
                log.error("gate configuration refused, every default is used: %s", error)
                self.problem = f"the gate's configuration was refused, every default is used: {_in_one_line(error)}"
        self._next_look = clock() + self.current.hot_reload_interval

    def poll(self) -> None:
        """Look at the file if it is time to; take over a valid change, keep the last good one otherwise.

        Called before each decision; costs a clock read unless it is time to look.
        """
        now = self._clock()
        if now < self._next_look or self._path is None:
            return
        self._next_look = now + self.current.hot_reload_interval
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            config = load_gate_config(self._path)
        except ConfigError as error:
            log.error("changed gate configuration refused, the last good one stays: %s", error)
            self.problem = (
                f"the gate's changed configuration was refused, the last good one stays: {_in_one_line(error)}"
            )
            return
        self.problem = ""
        if config.chunks_per_axis != self.current.chunks_per_axis:
            log.warning(
                "%s: chunks_per_axis cannot change from %d to %d without a restart",
                self._path,
                self.current.chunks_per_axis,
                config.chunks_per_axis,
            )
            config = replace(config, chunks_per_axis=self.current.chunks_per_axis)
        self.current = config
        self._next_look = now + config.hot_reload_interval
        log.info("%s: changed gate configuration taken over", self._path)

    def _stamp(self) -> tuple[int, int, int] | None:
        assert self._path is not None
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
