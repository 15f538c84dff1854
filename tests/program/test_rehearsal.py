"""A rehearsal for GPUs without one: whole runs on fake tensors of ``cuda:0``.

Fake tensors have a shape, a type and a device, but no values. Operations on tensors of two devices raise, and reads of
values by the host, which would wait for the GPU, are recorded. Stand-ins replace what needs a driver: events, pinned
memory, random states, backward (gradients are made up), and values where the program reads them. This does not
replace a GPU: kernels, precision and speed are not rehearsed.
"""

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from helpers import ROOT, write_npz_set
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import utils.pipeline.prune
from data import Data
from data.in_memory import ArraySplit
from main import run
from pruner.greg import GReg1
from pruner.penalty import RegularizedLayer
from utils.checkpoint import files
from utils.checkpoint.resume import resolve
from utils.dist.signals import StopSignal
from utils.engine.monitor import TrainingMonitor
from utils.engine.progress import Progress
from utils.pipeline.prepare import Job, prepare

GPU = torch.device("cuda:0")
aten = torch.ops.aten
READS = (aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default)
VALUES = {torch.bool: True, torch.int64: 2**62}  # of what is read: no loss is infinite; other types: a small number
SMALL = 1e-5
COPIES = (aten._to_copy.default, aten.copy_.default)


def is_on_gpu(value: object) -> bool:
    return isinstance(value, Tensor) and value.device == GPU


def place() -> str:
    """Return the line of the program that is being executed."""
    frame = sys._getframe(1)
    while frame and (
        frame.f_code.co_filename == __file__
        or not frame.f_code.co_filename.startswith((str(ROOT / "pruner"), str(ROOT / "utils"), str(ROOT / "data")))
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.removeprefix(str(ROOT))}:{frame.f_lineno}" if frame else "?"


class HostReads(TorchDispatchMode):
    """Answer reads of fake values, and record those that wait for the GPU.

    Attributes:
        waits: lines of the program that have waited for the GPU, since they were cleared.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in READS:
            self.waits += [place()] * is_on_gpu(args[0])
            return VALUES.get(args[0].dtype, SMALL)
        if "_foreach" in func.name():  # whose devices fake tensors do not compare
            devices = {leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim}
            assert len(devices) == 1, f"{func} mixes devices: {devices}"
        out = func(*args, **kwargs)
        if func in COPIES:
            source = args[1] if func is aten.copy_.default else args[0]
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            crosses = isinstance(out, Tensor) and source.device != out.device and source.numel() > 1
            self.waits += [place()] * (crosses and blocking)
        return out


class Event:
    """Stand-in for ``torch.cuda.Event``."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def backward(loss: Tensor) -> None:
    """Make up the gradients of all parameters that `loss` depends on."""
    seen, stack = set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parameter = getattr(node, "variable", None)
        if parameter is not None:
            parameter.grad = torch.empty_like(parameter)
        stack += [following for following, _ in node.next_functions]


