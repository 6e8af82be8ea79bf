"""The supervisor and every operator command: `tandem COMMAND`, `python -m tandem.supervisor COMMAND`."""

from __future__ import annotations

import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
