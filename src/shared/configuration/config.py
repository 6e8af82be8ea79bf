"""The configuration of an instance: every setting, its default and its bounds.

`load(path)` is strict: one ConfigError lists every problem. `load(path, strict=False)` logs each problem as an
error and takes the default in its place. A missing file or key always means the default.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import value_checks
from .settings import keys, read, section, setting

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
"""In the instance's data folder: the whole configuration as plain data, written anew before a reload."""

PLAN_KEYS = (
    "training_interval",
    "batch_size",
    "min_batch_size",
    "buffer_capacity",
    "lock_timeout",
    "simulation_reward_weight",
    "actual_reward_weight",
    "train_on_wait",
    "wait_reward_multiplier",
    "enabled",
)
"""Settings of the section `trainer` that may also stand at the top of the file, as in a flat file."""


# Many attributes: one for each key of the section.
@dataclass(frozen=True)
class ContinuousTrainingConfig:
    """The section `trainer`: how and when the trainer process learns."""

    training_interval: float = setting(1.0, "seconds between training steps", above=0, reloadable=True)
    batch_size: int = setting(32, "experiences in a training step", at_least=1, reloadable=True)
    min_batch_size: int = setting(8, "with fewer experiences a step is skipped", at_least=1, reloadable=True)
    buffer_capacity: int = setting(10_000, "completed experiences that each lane's ring holds", at_least=1)
    lock_timeout: float = setting(5.0, "seconds a caller that may wait waits for a process-local lock", above=0)
    simulation_reward_weight: float = setting(
        0.3, "weight of the expected reward; without a gate there is none, and the actual reward counts in full",
        at_least=0, at_most=1, reloadable=True,
    )  # fmt: skip
    actual_reward_weight: float = setting(0.7, "weight of the actual reward", at_least=0, at_most=1, reloadable=True)
    train_on_wait: bool = setting(True, "learn from decisions that the gate blocked", reloadable=True)
    wait_reward_multiplier: float = setting(
        0.5, "discount of a blocked decision", at_least=0, at_most=1, reloadable=True
    )
    enabled: bool = setting(True, "false: no trainer process; the server trains one experience per observation")
    steps_per_interval: int | str = setting(
        "auto", "gradient steps at each tick; auto: as many as update_to_data asks for, at least one",
        at_least=1, words=("auto",), reloadable=True,
    )  # fmt: skip
    update_to_data: float = setting(
        32.0, "samples trained on for each new experience, where steps_per_interval is auto", at_least=0,
        reloadable=True,
    )  # fmt: skip
    early_interval: float = setting(
        0.05, "seconds between two ticks, at least, when many new experiences wait, where steps_per_interval is auto",
        above=0, reloadable=True,
    )  # fmt: skip
    tick_budget: float = setting(
        0.5, "share of training_interval that the steps of a tick may take, where steps_per_interval is auto; then"
        " batches grow, then experiences are trained on less often", above=0, at_most=1, reloadable=True,
    )  # fmt: skip
    train_when_idle: bool | str = setting(
        "auto", "go on while nothing is new; auto: under policy_gradient, not under reward_regression, where"
        " steps_per_interval is auto", words=("auto",), reloadable=True,
    )  # fmt: skip
    learner: str = setting(
        "auto", "auto (reward_regression for one head, else policy_gradient), one of these, or your own as"
        " module:attribute", check=value_checks.learner,
    )  # fmt: skip
    learning_rate: float = setting(0.003, "of the Adam optimiser", above=0, reloadable=True)
    entropy_weight: float = setting(0.001, "strength of the pull towards exploration", at_least=0, reloadable=True)
    entropy_floor: float = setting(
        0.3, "below this entropy (nats) the pull grows, so that the policy cannot collapse; 0: it does not",
        at_least=0, reloadable=True,
    )  # fmt: skip
    gradient_clip: float = setting(1.0, "largest gradient norm", above=0, reloadable=True)
    importance_clip: float = setting(2.0, "largest importance weight of an old decision", at_least=1, reloadable=True)
    sampling: str = setting(
        "auto", "which experiences a step sees; auto: half_recent (half of them from the newest quarter) under"
        " reward_regression, else uniform",
        choices=("auto", "uniform", "half_recent", "recency", "stratified", "prioritized"),
    )  # fmt: skip
    sample_with_repetition: bool = setting(False, "uniform: one experience may stand in a batch more than once")
    recency_half_life: float = setting(100.0, "recency: the age at which a weight has halved", above=0)
    recency_unit: str = setting("versions", "recency: what age is counted in", choices=("versions", "seconds"))
    stratified_wait_share: float = setting(
        0.5, "stratified: share of blocked decisions in a batch", at_least=0, at_most=1
    )
    prioritized_exponent: float = setting(
        0.6, "prioritized: 0 is uniform, 1 in proportion to the last loss", at_least=0
    )
    max_policy_lag: int = setting(0, "train only on decisions at most this many versions old; 0: no bound", at_least=0)
    device: str = setting("auto", "where to train", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "threads of a training step; 0: chosen for the machine", at_least=0)
    nice: int = setting(5, "how much the trainer yields the processor to the server", at_least=0, at_most=19)
    seed: int = setting(-1, "of sampling and initial weights; -1: from the system", at_least=-1)
    deterministic: bool = setting(False, "bit-identical weights from the same log and seed")
    checkpoint_interval: float = setting(30.0, "seconds between checkpoints", above=0, reloadable=True)
    checkpoints_kept: int = setting(5, "newest checkpoints that stay on disk", at_least=1, reloadable=True)
    best_checkpoints_kept: int = setting(
        3, "checkpoints that stay besides, for the reward that their decisions earned", at_least=0, reloadable=True
    )
    guard_max_jump: float = setting(
        0.5, "a step that moves the weights by more than this share of their norm is refused; 0: no bound",
        at_least=0, reloadable=True,
    )  # fmt: skip
    guard_min_entropy: float = setting(
        0.05, "a step that takes the policy's entropy (nats) below this and to less than half is refused",
        at_least=0, reloadable=True,
    )  # fmt: skip
    live_guard: bool = setting(
        True, "roll back when decisions earn clearly less than those of the best saved version", reloadable=True
    )
    live_guard_window: int = setting(
        200, "newest decisions that the reward guard compares", at_least=20, reloadable=True
    )
    live_guard_sigmas: float = setting(4.0, "standard errors by which they must be worse", above=0, reloadable=True)
    reserve_core: bool = setting(
        True, "with two or more processor cores, train beside the first and leave it to the server"
    )
    max_failures: int = setting(10, "failed steps in a row that end the trainer", at_least=1, reloadable=True)

    def check(self) -> list[str]:
        """Problems that concern several settings."""
        problems = []
        if self.min_batch_size > self.batch_size:
            problems.append(f"min_batch_size: {self.min_batch_size} is above batch_size ({self.batch_size})")
        if self.min_batch_size > self.buffer_capacity:
            problems.append(f"min_batch_size: {self.min_batch_size} is above buffer_capacity ({self.buffer_capacity})")
        total = self.simulation_reward_weight + self.actual_reward_weight
        if abs(total - 1.0) > 0.01:
            problems.append(
                f"simulation_reward_weight: {self.simulation_reward_weight:g} and actual_reward_weight"
                f" {self.actual_reward_weight:g} add up to {total:g} (allowed: 1, give or take 0.01)"
            )
        return problems

    def to_dict(self) -> dict[str, Any]:
        """Plain data for replies and manifests."""
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, path: Path | str, strict: bool = False) -> ContinuousTrainingConfig:
        """The section `trainer` of a configuration file. Missing, unreadable or invalid: all defaults, logged.

        With `strict` a problem raises ConfigError instead.
        """
        try:
            return load(path).trainer
        except ConfigError as error:
            if strict:
                raise
            log.error("%s; every setting takes its default", error)
            return cls()


