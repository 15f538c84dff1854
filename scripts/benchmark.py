#!/usr/bin/env python3
"""Seconds and memory of setting up a pruner: python scripts/benchmark.py [flags of main.py]

Without flags: GReg-2 on ResNet50's 25.5 million weights (table 4). Printed are the plan, the pruner (L1's pick
included) and GReg-2's own pick, without data and without reading weights; the largest memory is the process's.
"""

import resource
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from data import describe
from model import build_model
from pruner import PRUNERS, Setting
from utils.cost import example
from utils.options import parse
from utils.planning import plan_run

TABLE_4 = "--dataset imagenet --arch resnet50 --method GReg-2 --wg weight --stage_pr [0,0.827,0.827,0.827,0.827,0.827]"


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(words: list[str]) -> dict[str, float]:
    """Seconds of each part, and the memory at its end in GB."""
    options, _ = parse([*(words or TABLE_4.split()), "--seed", "0"])
    spec = describe(options.dataset, options.data_path)
    model = build_model(options.arch, spec.classes, spec.channels, spec.size)
    figures = {"memory before, GB": peak_gb()}

    began = time.perf_counter()
    planned = plan_run(options, spec)
    figures["plan, s"] = time.perf_counter() - began

    began = time.perf_counter()
    image = example(model, spec.channels, spec.size)
    setting = Setting(model, planned.plan, None, lambda *_: 0.0, image)
    pruner = PRUNERS[options.method].build(options, setting)
    figures["pruner, s"] = time.perf_counter() - began

    if planned.schedule and planned.schedule.picks_later:
        began = time.perf_counter()
        steps = planned.schedule.picked_at + 1
        for step in range(steps - planned.schedule.update_every_steps, steps):
            pruner.before_step(step)  # an update while picking
        for layer in pruner.layers:
            layer.updates = planned.schedule.updates_to_pick - 1
        pruner.before_step(planned.schedule.picked_at)
        figures["GReg-2's pick, s"] = time.perf_counter() - began
    figures["memory at the end, GB"] = peak_gb()
    print(
        f"{options.method}, {options.arch}, {options.wg}s, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for name, value in figures.items():
        print(f"  {name:24} {value:6.2f}")
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
