"""What the complete program of README.md earns: at the start, and after ten seconds.

`./ctl bench readme [--runs N] [--json]`: the program and its configuration, copied as they stand there, are started
with `ctl up`; the rewards are read from the rings. `after` is the mean of the five seconds that follow the first ten.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _kit import end_like_ctrl_c
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.instance import Instance
from tandem.supervisor import cleanup

README = Path(__file__).resolve().parents[1] / "README.md"
FIRST, LEARNING, AFTER = 1.0, 10.0, 5.0


def programs() -> dict[str, str]:
    """The files of the README by their names."""
    text = README.read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (configuration,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return {"lights.py": program, "lights.yaml": configuration}


def play(name: str, folder: str) -> dict[str, float]:
    """One run, on a new instance that is gone afterwards: mean rewards by the time since the first decision."""
    words = ["up", "-d", "--instance", name, "--config", "lights.yaml"]
    try:
        subprocess.run(
            [sys.executable, "-m", "tandem.supervisor", *words], cwd=folder, stdout=subprocess.DEVNULL, check=True
        )
        instance = Instance(name)
        reader = ReplayReader(instance.control, instance.records)
        time.sleep(LEARNING + AFTER)
        version = instance.control.get("version")
        rows = reader.recent(instance.control.get("capacity"))
        instance.control.close()
    finally:
        cleanup.stop_instance(name)
    age = rows["timestamp"] - rows["timestamp"].min()
    is_learned = (age >= LEARNING) & (age < LEARNING + AFTER)
    return {
        "decisions": int((age < LEARNING).sum()),
        "first_second": round(float(rows["actual_reward"][age < FIRST].mean()), 3),
        "after": round(float(rows["actual_reward"][is_learned].mean()), 3),
        "version": version,
    }


def main() -> int:
    """Print the figures of each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a run")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    end_like_ctrl_c()
    with tempfile.TemporaryDirectory() as folder:
        for file, text in programs().items():
            (Path(folder) / file).write_text(text, encoding="utf-8")
        for number in range(options.runs):
            run = play(f"bench-readme-{os.getpid()}-{number}", folder)
            if options.json:
                print(json.dumps(run), flush=True)
                continue
            print(
                f"{run['decisions']} decisions in {LEARNING:.0f} s: a mean reward of {run['first_second']:.2f} in the"
                f" first second, {run['after']:.2f} in the {AFTER:.0f} s afterwards",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