# Many attributes: one for each key of the section.
@dataclass(frozen=True)
class InferenceConfig:
    """The section `inference`: the process that decides."""

    command: str = setting(
        "", "your own server's command line; empty: the bundled server; none: servers attach",
        check=value_checks.command,
    )  # fmt: skip
    host: str = setting("127.0.0.1", "address the bundled server binds to", check=value_checks.host)
    port: int = setting(8010, "port of the bundled server", at_least=0, at_most=65535)
    workers: int = setting(
        1,
        "processes of the bundled server, on one address and port; each has a lane",
        at_least=1,
        at_most=value_checks.MOST_LANES,
    )
    lanes: int = setting(
        4, "writer lanes: how many server processes may record at once; more workers than 4 bring as many with them",
        at_least=1, at_most=value_checks.MOST_LANES,
    )  # fmt: skip
    temperature: float = setting(1.0, "above 1 the policy explores more, below 1 less", above=0, reloadable=True)
    exploration_floor: float = setting(
        0.0, "share of decisions drawn evenly from all allowed choices", at_least=0, at_most=1, reloadable=True
    )
    gate_leak_probability: float = setting(
        0.0, "share of blocked actions let through all the same, to evaluate the gate", at_least=0, at_most=1
    )
    seed: int = setting(-1, "of the actions drawn; -1: from the system", at_least=-1)
    default_reward: float | str = setting(
        "none", "what a decision earns when no reward came within pending_timeout, as 0 where only successes are"
        " reported; none: it is dropped, and not learned from", words=("none",), at_least=-3.4e38,
        at_most=3.4e38, reloadable=True,
    )  # fmt: skip
    reward_aggregation: str = setting(
        "sum", "what a decision earns that is rewarded more than once (final=False)",
        choices=("sum", "last", "first"), reloadable=True,
    )  # fmt: skip
    pending_capacity: int | str = setting(
        "auto", "decisions of one lane that may wait for their reward; auto: what fits into 4 MiB, 1024 at least",
        at_least=1, words=("auto",),
    )  # fmt: skip
    pending_timeout: float = setting(
        150.0, "seconds that a decision waits for its reward: then it earns default_reward, or is dropped", above=0,
        reloadable=True,
    )  # fmt: skip
    max_keys: int = setting(4096, "keys remembered; the least recently used go first", at_least=1)
    attach_timeout: float = setting(30.0, "seconds a server waits for the instance to appear", at_least=0)
    static_fallback: bool = setting(
        False, "without an instance, an embedding server decides from the newest checkpoint and records nothing"
    )
    max_batch: int = setting(32, "observations that are decided in one forward pass", at_least=1, at_most=1024)
    max_connections: int = setting(2048, "WebSocket connections of one server process", at_least=1)
    max_frame_bytes: int = setting(1_048_576, "largest frame or request body", at_least=1024)
    max_frame_rate: float = setting(5000.0, "frames a second that one connection may send for long", above=0)
    allowed_origins: list[str] = setting(
        ["http://localhost:3010", "http://localhost:8080"], "origins that browsers may call from"
    )
    allowed_hosts: list[str] = setting(
        [], "host names that requests may address the server by; empty: any. /health always answers"
    )

    def check(self) -> list[str]:
        """Problems that concern several settings."""
        return value_checks.workers(self.workers, self.command, self.lanes)


