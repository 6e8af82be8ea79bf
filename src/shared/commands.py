"""The asking end of operator commands: put one into the control segment and wait for the trainer's answer.

Standard library only: `ctl` uses it before anything is installed. The trainer looks several times in a second, also
while it is paused; src/trainer_proc/command_answers.py is the answering end. If the trainer dies before it answers, the
command stays in the segment and the next trainer carries it out.
"""

from __future__ import annotations

import time

from .memory import layout
from .memory.control import Control

PREVIOUS = 0
"""Argument of `rollback`: the checkpoint before the one that is in force."""
BEST = 2**64 - 1
"""Argument of `rollback`: the checkpoint whose decisions earned most."""

_LOOK_EVERY = 0.01


class Answer:
    """How a command ended: `status` is one of layout.ANSWERS, or `timeout`; `version` what it published or saved."""

    __slots__ = ("status", "version")

    def __init__(self, status: str, version: int = 0) -> None:
        self.status = status
        self.version = version

    @property
    def done(self) -> bool:
        """True if the command was carried out."""
        return self.status == "done"

    def __repr__(self) -> str:
        return f"Answer({self.status!r}, version={self.version})"


def send(control: Control, code: str, argument: int = 0, timeout: float = 5.0) -> Answer:
    """Ask for `checkpoint`, `rollback` (a version, PREVIOUS or BEST), `reset` or `reload`, and wait for the answer.

    A command of somebody else that is not answered yet goes first. Answers `timeout` if the trainer does not answer
    within `timeout` seconds (it will still do it if it comes back), and `refused` if a later command took the place of
    this one before the trainer saw it. Raises ValueError if there is no such command.
    """
    if code not in layout.COMMANDS[1:]:
        raise ValueError(f"command {code!r} is not one of {', '.join(layout.COMMANDS[1:])}")
    deadline = time.monotonic() + timeout
    while control.get("trainer.answered") < control.get("command.sequence") and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
    sequence = control.command(code, argument)
    while True:
        answered = control.get("trainer.answered")
        if answered > sequence:
            return Answer("refused")
        if answered == sequence:
            return Answer(layout.ANSWERS[control.get("trainer.answer")], control.get("trainer.answer_version"))
        if time.monotonic() >= deadline:
            return Answer("timeout")
        time.sleep(_LOOK_EVERY)


def set_paused(control: Control, paused: bool) -> None:
    """Let the trainer idle, or go on. It takes effect at its next look; decisions go on either way."""
    control.set("command.pause", int(paused))
