"""Training on a CUDA device: time from the end of a step to live weights through pinned staging, and steps per second.

`python benchmarks/cuda.py --json`; exits 2 where there is no CUDA device. Ratios are within this run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

import torch


def publish_us(parameters: int, pinned: bool, rounds: int = 30) -> dict[str, float]:
    """Median microseconds from device weights to a published slot, and of two memcpys of the same bytes."""
    from tandem.shared.memory.control import Control
    from tandem.shared.memory.segments import remove_instance
    from tandem.shared.weights.flat_model import FlatModel
    from tandem.shared.weights.publisher import Publisher
    from tandem.shared.weights.slots import Slots, create_slots

    model = torch.nn.Linear(parameters, 1, bias=False)
    layout_on_cpu = FlatModel(model)
    instance = f"bench-cuda-{os.getpid()}"
    control = Control.create(instance, {"slots": 4, "lanes": 1}, {})
    try:
        create_slots(control, layout_on_cpu.layout, 4)
        control.finish()
        publisher = Publisher(Slots(control, layout_on_cpu.layout))
        flat = FlatModel(torch.nn.Linear(parameters, 1, bias=False).cuda(), torch.device("cuda"))
        staging = torch.empty(flat.layout.data_bytes, dtype=torch.uint8, pin_memory=pinned)
        copies = [torch.empty_like(staging) for _ in range(2)]
        publish, memcpy = [], []
        for version in range(1, rounds + 1):
            torch.cuda.synchronize()
            started = time.perf_counter()
            staging.copy_(flat.flat)
            publisher.publish(staging, version)
            publish.append((time.perf_counter() - started) * 1e6)
            started = time.perf_counter()
            copies[0].copy_(staging)
            copies[1].copy_(copies[0])
            memcpy.append((time.perf_counter() - started) * 1e6)
    finally:
        remove_instance(instance)
        control.close()
    return {"publish_us": round(statistics.median(publish), 1), "two_memcpys_us": round(statistics.median(memcpy), 1)}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device on this machine", file=sys.stderr)
        return 2
    figures = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        **{
            f"{label}_{'pinned' if pinned else 'pageable'}": publish_us(parameters, pinned)
            for label, parameters in (("15k", 15_000), ("1m", 1_000_000), ("25m", 25_000_000))
            for pinned in (True, False)
        },
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:16} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
