"""Run TritonNetwork on the CPU in a process of its own: Triton decides when it is imported whether it interprets.

python -m tests.deployment.run_interpreted CASE.pt RESULT.pt
"""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from deployment.triton_execution import TritonNetwork
from models import build_sr


def main(case_file: str, result_file: str) -> int:
    case = torch.load(case_file, weights_only=True)
    network = build_sr("edsr", 2, case["args"]).eval()
    network.load_state_dict(case["weights"])
    runner = TritonNetwork(network, torch.device("cpu"), torch.float32)
    results = {
        name: runner.run(case["lr"][: len(mask)], mask, 8, halo, case["canvas"][: len(mask)].clone(), max_pixels=400)
        for name, (mask, halo) in case["masks"].items()
    }
    torch.save(results, result_file)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
