#!/usr/bin/env -S python3 -S
"""Start, watch and operate Tandem: `./ctl --help`.

Standard library only, without site-packages: commands that read shared memory answer at once and need no environment.
The others enter `.venv`, which the first use creates from requirements.lock.
"""

import sys

if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the folder of this file: a random.py beside it is not the standard library's

import os

ROOT = os.path.dirname(os.path.realpath(__file__))


def main():
    if sys.version_info < (3, 10):
        for name in ("python3.13", "python3.12", "python3.11", "python3.10"):
            for folder in os.environ.get("PATH", "").split(os.pathsep):
                path = os.path.join(folder, name)
                if os.access(path, os.X_OK):
                    os.execv(path, [path, "-S", os.path.realpath(__file__)] + sys.argv[1:])
        sys.exit("ctl: Python 3.10 or newer is needed; this is %s" % sys.version.split()[0])
    # The package is src/: under its own name without an installation, so that no module is ever loaded twice.
    package = type(sys)("tandem")
    package.__path__ = [os.path.join(ROOT, "src")]
    sys.modules["tandem"] = package
    from tandem.supervisor.cli import main as run

    return run(sys.argv[1:], ROOT)


if __name__ == "__main__":
    sys.exit(main())
