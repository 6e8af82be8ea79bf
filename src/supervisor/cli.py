"""The command line: finds the command, reads its options, and enters the environment if the command needs it.

Standard library only, and nothing is imported before it is needed: `version` and `status` are asked by scripts.
"""

from __future__ import annotations

import os
import sys

from .commands import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from types import ModuleType

QUICK: dict[str, tuple[str, ...]] = {"version": ("json",), "status": ("json",), "check": ()}
"""Commands whose plain forms are read without argparse, and the flags of those forms."""


def main(words: list[str] | None = None, root: str | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 not done, 2 wrong usage or configuration.

    `root` is the clone whose `ctl` runs this outside of its environment; None inside of an environment.
    """
    try:
        status = _dispatch(sys.argv[1:] if words is None else words, root)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away; the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str], root: str | None) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else 2
    name = words[0]
    if name in ("-V", "--version"):
        print(f"tandem {package_version()}")
        return 0
    if name not in COMMANDS:
        return _unknown(name)
    module_name, needs, _ = COMMANDS[name]
    quick = _quick_options(name, words[1:])
    if quick is not None:
        return _run(_load(module_name), quick)
    if root is not None and needs != "light" and not {"-h", "--help"}.intersection(words):
        from .setup.environment import enter

        return enter(root, words, needs == "test")
    module = _load(module_name)
    return _run(module, _options(name, module, words[1:]))


def _run(module: ModuleType, options: object) -> int:
    from ..shared.errors import ConfigError, InstanceNameError, TandemError
    from ..shared.memory.segments import check_instance

    try:
        name = getattr(options, "instance", None)
        check_instance("default" if name is None else name)
        status: int = module.run(options)
        return status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except InstanceNameError as error:
        print(f"ctl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except (TandemError, OSError) as error:
        print(f"ctl: {error if _has_working_folder() else 'the working folder was removed; change to another'}",
              file=sys.stderr)  # fmt: skip
        return 1


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _load(module_name: str) -> ModuleType:
    name = f"{__package__}.commands.{module_name}"
    __import__(name)  # importlib costs a millisecond more
    return sys.modules[name]


class Options:
    """Options of a command that was read without argparse."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)


def _quick_options(name: str, words: list[str]) -> Options | None:
    """The options of a plain `version` or `status`, or None if argparse is to read (and perhaps refuse) them."""
    if name not in QUICK:
        return None
    values: dict[str, object] = dict.fromkeys(QUICK[name], False)
    from ..shared.memory.segments import instance_name

    values["instance"] = instance_name()
    values["watch"] = values["wait"] = values["max_age"] = None
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "--instance" and words:
            values["instance"] = words.pop(0)
        elif word == "--max-age" and name == "check" and words and words[0].replace(".", "", 1).isdecimal():
            values["max_age"] = float(words.pop(0))
        elif word[:2] == "--" and word[2:] in QUICK[name]:
            values[word[2:]] = True
        else:
            return None
    return Options(**values)


def _options(name: str, module: ModuleType, words: list[str]) -> argparse.Namespace:
    parser = build_parser(name, module)
    if getattr(module, "PASS_ON", False):
        # argparse would take options that are meant for the program that the command runs.
        if {"-h", "--help"}.intersection(words[:1]):
            parser.parse_args(["--help"])
        options = parser.parse_args([])
        options.words = words
        return options
    return parser.parse_args(words)


def build_parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command, with its example and exit statuses as the end of the help."""
    import argparse

    parser = argparse.ArgumentParser(
        prog=f"ctl {name}",
        description=COMMANDS[name][2][0].upper() + COMMANDS[name][2][1:] + ".",
        epilog=f"example:\n  {module.EXAMPLE}\n\nexit status:\n  {module.EXITS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.arguments(parser)
    return parser


def add_instance(parser: argparse.ArgumentParser) -> None:
    """The option that nearly every command has."""
    from ..shared.memory.segments import instance_name

    parser.add_argument(
        "--instance",
        metavar="NAME",
        default=instance_name(),
        help="which instance (default: the environment's TANDEM_INSTANCE, else 'default')",
    )


def package_version() -> str:
    """The version of the package, which `./ctl` does not import: its `tandem` is made without running anything."""
    with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "__init__.py"), encoding="utf-8") as file:
        return next(line.split('"')[1] for line in file if line.startswith("__version__"))


def overview() -> str:
    """The help of ctl itself."""
    lines = ["usage: ctl COMMAND [OPTIONS]", "       ctl --version", "", "commands:"]
    lines += [f"  {name:<12}{text}" for name, (_, _, text) in COMMANDS.items()]
    lines += ["", "`ctl COMMAND --help` shows its options, an example and the exit statuses."]
    return "\n".join(lines)


def _unknown(name: str) -> int:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    print(f"ctl: there is no command {name!r}{hint} (`ctl --help` lists all)", file=sys.stderr)
    return 2