def deep_copy(tensor: Tensor, memo: dict) -> Tensor:
    """Stand-in for ``Tensor.__deepcopy__``, which overwrites other memory with fake tensors (torch 2.14)."""
    if id(tensor) not in memo:
        copied = tensor.detach().clone()
        memo[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
    return memo[id(tensor)]


class CutTensor:
    """Stand-in for the cut of a tensor in place, which ends the process on fake tensors: it replaces the tensor."""

    def __init__(self, model: nn.Module):
        self.model, self.replaced = model, dict[int, Tensor]()

    def __call__(self, tensor: Tensor, dim: int, index: Tensor, optimizer: object) -> None:
        before = self.replaced.get(id(tensor), tensor)
        after = before.detach().index_select(dim, index.to(before.device))
        if isinstance(tensor, nn.Parameter):
            after = nn.Parameter(after)
        self.replaced[id(tensor)] = after
        for module in self.model.modules():
            for tensors in (module._parameters, module._buffers):
                tensors.update({name: after for name, held in tensors.items() if held is before})


def half_of(tensor: Tensor) -> np.ndarray:
    """Stand-in for ``Tensor.numpy``: of a mask, half are True, as with ratios of 0.5."""
    if not isinstance(tensor, FakeTensor):
        return to_numpy(tensor)
    assert tensor.device.type == "cpu"
    if tensor.dtype is torch.bool:
        n = tensor.numel()
        return (np.arange(n) >= -(-n // 2)).reshape(tensor.shape)
    return np.zeros(tensor.shape, dtype=np.float32)


to_numpy = Tensor.numpy


@dataclass
class Rehearsal:
    """A run on fake tensors.

    Attributes:
        waits_by_step: what waited for the GPU in each training step without a line of progress, decision, test or
            checkpoint.
        saved: contents of checkpoints, by name.
    """

    job: Job
    waits_by_step: list[list[str]] = field(default_factory=list)
    saved: dict[str, dict] = field(default_factory=dict)


@pytest.fixture
def rehearse(tmp_path, monkeypatch) -> Iterator:
    """Return a function that rehearses the command of the given words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    for where in (torch, torch.random, torch.cuda):
        monkeypatch.setattr(where, "get_rng_state", lambda *_: torch.empty(0))
        monkeypatch.setattr(where, "set_rng_state", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "no GPU")
    for kind in (Tensor, nn.Parameter):
        monkeypatch.setattr(kind, "__deepcopy__", deep_copy)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(utils.pipeline.prune, "N_SNAPSHOTS", 1)  # else one at each of so few steps
    monkeypatch.setattr(Tensor, "numpy", half_of)
    monkeypatch.setattr(sys.modules["pruner.proof"], "_ordinary_size", lambda outputs: 1.0)  # needs values

    def call(*words: object, sync_bn: bool = False) -> Rehearsal:
        images = write_npz_set(tmp_path / "images", size=32)
        given = (
            f"--dataset npz --data_path {images} --seed 1 --device cpu --amp none --no-channels_last --allow_untrained"
        )
        job = prepare(resolve([*given.split(), *map(str, words)]), StopSignal())
        summary = job.data.summary
        rehearsal = Rehearsal(job)
        monkeypatch.setattr(
            files, "save", lambda path, content, *_: rehearsal.saved.update({path.name: content.to_file()})
        )
        with FakeTensorMode(allow_non_fake_inputs=True), HostReads() as reads:
            options = replace(job.options, sync_bn=sync_bn)
            rehearsal.job = replace(job, options=options, device=GPU, data=data_on_gpu(job.data, summary))
            watch(monkeypatch, reads, rehearsal)
            monkeypatch.setattr(sys.modules["pruner.cut"], "_cut_tensor", CutTensor(job.model))
            with closing(job.run):
                run(rehearsal.job)
        return rehearsal

    return call


def data_on_gpu(data: Data, summary: str) -> Data:
    train, test = (ArraySplit(part.images, part.labels, data.spec, GPU) for part in (data.train, data.test))
    moved = Data(data.spec, train, test, 1, class_names=data.class_names, fingerprint=data.fingerprint)
    moved.summary = summary
    return moved


def watch(monkeypatch, reads: HostReads, rehearsal: Rehearsal) -> None:
    """Record what waits in each training step between two lines of progress."""
    enter, after_step, due = TrainingMonitor.__enter__, TrainingMonitor.after_step, Progress.due
    decisions, printed = [0], [False]

    def is_due(progress):
        printed[0] = due(progress)
        return printed[0]

    def entered(monitor):
        reads.waits.clear()
        return enter(monitor)

    def watched(monitor, step, epoch, marks=()):
        if not (marks or printed[0]) and monitor._hooks.decisions == decisions[0]:
            rehearsal.waits_by_step.append(list(reads.waits))
        after_step(monitor, step, epoch, marks)
        decisions[0] = monitor._hooks.decisions
        reads.waits.clear()

    monkeypatch.setattr(Progress, "due", is_due)
    monkeypatch.setattr(TrainingMonitor, "__enter__", entered)
    monkeypatch.setattr(TrainingMonitor, "after_step", watched)


RARELY = ("--print_interval", 10**6, "--print_freq", 10**6, "--test_interval", 10**6, "--save_interval", 10**6)
LONGER = (
    "--batch_size_prune", 8, "--update_reg_interval", 2, "--reg_granularity_prune", 0.25,
    "--reg_granularity_pick", 0.004, "--stabilize_reg_interval", 8,
)  # fmt: skip
KINDS = (("resnet20", "filter"), ("vgg11", "channel"), ("resnet20", "weight"))
CASES = [
    *((method, arch, kind) for method in ("GReg-1", "GReg-2") for arch, kind in KINDS),
    ("FixReg", "resnet20", "filter"), ("L1", "resnet20", "filter"),
]  # fmt: skip


def words_for(method: str, arch: str, kind: str) -> tuple[object, ...]:
    ratios = "[0,0.5,0.5,0.5,0]" if arch == "resnet20" else "[2-6:0.5]"
    pruning = ("--method", method, "--arch", arch, "--wg", kind, "--stage_pr", ratios)
    return (
        *pruning,
        *(LONGER if method != "L1" else ()),
        "--epochs",
        2,
        "--batch_size",
        16,
        "--lr_ft",
        "0:0.01",
        *RARELY,
    )


@pytest.mark.parametrize(("method", "arch", "kind"), CASES)
def test_a_run_on_a_gpu_mixes_no_devices_and_waits_in_no_step(rehearse, method, arch, kind):
    done = rehearse(*words_for(method, arch, kind))
    assert len(done.waits_by_step) >= (12 if method != "L1" else 3)
    assert done.waits_by_step == [[]] * len(done.waits_by_step)
    assert {"checkpoint_just_finished_prune.pth", "pruned_model.pth", "checkpoint.pth"} <= done.saved.keys()
    for content in done.saved.values():
        assert all(is_on_gpu(tensor) for tensor in content["model"].values())


def test_a_run_with_synchronized_batch_norm(rehearse):
    done = rehearse(*words_for("GReg-1", "resnet20", "filter"), sync_bn=True)
    norms = [module for module in done.job.model.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 19
    weights = done.saved["pruned_model.pth"]["model"]
    assert weights["layer1.0.conv1.weight"].shape == (8, 16, 3, 3)
    assert weights["layer1.0.bn1.weight"].shape == (8,)


def test_the_rehearsal_finds_a_wait(rehearse, monkeypatch):
    after_backward = GReg1.after_backward

    def waits(pruner):
        after_backward(pruner)
        assert pruner.layers[0].weight.sum().item() == SMALL

    monkeypatch.setattr(GReg1, "after_backward", waits)
    done = rehearse(*words_for("GReg-1", "resnet20", "filter"))
    assert sum(map(bool, done.waits_by_step)) >= 12


def test_the_rehearsal_finds_a_mixture_of_devices(rehearse, monkeypatch):
    monkeypatch.setattr(RegularizedLayer, "new_factor", lambda layer: torch.zeros(len(layer.weight), 1, 1, 1))
    with pytest.raises(AssertionError, match="mixes devices"):
        rehearse(*words_for("GReg-1", "resnet20", "filter"))
