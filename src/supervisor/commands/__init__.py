"""The commands of ctl: one module each, found here by name and imported only when used.

A command module has `arguments(parser)`, which declares its options, `run(options)`, which returns the exit status,
and the texts `EXAMPLE` and `EXITS` for its help.
"""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("up", "full", "start the server and the trainer, and watch them"),
    "new": ("new", "light", "a working application in a folder of its own, to be changed into another"),
    "down": ("down", "light", "stop an instance and remove what it left in shared memory"),
    "status": ("status", "light", "what runs: processes, version, buffer"),
    "version": ("version", "light", "the version of the weights that decide now"),
    "check": ("check", "light", "one line and a status for monitoring systems"),
    "top": ("top", "full", "one screen of what an instance does now, with keys to pause and roll back"),
    "logs": ("logs", "light", "what the processes wrote"),
    "restart": ("restart", "light", "replace the trainer, the server, or both"),
    "pause": ("pause", "light", "let the trainer idle while decisions go on"),
    "resume": ("resume", "light", "let the trainer go on"),
    "rollback": ("rollback", "light", "decide with the weights of a checkpoint again"),
    "reset": ("reset", "light", "begin anew with fresh weights"),
    "checkpoint": ("checkpoint", "light", "save the newest weights now"),
    "checkpoints": ("checkpoints", "light", "what is on disk to roll back to"),
    "evaluate": ("evaluate", "full", "what a checkpoint would have earned on logged decisions"),
    "instances": ("instances", "light", "every instance in shared memory"),
    "clean": ("clean", "light", "remove what dead instances left in shared memory"),
    "config": ("config", "full", "the settings in force and where each comes from"),
    "reload": ("reload", "full", "apply changed settings to a running instance"),
    "doctor": ("doctor", "full", "what could go wrong on this machine, and what mends it"),
    "demo": ("demo", "full", "play the bundled game against a server that learns from it"),
    "decision-log": ("decision_log", "full", "the logged decisions as one file, for other programs"),
    "replay": ("replay", "full", "train a checkpoint on logged decisions"),
    "bench": ("bench", "full", "run the scripts that print the figures of the documents"),
    "test": ("test", "test", "run the tests"),
    "completion": ("completion", "light", "completion of commands and options for bash and zsh"),
}
"""Name -> module, what it needs (`light`: nothing but Python; `full`: the environment; `test`: the test packages
too), one line of help."""
