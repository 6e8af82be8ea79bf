"""What operator commands share: the control segment to write to, the trainer's answer in words, a restart.

Standard library only.
"""

from __future__ import annotations

import signal
import time

from ..shared.commands import Answer, send
from ..shared.errors import SupervisorError
from ..shared.memory import layout
from ..shared.memory.ownership import ANYONE, OWN
from ..shared.memory.users import living
from .children import process_tree
from .display import status
from .lock import holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..shared.memory.control import Control

RESTART_SIGNALS: dict[str, int] = {
    "trainer": signal.SIGUSR1,
    "inference": signal.SIGUSR2,
    **{name: signal.SIGRTMIN + number for number, name in enumerate(layout.SERVERS[1:], 1)},
}
"""What asks a supervisor to restart a child."""

LATE = "the trainer did not answer in time; it will do it when it comes back"
"""How the refusal ends when the command stays in shared memory."""

_WORDS = {
    "refused": "another command took its place",
    "missing": "there is no such checkpoint (`ctl checkpoints` lists them)",
    "unreadable": "the checkpoint is damaged or belongs to another model; `ctl logs trainer` says more",
    "invalid": "the settings were refused; `ctl logs trainer` says why",
    "failed": "it failed; `ctl logs trainer` says why",
    "timeout": LATE,
}


def open_running(instance: str, whose: str = ANYONE) -> Control:
    """The control segment of a living instance, to write to: by default of anyone who lets this user write.

    Raises SupervisorError if nothing runs, ForeignFile if it is not open to this user or not that of `whose`.
    """
    control = status.open_control(instance, writable=True, whose=whose)
    if control is None or not living(control):
        raise SupervisorError(f"nothing runs as instance {instance!r}")
    return control


def ask(control: Control, code: str, argument: int = 0, timeout: float = 10.0) -> int:
    """Have the trainer carry out a command; the version it answers. Raises SupervisorError if it is not done."""
    if not status.is_supervised(control, "trainer"):
        raise SupervisorError(f"instance {control.instance!r} has no trainer process (trainer.enabled: false)")
    answer: Answer = send(control, code, argument, timeout)
    if not answer.done:
        raise SupervisorError(f"{code}: {_WORDS.get(answer.status, answer.status)}")
    return answer.version


def restart(instance: str, names: list[str], timeout: float) -> dict[str, int]:
    """Have the supervisor replace children and wait until they are ready; their new process ids.

    Of several processes of the server one is replaced after the other, so that the others answer meanwhile. `timeout`
    is for all of them, seconds. Raises SupervisorError if there is no supervisor, a child is not supervised, or it does
    not come back.
    """
    control = open_running(instance, OWN)
    for name in names:
        if not status.is_supervised(control, name):
            raise SupervisorError(f"instance {instance!r} has no supervised {name}")
    deadline = time.monotonic() + timeout
    later = [name for name in names if name in layout.SERVERS][1:]
    for together in ([name for name in names if name not in later], *([name] for name in later)):
        _restart_at_once(control, together, deadline, timeout)
    return {name: control.get(f"process.{name}.pid") for name in names}


def _restart_at_once(control: Control, names: list[str], deadline: float, timeout: float) -> None:
    instance = control.instance
    supervisor = holder(instance)
    before = {name: control.get(f"process.{name}.restarts") for name in names}
    for name in names:
        if not process_tree.send(supervisor, RESTART_SIGNALS[name]):
            raise SupervisorError(f"instance {instance!r} has no living supervisor; `ctl up` adopts what runs")
    waiting = list(names)
    while waiting:
        for name in list(waiting):
            state = status.process(control, name)["state"]
            if control.get(f"process.{name}.restarts") > before[name] and state == "running":
                waiting.remove(name)
            elif state == "fatal" and control.get(f"process.{name}.restarts") > before[name]:
                raise SupervisorError(f"{name} does not come up; `ctl logs {name}` says why")
        if waiting and time.monotonic() > deadline:
            raise SupervisorError(f"{', '.join(waiting)} not ready within {timeout:g} s")
        time.sleep(0.02)