@dataclass(frozen=True)
class WeightsConfig:
    """The section `weights`: how versions are handed over."""

    slots: int = setting(4, "versions that shared memory holds", at_least=2, at_most=16)
    in_place_bytes: int = setting(16_000_000, "models of at least this size are read in place, not copied", at_least=0)


@dataclass(frozen=True)
class SupervisorConfig:
    """The section `supervisor`: how `ctl` starts, watches and stops the processes."""

    start_timeout: float = setting(60.0, "seconds until a started process must be ready", above=0)
    hang_timeout: float = setting(10.0, "seconds without progress after which a process is replaced", above=0)
    stop_grace: float = setting(5.0, "seconds between asking a process to stop and killing it", above=0)
    backoff_first: float = setting(0.2, "seconds before the second restart in a row; doubles", above=0)
    backoff_limit: float = setting(10.0, "longest wait between restarts, seconds", above=0)
    max_restarts: int = setting(6, "restarts in a row that end in the state fatal", at_least=1)
    memory_limit: int = setting(
        0, "megabytes of memory of its own above which a process is replaced; 0: no limit", at_least=0
    )
    log_max_bytes: int = setting(10_000_000, "size at which a log file is rotated", at_least=4096)
    log_files: int = setting(3, "rotated log files that stay", at_least=1)
    mode: str = setting(
        "0600", "of the segments: 0640 the group looks, 0644 everybody does, 0660 the group operates; files follow",
        choices=("0600", "0640", "0644", "0660"),
    )  # fmt: skip


@dataclass(frozen=True)
class LoggingConfig:
    """The section `logging`."""

    level: str = setting("info", "least severe level written", choices=("debug", "info", "warning", "error"))
    format: str = setting("text", "one line per event, as text or JSON", choices=("text", "json"))
    decisions_every: int = setting(
        0, "one in so many decisions is logged; 0: none. At level debug each one is", at_least=0
    )


@dataclass(frozen=True)
class MetricsConfig:
    """The section `metrics`: what is written besides shared memory."""

    tensorboard: bool = setting(False, "the trainer writes TensorBoard event files to data_dir/INSTANCE/tensorboard")


