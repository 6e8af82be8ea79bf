"""`ctl logs`: what the processes of an instance wrote."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ...shared.memory import layout
from ..children.logfile import follow, tail
from ..display import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl logs -f trainer"
EXITS = "0 shown; 1 there are no logs under that name"

PROCESSES = ("supervisor", *layout.PROCESSES)

_ALWAYS = PROCESSES[:3]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument(
        "process",
        nargs="?",
        choices=PROCESSES,
        metavar="PROCESS",
        help="only supervisor, trainer, inference, or one of several workers: inference-2, ... (default: all)",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on showing new lines until Ctrl-C")
    parser.add_argument("-n", "--lines", type=int, default=20, metavar="N", help="last lines of each log (20)")
    parser.add_argument("--data-dir", default="data", help="data_dir of an instance that does not run (data)")


def run(options: argparse.Namespace) -> int:
    """Print the last lines, and with -f the new ones."""
    folder = data_folder(options.instance, options.data_dir) / "logs"
    names = [options.process] if options.process else list(PROCESSES)
    paths = {name: folder / f"{name}.log" for name in names}
    # Of further workers nothing is expected, unless there are some.
    paths = {name: path for name, path in paths.items() if len(names) == 1 or name in _ALWAYS or path.exists()}
    present = {name: path for name, path in paths.items() if path.exists()}
    if not present and not options.follow:
        print(f"ctl: there are no logs in {folder}", file=sys.stderr)
        return 1
    sizes = {name: path.stat().st_size for name, path in present.items()}
    for name, path in present.items():
        for line in tail(path, options.lines):
            _show(name, line, len(names) > 1)
    if options.follow:
        _follow({name: (path, sizes.get(name, 0)) for name, path in paths.items()})
    return 0


def data_folder(instance: str, data_dir: str) -> Path:
    """Folder of the instance's data: where it says while it is in shared memory, else below `data_dir`."""
    control = status.open_control(instance)
    if control is not None:
        folder = Path(control.schema["data_dir"])
        control.close()
        return folder
    return Path(data_dir).absolute() / instance


def _follow(places: dict[str, tuple[Path, int]]) -> None:
    readers = {name: follow(path, position) for name, (path, position) in places.items()}
    rest = dict.fromkeys(places, b"")
    while True:
        idle = True
        for name, reader in readers.items():
            chunk = next(reader)
            if not chunk:
                continue
            idle = False
            *whole, rest[name] = (rest[name] + chunk).split(b"\n")
            for line in whole:
                _show(name, line.decode("utf-8", "replace"), len(places) > 1)
        sys.stdout.flush()
        if idle:
            time.sleep(0.1)


def _show(name: str, line: str, named: bool) -> None:
    print(f"{name:<10} {line}" if named else line)
