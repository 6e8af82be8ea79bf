"""An instance, its engine and its trainer in one process; the trainer steps when it is told to."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch._dynamo  # an optimiser imports it, which takes a second: here, rather than in the first test
from numpy.typing import NDArray

from ..inference_proc.engine import Engine
from ..shared.application import ActionHead, Application
from ..shared.configuration.config import parse
from ..shared.errors import ApplicationError, TandemError
from ..shared.instance import create_instance
from ..shared.memory.segments import remove_instance
from ..shared.replay import ExperienceReplayBuffer
from ..shared.weights.publisher import claim_trainer
from ..trainer_proc.devices import one_thread
from ..trainer_proc.trainer import ContinuousTrainer

log = logging.getLogger(__name__)

Source = Application | Callable[..., Application] | ModuleType | str
"""An application, its `create(settings, folder)`, or the module that has one, or that module's name."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    # A step that fails is what a test wants to hear of at once.
    "trainer": {"device": "cpu", "reserve_core": False, "nice": 0, "buffer_capacity": 10_000, "max_failures": 1},
    # One more, for a server under test that attaches by itself.
    "inference": {"lanes": 2},
    "logging": {"level": "warning"},
}
_open: weakref.WeakSet[Running] = weakref.WeakSet()


class Running:
    """An application that runs in this process until `close`, the end of a `with` block, or the interpreter's end.

    `engine` is the engine that a server embeds; `decide`, `reward` and `reward_decision` are its methods. Nothing is
    trained but by `train`.
    """

    def __init__(self, source: Source, settings: Mapping[str, Any] | None = None, seed: int = 0) -> None:
        """See `run`."""
        self._process = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="tandem-testing-"))
        self._name = f"testing-{os.getpid()}-{secrets.token_hex(4)}"
        self._closing = contextlib.ExitStack()
        self._closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._start(source, dict(settings or {}), seed)
        except BaseException:
            self._closing.close()
            raise
        self.decide = self.engine.decide
        self.reward = self.engine.reward
        self.reward_decision = self.engine.reward_decision
        _open.add(self)

    def _start(self, source: Source, settings: dict[str, Any], seed: int) -> None:
        config = parse(_merged(settings, self._application(source), seed, self._folder), "settings", str(self._folder))
        create_instance(self._name, config)
        self._closing.callback(remove_instance, self._name)
        self.engine = Engine.attach(self._name)
        self._closing.callback(self.engine.close)
        held = claim_trainer(self._name)
        assert held is not None
        self._closing.callback(os.close, held)
        buffer = ExperienceReplayBuffer(self.engine.instance, seed=seed)
        self._trainer = ContinuousTrainer(self.engine.instance.build_model(), buffer)

    def _application(self, source: Source) -> str:
        """The name of a module that gives the application."""
        if isinstance(source, str):
            return source
        if isinstance(source, ModuleType):
            return source.__name__
        name = f"tandem_testing_{secrets.token_hex(4)}"
        module = ModuleType(name, "Stands for an application that was passed as an object.")
        module.__dict__["create"] = _create_of(source)
        sys.modules[name] = module
        self._closing.callback(sys.modules.pop, name, None)
        return name

    def train(self, steps: int | None = None) -> int:
        """Take as many training steps as the data ask for, or `steps` of them, and publish what came of them.

        Returns how many were taken: fewer if there are too few experiences or a candidate was refused. Rewards that
        arrived, decisions that waited too long and commands (`engine.reset()`) are taken in first. Raises TrainerFailed
        with the reason if a step fails.
        """
        self._check_open()
        self.engine.beat()
        trainer = self._trainer
        trainer.poll()
        trainer.look()
        planned = trainer.plan_tick()
        wanted, taken = planned if steps is None else steps, 0
        with one_thread():
            while taken < wanted and (more := trainer.loop.tick(wanted - taken)):
                taken += more
        return taken

    @property
    def version(self) -> int:
        """The newest published version: the number of training steps so far."""
        return self.engine.model_version

    def records(self, most: int = 10_000) -> NDArray[Any]:
        """The newest completed experiences in order of their decisions: a structured array [n] (RecordLayout)."""
        self._check_open()
        self.engine.beat()
        return self._trainer.buffer.reader.recent(most)

    def probabilities(self, observation: Any) -> tuple[NDArray[np.float64], ...]:
        """With which probability each choice of each head would be drawn now: float64[size] for each head.

        Raises TandemError for candidates and numbers, which have no such choices.
        """
        self._check_open()
        for head in self.engine.application.heads:
            if type(head) is not ActionHead:
                raise TandemError(f"probabilities: {head.name} is a {type(head).__name__} and has no fixed choices")
        encoded = np.asarray(self.engine.application.encode(observation), np.float32)
        with torch.no_grad():
            heads = self.engine.get_model_for_inference()(torch.from_numpy(encoded[np.newaxis].copy()))
        return tuple(self.engine.policy.distribution(head[0].numpy()) for head in heads)

    def _check_open(self) -> None:
        if self not in _open:
            raise TandemError("this application was closed; run it again (tandem.testing.run)")

    def close(self) -> None:
        """Stop, and remove everything: shared memory, checkpoints, files. Idempotent.

        Does nothing in a forked child: it is its parent's.
        """
        if os.getpid() != self._process:
            return
        _open.discard(self)
        self._closing.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A notebook's cell that is run again drops what it made before.
        with contextlib.suppress(Exception):
            self.close()


def run(source: Source, settings: Mapping[str, Any] | None = None, seed: int = 0) -> Running:
    """Run an application in this process.

    `source` is an Application, a function `create(settings, folder)` or one without parameters, a module that has
    `create`, or its name. `settings` are the sections of a configuration file (`{"inference": {"default_reward": 0}}`).
    With the same `seed` and the same calls everything happens again the same way. Raises ConfigError naming a bad
    setting, and ApplicationError.
    """
    return Running(source, settings, seed)


def _create_of(source: Application | Callable[..., Application]) -> Callable[..., Application]:
    if isinstance(source, Application):
        return lambda settings, folder: source
    if not callable(source):
        raise ApplicationError(
            f"an application is an Application, create(settings, folder), a module or its name, not {source!r}"
        )

    def create(settings: Any, folder: Path) -> Application:
        import inspect

        return source(settings, folder) if inspect.signature(source).parameters else source()

    return create


def _merged(settings: dict[str, Any], application: str, seed: int, folder: Path) -> dict[str, Any]:
    plain: dict[str, Any] = {"application": application, "data_dir": str(folder), **settings}
    for section, defaults in {**_DEFAULTS, "trainer": {**_DEFAULTS["trainer"], "seed": seed}}.items():
        given = plain.get(section, {})
        plain[section] = {**defaults, **given} if isinstance(given, Mapping) else given
    if isinstance(plain["inference"], dict):
        plain["inference"].setdefault("seed", seed)
    return plain


@atexit.register
def _close_all() -> None:
    for running in list(_open):
        with contextlib.suppress(Exception):
            running.close()
