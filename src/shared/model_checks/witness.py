"""Another process that builds the same model: what is drawn when a module is imported shows itself only there.

It is forked before the application is imported, with other random numbers, so that it imports and builds everything
for itself as trainer and server will. It is asked once: which logits do these weights give?
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import signal
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..weights.flat_model import FlatModel

_PR_SET_PDEATHSIG = 1
_PATIENCE = 20.0
"""Seconds that the other process may take longer than this one; it is given up then."""


class Witness:
    """The parent's end. `build` runs in the child and gives a model."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._question = os.memfd_create("tandem-question")
        self._answer = os.memfd_create("tandem-answer")
        receiver, self._go = os.pipe()
        self._done, sender = os.pipe()
        with warnings.catch_warnings():
            # Python warns of the threads that numpy's library has; they take no part in what the child does.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            os.close(self._go)
            os.close(self._done)
            status = 1
            try:
                # An import that never ends must not outlive who asked.
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                _testify(build, receiver, self._question, self._answer)
                os.write(sender, b"1")
                status = 0
            finally:
                os._exit(status)
        os.close(receiver)
        os.close(sender)

    def logits(self, weights: torch.Tensor, observations: list[torch.Tensor]) -> list[list[NDArray[np.float32]]] | None:
        """For each of these observations float32[B, F] the heads' logits float32[B, size] with these weights.

        `weights` is uint8 [bytes]. None if the other process could not build or ask its model.
        """
        size = weights.numel()
        os.ftruncate(self._question, size)
        if size:
            torch.from_file(_path(self._question), shared=True, size=size, dtype=torch.uint8).copy_(weights)
        with open(os.dup(self._question), "ab") as file:
            for rows in observations:
                np.save(file, rows.numpy(), allow_pickle=False)
        try:
            os.write(self._go, size.to_bytes(8, "little"))
        except BrokenPipeError:
            return None
        # A child that ends without having answered leaves nothing to read.
        if not select.select([self._done], [], [], _PATIENCE)[0] or not os.read(self._done, 1):
            return None
        answers = _arrays(self._answer, 0)
        heads = len(answers) // len(observations)
        return [answers[at : at + heads] for at in range(0, len(answers), heads)]

    def close(self) -> None:
        """End the other process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        for descriptor in (self._question, self._answer, self._go, self._done):
            os.close(descriptor)


@contextlib.contextmanager
def witness(build: Callable[[], nn.Module]) -> Iterator[Witness]:
    """A witness for a moment. For a process that is used for nothing else, and has not imported the application."""
    made = Witness(build)
    try:
        yield made
    finally:
        made.close()


def _testify(build: Callable[[], nn.Module], receiver: int, question: int, answer: int) -> None:
    """The child's part: whatever is raised here leaves the question unanswered."""
    nothing = os.open(os.devnull, os.O_RDWR)
    # The application's messages are the parent's to give.
    for standard in range(3):
        os.dup2(nothing, standard)
    random.seed()
    np.random.seed()
    torch.seed()
    flat = FlatModel(build())
    size = int.from_bytes(os.read(receiver, 8), "little")
    if size != flat.layout.data_bytes:
        raise ValueError("this process builds another model, or was not asked")
    if size:
        flat.bind(torch.from_file(_path(question), shared=True, size=size, dtype=torch.uint8))
    with open(os.dup(answer), "wb") as file, torch.inference_mode():
        for rows in _arrays(question, size):
            for head in flat.model.eval()(torch.from_numpy(rows)):
                np.save(file, head.numpy(), allow_pickle=False)


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _arrays(descriptor: int, start: int) -> list[NDArray[np.float32]]:
    """The arrays in a file from byte `start` to its end; a half one at the end is left out."""
    found = []
    with open(os.dup(descriptor), "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(start)
        while file.tell() < end:
            try:
                found.append(np.load(file, allow_pickle=False))
            except (ValueError, EOFError):
                break
    return found
