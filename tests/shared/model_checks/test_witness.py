"""Another process is asked which logits some weights give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).parents[2] / "kit"

PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
from tandem.shared.model_checks.witness import witness
from tandem.shared.weights.flat_model import FlatModel
from user_models import Plain

def fail():
    raise ValueError("not here")

torch.set_num_threads(1)
rows = [torch.rand(2, 4), torch.rand(3, 4)]
for build in (Plain, fail, lambda: torch.nn.Linear(9, 9), lambda: os._exit(3)):
    with witness(build) as other:
        flat = FlatModel(Plain())
        answers = other.logits(flat.flat, rows)
        if answers is None:
            print("no answer")
        else:
            with torch.inference_mode():
                ours = [flat.model(some)[0] for some in rows]
            print(*(torch.equal(mine, torch.from_numpy(heads[0])) for mine, heads in zip(ours, answers)))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("nobody is left")
"""


def test_another_process_answers_or_not() -> None:
    """Its model has other weights of its own and computes with those it is given; if it fails, or builds another model,
    nobody waits for it. Nothing is left of it."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(KIT)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["True True", "no answer", "no answer", "no answer", "nobody is left"]
    assert result.stderr == ""
