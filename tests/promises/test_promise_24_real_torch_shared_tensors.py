"""The weights are torch shared tensors in any process, also after a kill -9 of their creator."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from proof import KIT, figure
from tandem.shared.memory.segments import remove_instance

CODE = """
import sys
sys.path.append({kit!r})
import torch
from channel_kit import attach_channel, is_whole, pattern
made = attach_channel({name!r})
slot = made.slots().data[1]
{tensor}
views = [tensor, tensor[8:16], tensor.view(torch.int64)]
print(all(view.is_shared() for view in views), is_whole(slot, 1))
"""
CASES = {"slot": "tensor = slot", "buffer": "tensor = torch.frombuffer(bytearray(slot.numpy()), dtype=torch.uint8)"}


def seen_by_a_stranger(name: str, nursery: Any, case: str) -> str:
    """What an unrelated process says of the weights after their creator was killed."""
    child = nursery.start("create_and_die", name=name, stay=True).ready()
    child.kill()
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(kit=str(KIT), name=name, tensor=CASES[case])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    remove_instance(name)
    return done.stdout.strip()


def test_promise_24_real_torch_shared_tensors(instance_name: str, nursery: Any) -> None:
    """is_shared() is True of the slots and of their views, and the weights are the creator's."""
    assert seen_by_a_stranger(instance_name, nursery, "slot") == "True True"
    figure(24, "True")


def test_a_copy_in_a_buffer_is_not_shared(instance_name: str, nursery: Any) -> None:
    """The same check sees a tensor that is not shared in torch's sense."""
    assert seen_by_a_stranger(instance_name, nursery, "buffer") == "False True"