@dataclass(frozen=True)
class DecisionLogConfig:
    """The section `decision_log`: every completed decision on disk."""

    enabled: bool = setting(False, "the trainer process writes every completed decision to disk")
    folder: str = setting("", "where; empty: data_dir/INSTANCE/decisions")
    keys: str = setting(
        "plain", "keys as they are, hashed with a salt of the log's own, or none", choices=("plain", "hashed", "none")
    )
    segment_bytes: int = setting(64_000_000, "size at which a segment is completed", at_least=4096)
    max_bytes: int = setting(2_000_000_000, "size of all segments above which the oldest go", at_least=4096)
    max_age_days: float = setting(30.0, "age at which a segment goes", above=0)


@dataclass(frozen=True)
class Config:
    """Everything that one instance needs to know."""

    application: str = setting("tandem.queen", "module of the application", check=value_checks.module)
    settings: dict[str, Any] = setting({}, "the application's own settings")
    data_dir: str = setting("data", "folder of checkpoints, logs and saved state", check=value_checks.folder)
    trainer: ContinuousTrainingConfig = section(ContinuousTrainingConfig)
    inference: InferenceConfig = section(InferenceConfig)
    weights: WeightsConfig = section(WeightsConfig)
    supervisor: SupervisorConfig = section(SupervisorConfig)
    logging: LoggingConfig = section(LoggingConfig)
    metrics: MetricsConfig = section(MetricsConfig)
    decision_log: DecisionLogConfig = section(DecisionLogConfig)
    folder: str = "."
    """Folder of the file that was read; relative paths of the application start there. Not a setting."""

    def check(self) -> list[str]:
        """Problems that concern several sections."""
        if self.inference.workers > 1 and not self.trainer.enabled:
            return [
                f"inference.workers: of {self.inference.workers} processes only one would train what it sees itself"
                " (trainer.enabled: false); set trainer.enabled to true, or inference.workers to 1"
            ]
        return []

    def to_dict(self) -> dict[str, Any]:
        """Plain data for replies, manifests and `parse`."""
        plain = dataclasses.asdict(self)
        del plain["folder"]
        return plain


def parse(data: Any, source: str, folder: str = ".", strict: bool = True) -> Config:
    """A Config from plain data. Raises ConfigError, or with `strict=False` logs each problem and takes defaults."""
    problems: list[str] = []
    if isinstance(data, Mapping):
        data = dict(data)
        flat = {key: data.pop(key) for key in PLAN_KEYS if key in data}
        trainer = data.get("trainer") or {}
        if flat and isinstance(trainer, Mapping):
            problems += [f"{key}: stands here and as trainer.{key}; keep one" for key in flat if key in trainer]
            data["trainer"] = {**flat, **trainer}
        if "folder" in data:
            problems.append("folder: unknown key")
            del data["folder"]
        data.update(value_checks.with_lanes(data.get("inference"), InferenceConfig.lanes))
    known = [key for key in keys(Config) if key != "folder"]
    config, more = read(Config, data, "", known)
    problems += more
    if problems and strict:
        raise ConfigError(source, problems)
    for problem in problems:
        log.error("%s: %s; the default is used", source, problem)
    return dataclasses.replace(config, folder=folder)


def load(path: Path | str | None, strict: bool = True, must_exist: bool = False) -> Config:
    """The configuration in a YAML file; without a path, and unless it `must_exist` without a file, all defaults.

    Raises ConfigError if the file cannot be read, is not YAML, or (strict) has any problem.
    """
    if path is None:
        return Config()
    path = Path(path)
    folder = str(path.resolve().parent)
    try:
        data, problems = read_yaml(path)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(str(path), ["there is no such file"]) from None
        log.info("%s does not exist: every setting takes its default", path)
        return Config(folder=folder)
    if problems:
        if strict:
            raise ConfigError(str(path), problems)
        for problem in problems:
            log.error("%s: %s; every setting takes its default", path, problem)
        return Config(folder=folder)
    return parse(data, str(path), folder, strict)


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """The plain data in a YAML file and what is wrong with it, one line each. Raises FileNotFoundError."""
    from .yaml_file import read as read_text  # here, so that the help of a command needs no package

    try:
        return read_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"cannot be read: {' '.join(str(error).split())}"]


def read_reloaded(data_dir: Path, folder: str) -> Config:
    """The configuration that the last reload wrote. Raises OSError, ValueError or ConfigError."""
    path = data_dir / CONFIG_FILE
    return parse(json.loads(path.read_text(encoding="utf-8")), str(path), folder)
