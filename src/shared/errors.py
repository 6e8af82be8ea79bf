"""Every error Tandem raises.

TandemError
├── ConfigError            a configuration file or value was refused; lists every problem
├── ApplicationError       the configured application could not be imported or is incomplete
├── SegmentError           something about a shared-memory segment
│   ├── SegmentMissing     the segment does not exist (nothing runs, or it was swept)
│   ├── SegmentExists      the segment is there already and would have been overwritten
│   ├── SegmentSpaceError  /dev/shm has not enough room; carries bytes needed and free
│   ├── SegmentInvalid     the segment is truncated, half created or not ours
│   └── LayoutMismatch     layout version or schema differ; names the first difference
├── InstanceNameError      a text that cannot name an instance
├── ForeignFile            a segment or file belongs to another user; names it and the owner
├── LaneBusy               every lane already has a living writer; names the holders
├── ModelMismatch          a model's tensors are not those that the weights slots were made for
├── MissingExtra           a part is used whose packages are not installed (also an ImportError)
├── PolicyUnavailable      the weights changed under every forward pass (a model read in place)
├── CheckpointError        a checkpoint is unreadable or belongs to another model
│   ├── SpoiltCheckpoint   it holds a value that is not finite and should be
│   └── OtherLearner       its weights are of another learner or exploration rule
└── SupervisorError        an instance could not be started, found or stopped
"""

from __future__ import annotations

TYPE_CHECKING = False  # spares commands that must start fast the import
if TYPE_CHECKING:
    from collections.abc import Sequence


class TandemError(Exception):
    """Base of every error that Tandem raises on purpose."""


class ConfigError(TandemError):
    """A configuration was refused.

    `problems` holds one line for each problem: path, value, what is allowed.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  {line}" for line in self.problems))


class ApplicationError(TandemError):
    """The configured application is badly written, not found, or lacks what the core needs."""


class SegmentError(TandemError):
    """Something about the shared-memory segment `segment`."""

    def __init__(self, segment: str, message: str) -> None:
        self.segment = segment
        super().__init__(f"{segment}: {message}")


class SegmentMissing(SegmentError):
    """A segment that should be there is not: nothing runs under that name, or it was swept."""


class SegmentExists(SegmentError):
    """A segment that was to be created exists already."""


class SegmentSpaceError(SegmentError):
    """The shared-memory file system is too full for a segment of `needed` bytes; `free` are left."""

    def __init__(self, segment: str, needed: int, free: int) -> None:
        self.needed = needed
        self.free = free
        super().__init__(
            segment,
            f"needs {needed} bytes of shared memory and {free} are free;"
            " make room in /dev/shm or raise its size (containers: --shm-size=256m)",
        )


class SegmentInvalid(SegmentError):
    """A segment is truncated, was never finished, or is not one of Tandem's."""


class LayoutMismatch(SegmentError):
    """A segment was made by another layout version or for another schema."""


class InstanceNameError(TandemError, ValueError):
    """A text that cannot name an instance."""


class ForeignFile(TandemError, PermissionError):
    """A segment, lock, file or folder belongs to another user, or is a link: `path`, and the user's number `owner`."""

    def __init__(self, path: str, owner: int, message: str) -> None:
        self.path = path
        self.owner = owner
        super().__init__(f"{path} {message}")


class LaneBusy(TandemError):
    """Every writer lane has a living owner; `holders` are their process ids."""

    def __init__(self, instance: str, holders: Sequence[int]) -> None:
        self.instance = instance
        self.holders = tuple(holders)
        pids = ", ".join(map(str, self.holders)) or "unknown"
        super().__init__(
            f"instance {instance!r}: every writer lane is taken (process {pids});"
            " raise inference.lanes or stop a server"
        )


class ModelMismatch(TandemError):
    """A model's tensors differ from those the slots or a checkpoint were made for."""


class PolicyUnavailable(TandemError):
    """The weights were overwritten during several forward passes in a row."""


class CheckpointError(TandemError):
    """A checkpoint cannot be read or does not belong to this model."""


class SpoiltCheckpoint(CheckpointError):
    """A checkpoint's model or learner has a value that is not finite, and was saved by mistake."""


class OtherLearner(CheckpointError):
    """A checkpoint's weights mean something else: they are of another learner or explored by another rule."""


class SupervisorError(TandemError):
    """An instance could not be started, found or stopped."""


class MissingExtra(TandemError, ImportError):
    """A part of Tandem is used whose packages are not installed: they are an extra."""


def need_extra(extra: str, what: str, packages: tuple[str, ...]) -> None:
    """Raise MissingExtra if one of the packages that `what` is built on is not installed; none is imported."""
    from importlib.util import find_spec

    missing = []
    for package in packages:
        try:
            if find_spec(package) is None:
                missing.append(package)
        except ImportError:
            missing.append(package)
    if missing:
        raise MissingExtra(
            f"{what} needs the extra `{extra}` ({', '.join(missing)}): pip install 'tandem-learning[{extra}]'"
        )
