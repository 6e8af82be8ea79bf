"""The supervisor and every operator command: `tandem COMMAND`, `python -m tandem.supervisor COMMAND`."""

from __future__ import annotations

from ..shared.memory.processes import leave_working_folder

if __name__ == "__main__":
    leave_working_folder()  # before anything else is imported

import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
