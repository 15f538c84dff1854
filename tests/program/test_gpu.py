"""Tests that need a GPU: python -m pytest -m gpu; scripts/gpu_check.sh runs them. Written without a GPU."""

import pytest
import torch

from data import DataSpec, Shard
from data.in_memory import ArraySplit
from model import build_model
from pruner import PRUNERS, PruningContext, make_plan
from pruner.layers import layers_of
from utils.config.cli import parse
from utils.engine.train import train_step
from utils.engine.update import Update

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available"),
]
WORDS = """--dataset cifar10 --arch resnet20 --seed 0 --stage_pr [0,0.5,0.5,0.5,0] --update_reg_interval 3
    --reg_granularity_pick 0.002 --reg_granularity_prune 0.1 --stabilize_reg_interval 6"""


class PruningRun:
    """Network, pruner and data on one device."""

    def __init__(self, method: str, device: str):
        self.device = torch.device(device)
        options, _ = parse([*WORDS.split(), "--method", method])
        torch.manual_seed(0)
        model = build_model("resnet20", 10, 3, 32)
        plan = make_plan(layers_of(model), options.stage_pr, "", "filter")
        self.model = model.to(self.device).train()
        self.pruner = PRUNERS[method].build(
            options,
            PruningContext(self.model, plan, PRUNERS[method].make_schedule(options, plan)),
        )
        self.update = Update(torch.optim.SGD(self.model.parameters(), 0.001, 0.9), self.pruner)
        spec = DataSpec("made", 10, 3, 32, (0.5,) * 3, (0.25,) * 3, pad=4, flip=True)
        pixels = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        split = ArraySplit(pixels, torch.arange(64) % 10, spec, self.device)
        self.batches = split.augmented(16, 0, "x", 0, Shard())

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            images, labels, _ = next(self.batches)
            train_step(self.model, images, labels, self.update, step)


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
def test_steps_make_no_host_sync(method):
    run = PruningRun(method, "cuda")
    run.steps(0, 4)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.steps(4, 10)  # with two updates
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
def test_penalties_selections_and_status_equal_those_of_the_cpu(method):
    on_gpu, on_cpu = PruningRun(method, "cuda"), PruningRun(method, "cpu")
    for step in range(200):
        for run in (on_gpu, on_cpu):
            run.steps(step, step + 1)
        for gpu_layer, cpu_layer in zip(on_gpu.pruner.layers, on_cpu.pruner.layers, strict=True):
            assert gpu_layer.updates == cpu_layer.updates
        if on_cpu.pruner.finished:
            break
    assert on_gpu.pruner.finished
    assert on_gpu.pruner.milestones == on_cpu.pruner.milestones
    for name, kept in on_cpu.pruner.kept().items():
        share = (on_gpu.pruner.kept()[name].cpu() == kept).float().mean()
        assert share >= (1.0 if method == "GReg-1" else 0.9)  # nearly equal scores may swap
