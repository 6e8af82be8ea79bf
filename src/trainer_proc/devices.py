"""Where training runs: the device, the threads and the processor cores, so that it never slows a decision down."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.errors import TandemError

log = logging.getLogger(__name__)

_SMALL_BYTES = 2_000_000
"""Models below this are computed by one thread."""


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises TandemError if CUDA is asked for and not there."""
    available = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not available:
        raise TandemError("trainer.device: cuda is not available on this machine (allowed: auto, cpu)")
    return torch.device("cuda" if available else "cpu")


def training_cores(allowed: set[int], reserve: bool) -> set[int]:
    """The cores to train on: all but the lowest, the server's, unless it is the only one or none is reserved."""
    return allowed - {min(allowed)} if reserve and len(allowed) > 1 else allowed


def yield_to_server(config: ContinuousTrainingConfig) -> None:
    """Give this process its niceness, cores and threads. Call it before the first tensor operation."""
    os.nice(config.nice)
    cores = training_cores(os.sched_getaffinity(0), config.reserve_core)
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        log.warning("the trainer stays on every core: %s", error)
    torch.set_num_threads(config.threads or (1 if config.deterministic else len(cores)))


def fit_threads(config: ContinuousTrainingConfig, weights_bytes: int) -> None:
    """Train a small model on one thread, unless `threads` says otherwise: sharing its work out takes longer than it.

    `weights_bytes` is the size of the model.
    """
    if not config.threads and weights_bytes < _SMALL_BYTES:
        torch.set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within a process that is not the trainer's own, as `fit_threads` for small models."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_deterministic() -> None:
    """Let torch choose only algorithms that give the same bits every time, and refuse those that cannot."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
