"""`ctl completion`: completion of commands and options for bash and zsh."""

from __future__ import annotations

import importlib

from . import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = 'eval "$(ctl completion bash)"   # in ~/.bashrc'
EXITS = "0"

_BASH = """\
_tandem_ctl() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{names}" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[COMP_CWORD-1]}}" in
    --config|--check|--data-dir) COMPREPLY=($(compgen -f -- "$word")); return ;;
    --instance)
      local names="$(ls /dev/shm 2>/dev/null | sed -n 's/^tandem\\.\\(.*\\)\\.control$/\\1/p')"
      COMPREPLY=($(compgen -W "$names" -- "$word"))
      return ;;
  esac
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
}}
complete -o bashdefault -o default -F _tandem_ctl ctl ./ctl tandem
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="for which shell")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    print((_ZSH if options.shell == "zsh" else "") + script(), end="")
    return 0


def script() -> str:
    """The bash script; zsh reads it through its bash completion."""
    cases = []
    for name in COMMANDS:
        words = " ".join(option_words(name))
        cases.append(f'    {name}) COMPREPLY=($(compgen -W "{words}" -- "$word")) ;;')
    return _BASH.format(names=" ".join(COMMANDS), cases="\n".join(cases))


def option_words(name: str) -> list[str]:
    """Long options and fixed words of a command."""
    from ..cli import build_parser

    try:
        module = importlib.import_module(f"{__package__}.{COMMANDS[name][0]}")
    except ImportError:
        # It needs the environment, which may not be there yet.
        return ["--help", "--instance", "--config", "--json"]
    words = []
    for action in build_parser(name, module)._actions:
        words += [option for option in action.option_strings if option.startswith("--")]
        words += [str(choice) for choice in action.choices or ()] if not action.option_strings else []
    return words
