"""Importing what a configuration names: a module beside its file or one that is installed, never a guess.

The folder of the configuration comes last on the module path, so that no file in it shadows the standard library or an
installed package. A name that means a file there and another module as well is refused with both places.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import keyword
import os
import sys
from pathlib import Path
from types import ModuleType

from .errors import ApplicationError


def is_module_name(name: str) -> bool:
    """True for a dotted name that can be imported, such as `shop.lights`."""
    return bool(name) and all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def import_beside(setting: str, name: str, folder: Path) -> ModuleType:
    """The module that `setting` of a configuration in `folder` names.

    Raises ApplicationError if the name is badly written, the module does not exist, or the name means both a file in
    `folder` and another module. An ImportError from inside the user's module is passed on untouched.
    """
    if not is_module_name(name):
        raise ApplicationError(f"{setting}: {name!r} is not a module name such as 'lights' or 'shop.lights'")
    folder = folder.absolute()
    first = name.partition(".")[0]
    own = _file_of(folder, first)
    elsewhere = _elsewhere(first)
    if first == "tandem":
        pass  # our own package is meant, whatever lies beside the configuration
    elif own is not None and elsewhere is not None and not _is_same(own, elsewhere):
        what = f"of the standard library ({elsewhere})" if first in sys.stdlib_module_names else f"at {elsewhere}"
        raise ApplicationError(
            f"{setting}: {name!r} means {own} beside the configuration, but also the module {what}, which goes first;"
            " give one of them another name"
        )
    elif elsewhere is None and (own is not None or (folder / first).is_dir()) and str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ApplicationError(
            f"{setting}: no module named {name!r} can be imported: {_why_not(name, first, folder)}"
        ) from error


def describe(module: ModuleType) -> str:
    """A module and where it lies, for messages: `module 'lights' (/srv/lights.py)`."""
    if module.__spec__ is not None and module.__spec__.origin is None and hasattr(module, "__path__"):
        return f"{module.__name__!r} is a folder without __init__.py ({', '.join(module.__path__)}) and"
    return f"module {module.__name__!r} ({getattr(module, '__file__', None) or 'built in'})"


def _file_of(folder: Path, first: str) -> Path | None:
    """The file that `import first` would run if `folder` were the only one on the path."""
    for path in (folder / first / "__init__.py", folder / f"{first}.py"):
        if path.is_file():
            return path
    return None


def _elsewhere(first: str) -> str | None:
    """Where `import first` finds a module or a package as things are; None if nowhere or in a bare folder only."""
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a module in memory that nothing was loaded from
        return "memory"
    if spec is None or spec.origin is None or spec.loader is None:
        return None
    return spec.origin


def _is_same(own: Path, origin: str) -> bool:
    """True for one file, and for two modules that are copies: it does not matter then which of them is meant."""
    try:
        return os.path.samefile(own, origin) or (own.name != "__init__.py" and own.read_bytes() == _contents(origin))
    except OSError:
        return False


def _contents(origin: str) -> bytes | None:
    return Path(origin).read_bytes() if os.path.isfile(origin) else None


def _why_not(name: str, first: str, folder: Path) -> str:
    place = f"it is neither installed, nor on PYTHONPATH, nor beside the configuration in {folder}"
    here = Path.cwd()
    if here != folder and (_file_of(here, first) is not None or (here / first).is_dir()):
        place += f" (the working folder, {here}, which has a {first}, is not searched)"
    found = _elsewhere(first)
    if "." in name and found is not None:
        place = f"{first!r} is {found}, and has no such part"
    return place
