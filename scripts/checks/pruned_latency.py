#!/usr/bin/env python3
"""Measure networks pruned to 2x, one image on one thread: python scripts/checks/pruned_latency.py

Prints the table of BENCHMARKS.md. Weights are random; times are medians, dense and pruned in turn.
"""

import argparse
import copy
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from model import build_model
from model.cost import cost_of
from pruner import L1
from scripts.export import Run, write_exported

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "vgg16")
SPEEDUP, ROUNDS = 2.0, 15


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("| network | kept in multiples of | FLOPs | parameters | PyTorch | onnxruntime |\n|---|---|---|---|---|---|")
    image = torch.randn(1, 3, 224, 224)
    for arch in NETWORKS:
        dense = build_model(arch, 1000, 3, 224).eval()
        for round_to in (1, 8):
            with torch.enable_grad():
                pruned = L1(copy.deepcopy(dense), image, speedup=SPEEDUP, round_to=round_to).cut().eval()
            costs = [cost_of(network, 3, 224) for network in (dense, pruned)]
            with tempfile.TemporaryDirectory() as folder:
                both = image.repeat(2, 1, 1, 1)
                exported = [
                    write_exported(net, both, Path(folder) / f"{i}.onnx") for i, net in enumerate((dense, pruned))
                ]
                cells = [gain(dense, pruned, image), gain(exported[0], exported[1], image)]
            ratios = [f"{getattr(costs[0], key) / getattr(costs[1], key):.2f}x" for key in ("flops", "params")]
            print(f"| {arch} | {round_to} | {' | '.join([*ratios, *cells])} |", flush=True)


def gain(dense: Run, pruned: Run, image: torch.Tensor) -> str:
    """Time both in turn; return milliseconds before and after, and their ratio."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for i, run in enumerate((dense, pruned)):
            began = time.perf_counter()
            run(image)
            times[i].append(1000 * (time.perf_counter() - began))
    before, after = (median(values[2:]) for values in times.values())
    return f"{before:.1f} -> {after:.1f} ms, {before / after:.2f}x"


if __name__ == "__main__":
    main()
