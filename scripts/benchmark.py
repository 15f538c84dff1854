#!/usr/bin/env python3
"""Measure costs as ratios: python scripts/benchmark.py [--quick] [--json] [--only WORD]

Most rows are the median ratio of two operations timed alternately in this run, with a 95 % interval from order
statistics (with fewer than six rounds, the range). Such ratios are comparable between machines. The rows of set-up, cut
and proof are seconds over a limit, which depend on the machine. A goal is met when the median meets it; a missed one
does not change the exit code. Progress is on stderr.

A new part is a function in PARTS. Goals are promises of the project: do not loosen one to meet it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch_pruning as tp
from PIL import Image
from scipy.stats import binom
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from data import DataSpec, Shard
from data.image_folder import FolderSplit
from data.in_memory import ArraySplit
from data.spec import IMAGENET_MEAN, IMAGENET_STD
from model import build_model
from model.cost import cost_of, example
from pruner import PRUNERS, Hooks, Pruner, PruningContext, cut, make_plan
from pruner.layers import layers_of, traced_layers
from pruner.proof import prove
from pruner.ratios import GlobRatios, plan_by_name
from pruner.structure import Structure
from utils.config.cli import parse
from utils.config.options import Options
from utils.dist.device import keep_freed_memory
from utils.engine.precision import COMPILED_MODELS, CompiledModel, resolve_auto, to_memory_format
from utils.engine.train import train_step
from utils.engine.update import Update

ROOT = Path(__file__).resolve().parent.parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Goals for steps with a penalty over plain ones, by kind of group.
OVERHEAD = {"filter": 1.02, "weight": 1.02} if DEVICE.type == "cuda" else {"filter": 1.005, "weight": 1.02}
UPDATES = 200  # timed for the penalty's share of a step
FILE_BATCHES = 60  # of 32 images, read from files in one timing
CACHE_BYTES = 2**26  # written between two updates, as a backward pass does, so that no weight is left in a cache


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        ratio, low, high: median and its 95 % interval.
        goal: ``<= 1.01``, ``>= 4``, or empty where there is none.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: str
    met: bool | None


def row(name: str, ratios: list[float], goal: str = "") -> Row:
    ordered, n = sorted(ratios), len(ratios)
    k = int(binom.ppf(0.025, n, 0.5))  # ratios beyond each end, 95 times in 100
    low, high = ordered[max(k - 1, 0)], ordered[min(n - k, n - 1)]
    relation, _, limit = goal.partition(" ")
    middle = statistics.median(ratios)
    met = {"<=": lambda: middle <= float(limit), ">=": lambda: middle >= float(limit), "": lambda: None}[relation]()
    return Row(name, middle, low, high, goal, met)


def seconds(call: Callable[[], object]) -> float:
    """Time one call, until the GPU has finished."""
    began = time.perf_counter()
    call()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def time_alternately(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each call reports, in `rounds` rounds after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            took = call()
            if i:
                times[name].append(took)
    return times


def ratios(over: list[float], under: list[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


# networks and steps

STAGE_PR = {"resnet50": "[0,0.5,0.5,0.5,0.5,0]", "vgg19": "[1-15:0.5]"}
RESIDUAL = "[0,0.5,0.5,0.5,0]"


class Bench:
    """A network, an optimizer and a batch, so that two timings differ in the pruner or the precision alone."""

    def __init__(self, arch: str, batch: int, kind: str = "filter", plain: bool = False):
        dataset, self.size, classes = ("imagenet", 224, 1000) if arch == "resnet50" else ("cifar10", 32, 10)
        words = f"--dataset {dataset} --arch {arch} --wg {kind} --method GReg-1 --update_reg_interval 10 --seed 0"
        words += f" --stage_pr {STAGE_PR.get(arch, RESIDUAL)}" + (" --amp none --no-channels_last" if plain else "")
        self.options: Options = resolve_auto(parse(words.split())[0], DEVICE)
        torch.manual_seed(0)
        self.model = to_memory_format(build_model(arch, classes, 3, self.size).to(DEVICE), self.options).train()
        self.images = torch.randn(batch, 3, self.size, self.size, device=DEVICE)
        self.labels = torch.randint(0, classes, (batch,), device=DEVICE)
        self.count = 0

    def update(self, hooks: Hooks, compiled: bool = False) -> Update:
        return Update(torch.optim.SGD(self.model.parameters(), 0.001, 0.9, weight_decay=5e-4), hooks, compiled)

    @property
    def structure(self) -> Structure:
        return Structure(self.model, example(self.model, 3, self.size))

    def pruner(self, method: str, stabilizes: bool = False) -> Pruner:
        plan = make_plan(layers_of(self.model), self.options.stage_pr, "", self.options.wg)
        limit = parse(["--dataset=digits", f"--reg_upper_limit={0 if stabilizes else 1}"])[0].reg_upper_limit
        options = replace(self.options, method=method, reg_upper_limit=limit, reg_upper_limit_pick=limit)
        schedule = PRUNERS[method].make_schedule(options, plan)
        context = PruningContext(self.model, plan, schedule, structure=self.structure)
        pruner = PRUNERS[method].build(options, context)
        pruner.before_step(0)
        assert pruner.status == ("stabilizing" if stabilizes else "growing")
        return pruner

    def step(self, update: Update, net: nn.Module | None = None) -> float:
        """Return the seconds of a step plus a tenth of an update of λ, as with K_u = 10."""
        self.count += 1
        grow = seconds(lambda: update.hooks.before_step(10 * self.count))
        step, amp = 10 * self.count + 1, self.options.amp
        net = net or self.model
        return grow / 10 + seconds(lambda: train_step(net, self.images, self.labels, update, step, amp=amp))

    def weights_only(self, update: Update) -> float:
        """Return the seconds from gradients to weights plus a tenth of an update of λ."""
        self.count += 1
        grow = seconds(lambda: update.hooks.before_step(10 * self.count))
        torch.ones(CACHE_BYTES // 4, device=DEVICE)
        return grow / 10 + seconds(update)


def penalty_overhead(quick: bool) -> Iterator[Row]:
    """Compare steps with penalties, GReg's and Torch-Pruning's GrowingReg, with plain SGD steps."""
    if quick:
        yield from overhead_of("resnet56", 128, "filter", 6)
        return
    for arch, batch in (("resnet56", 128), ("vgg19", 128), ("resnet50", 16)):
        for kind in ("filter", "weight"):
            yield from overhead_of(arch, batch, kind, 10)


def overhead_of(arch: str, batch: int, kind: str, pairs: int) -> Iterator[Row]:
    bench = Bench(arch, batch, kind)
    plain = bench.update(Pruner())
    updates = {
        "GReg-1 in update": bench.update(bench.pruner("GReg-1")),
        "GReg-2 in update": bench.update(bench.pruner("GReg-2")),
        "GReg in stabilise": bench.update(bench.pruner("GReg-1", stabilizes=True)),
    }
    goal = f"<= {OVERHEAD[kind]}"
    title = f"penalty: {arch}, {kind}s, batch {batch}"
    ours = dict(updates)
    if kind == "filter":
        updates["Torch-Pruning's GrowingReg"] = bench.update(torch_pruning_of(bench))
    calls = {name: partial(bench.step, update) for name, update in (("plain", plain), *updates.items())}
    times = time_alternately(calls, pairs)
    for name in updates:
        yield row(f"{title}: {name} / plain step", ratios(times[name], times["plain"]))
    step = statistics.median(times["plain"])
    calls = {name: partial(bench.weights_only, update) for name, update in (("plain", plain), *ours.items())}
    times = time_alternately(calls, UPDATES)
    for name in ours:
        extra = [1 + (a - b) / step for a, b in zip(times[name], times["plain"], strict=True)]
        yield row(f"{title}: {name}: 1 + share inside the step, {UPDATES} steps", extra, goal)


def torch_pruning_of(bench: Bench) -> Pruner:
    """Build Torch-Pruning's GrowingReg, called where our pruners are."""
    last = [module for module in bench.model.modules() if isinstance(module, nn.Linear)][-1]
    importance, image = tp.importance.GroupMagnitudeImportance(), example(bench.model, 3, bench.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = tp.pruner.GrowingRegPruner(bench.model, image, importance, pruning_ratio=0.5, ignored_layers=[last])
    bench.model.train()
    peer.update_reg()

    class Peer(Pruner):
        def after_backward(self) -> None:
            peer.regularize(bench.model)

    return Peer()


def training_speed(quick: bool) -> Iterator[Row]:
    """Compare steps with the default precision and memory format with eager float32 in contiguous format."""
    nets = [("resnet20", 128, ""), ("resnet56", 128, ">= 1.8"), ("vgg19", 128, ""), ("resnet50", 16, "")]
    for arch, batch, goal in [("resnet56", 32, ">= 1.8")] if quick else nets:
        plain, default = Bench(arch, batch, plain=True), Bench(arch, batch)
        calls = {
            name: partial(bench.step, bench.update(Pruner()))
            for name, bench in (("plain", plain), ("default", default))
        }
        times = time_alternately(calls, 5 if quick else 10)
        how = f"{default.options.amp}, channels_last {default.options.channels_last}"
        yield row(
            f"training: {arch}, batch {batch}: eager float32 step / default ({how})",
            ratios(times["plain"], times["default"]), goal if DEVICE.type == "cpu" else "",
        )  # fmt: skip


def kept_memory(quick: bool) -> Iterator[Row]:
    """Compare GReg-1's steps that return freed memory to the system, glibc's default, with steps that keep it."""
    if DEVICE.type == "cuda":
        return
    n_cores = len(os.sched_getaffinity(0))
    for arch, threads in [("resnet20", n_cores)] if quick else product(("resnet20", "resnet56"), (1, n_cores)):
        rounds = [[step_in_process(arch, threads, keep) for keep in (False, True)] for _ in range(2 if quick else 5)]
        title = f"memory: {arch}, batch 128, {threads} threads: step with freed memory returned / kept"
        yield row(title, [returned / kept for returned, kept in rounds])


def step_in_process(arch: str, threads: int, keep: bool) -> float:
    """Return the median seconds of 12 steps in a process of its own."""
    code = f"from scripts.benchmark import time_steps; time_steps({arch!r}, {keep}, 12)"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return float(ran.stdout)


def time_steps(arch: str, keep: bool, n: int) -> None:
    """Print the median seconds of `n` steps of GReg-1."""
    if keep:
        keep_freed_memory()
    bench = Bench(arch, 128)
    update = bench.update(bench.pruner("GReg-1"))
    print(statistics.median([bench.step(update) for _ in range(n + 2)][2:]))


def compiled_speed(quick: bool) -> Iterator[Row]:
    """Compare eager steps and tests with compiled ones, GReg-1's penalty included."""
    nets = [("resnet20", 128), ("resnet56", 128), ("vgg19", 128), ("resnet50", 16)]
    for arch, batch in [] if quick else nets:
        bench = Bench(arch, batch)
        net = CompiledModel(bench.model, batch)
        update, compiled = (bench.update(bench.pruner("GReg-1"), compiled) for compiled in (False, True))
        calls = {"eager": partial(bench.step, update), "compiled": partial(bench.step, compiled, net)}
        goal = ">= 1.25" if arch in COMPILED_MODELS and DEVICE.type == "cpu" else ""
        times = time_alternately(calls, 20 if arch in COMPILED_MODELS else 6)
        yield row(
            f"compile: {arch}, batch {batch}: default step / compiled", ratios(times["eager"], times["compiled"]), goal
        )
        calls = {
            "eager": partial(forward, bench.model.eval(), bench.images),
            "compiled": partial(forward, net.eval(), bench.images),
        }
        times = time_alternately(calls, 10)
        yield row(f"compile: {arch}, batch {batch}: default test / compiled", ratios(times["eager"], times["compiled"]))


# data loading


class _ArrayImages(Dataset):
    """CIFAR as torchvision stores it: an array, converted to a PIL image at each access."""

    def __init__(self, images: np.ndarray, transform):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.transform(Image.fromarray(self.images[i])), 0


def seconds_per_image(batches: Iterator, n: int, batch: int) -> float:
    """Return the seconds per image over `n` batches, after a first one."""
    next(batches)
    return seconds(lambda: [next(batches) for _ in range(n)]) / (n * batch)


def feeding(quick: bool) -> Iterator[Row]:
    """Compare our loaders with torchvision's transforms in a DataLoader, on the same cores."""
    finish = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    workers, rounds = len(os.sched_getaffinity(0)), 3 if quick else 7
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8)
    spec = DataSpec("noise", 10, 3, 32, IMAGENET_MEAN, IMAGENET_STD, pad=4, flip=True)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    ours = ArraySplit(images, torch.zeros(len(images)).long(), spec, DEVICE).augmented(128, 0, "x", 0, Shard())
    theirs = transforms.Compose([transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), *finish])
    loader = DataLoader(_ArrayImages(pixels, theirs), 128, shuffle=True, num_workers=workers)
    times = time_alternately(
        {"ours": lambda: seconds_per_image(ours, 100, 128), "theirs": lambda: seconds_per_image(iter(loader), 40, 128)},
        rounds,
    )
    speedups = ratios(times["theirs"], times["ours"])
    yield row("feeding: 32 px from memory: our images/s / torchvision's", speedups, ">= 4")

    with tempfile.TemporaryDirectory() as folder:
        for width in (500, 224):
            tree = Path(folder, str(width))
            write_photographs(tree / "class", 256, width)
            times = files_seconds(tree, workers, rounds)
            speedups = ratios(times["theirs"], times["ours"])
            yield row(f"feeding: 224 px from files of {width} px: our images/s / torchvision's", speedups, ">= 1.5")
        bench = Bench("resnet50", 16)
        step_seconds = time_alternately({"step": partial(bench.step, bench.update(Pruner()))}, rounds)["step"]
        margins = ratios([step / 16 for step in step_seconds], times["ours"])
        yield row("feeding: 224 px from files: images/s / what a ResNet50 trains on", margins, ">= 1")


def files_seconds(folder: Path, workers: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds per training image of our loader and of torchvision's reference, with as many workers."""
    spec = DataSpec("photographs", 10, 3, 224, IMAGENET_MEAN, IMAGENET_STD, flip=True)
    theirs = transforms.Compose([
        transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip
    tree = ImageFolder(folder, theirs)
    split = FolderSplit(tree.samples, spec, DEVICE, workers)

    def theirs_from_files() -> float:
        endless = RandomSampler(tree, num_samples=10**6)  # as ours: the end of an epoch would leave workers idle
        return seconds_per_image(iter(DataLoader(tree, 32, sampler=endless, num_workers=workers)), FILE_BATCHES, 32)

    calls = {
        "ours": lambda: seconds_per_image(split.augmented(32, 0, "x", 0, Shard()), FILE_BATCHES, 32),
        "theirs": theirs_from_files,
    }
    return time_alternately(calls, rounds)


def write_photographs(folder: Path, n: int, width: int) -> None:
    """Write JPEG files as smooth as photographs, 4 : 3."""
    folder.mkdir(parents=True)
    dice = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(dice.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)


# set-up, cut, measured speedup, scale


def weight_setup(arch: str) -> tuple[float, int]:
    """Return the seconds to select and apply masks of single weights, and the number of weights."""
    model = build_model(arch, 1000, 3, 224)
    words = f"--dataset imagenet --arch {arch} --method L1 --wg weight --stage_pr [0,0.8,0.8,0.8,0.8,0.8]"
    options, _ = parse(words.split())

    def masks() -> None:
        plan = make_plan(layers_of(model), options.stage_pr, "", "weight")
        context = PruningContext(model, plan)
        cut(model, PRUNERS["L1"].build(options, context).kept(), "weight", None)

    return seconds(masks), sum(p.numel() for p in model.parameters())


def setup(quick: bool) -> Iterator[Row]:
    """Compare the seconds of set-up and cut with their limits, and their growth with the size of the network."""
    rounds = 1 if quick else 5
    large = [weight_setup("resnet50") for _ in range(rounds)]
    yield row("set-up: single weights of a ResNet50: seconds / 2 s", [t / 2 for t, _ in large], "<= 1")
    small = [weight_setup("resnet18") for _ in range(rounds)]
    per_weight = [a / n / (b / m) for (a, n), (b, m) in zip(large, small, strict=True)]
    yield row("set-up: per weight, ResNet50 / ResNet18", per_weight, "<= 1.5")
    for arch in ("resnet56",) if quick else ("resnet56", "vgg19", "resnet50"):
        yield row(f"cut: {arch}: seconds / 5 s", [cut_of(arch)[0] / 5 for _ in range(rounds)], "<= 1")
    yield row("cut: densenet121, by trace: seconds / 0.5 s", [cut_by_trace() / 0.5 for _ in range(rounds)], "<= 1")
    yield row("proof: resnet50 at 224 px: seconds / 10 s", [proof_of_resnet50() / 10 for _ in range(rounds)], "<= 1")
    words = [sys.executable, str(ROOT / "main.py"), "--dataset=imagenet", "--arch=resnet50", "--method=L1", "--plan",
             f"--stage_pr={STAGE_PR['resnet50']}"]  # fmt: skip
    plans = [seconds(lambda: subprocess.run(words, check=True, capture_output=True)) / 5 for _ in range(rounds)]
    yield row("set-up: import and --plan of a ResNet50: seconds / 5 s", plans, "<= 1")


def cut_by_trace() -> float:
    """Return the seconds to cut half of the filters of all 120 free layers of a DenseNet121."""
    model = build_model("densenet121", 1000, 3, 224)
    structure = Structure(model, example(model, 3, 224))
    kept = {name: torch.arange(layer.units) % 2 == 0 for name, layer in structure.layers.items() if layer.units}
    return seconds(lambda: cut(model, kept, "filter", structure))


def proof_of_resnet50() -> float:
    """Return the seconds to prove the cut of half of the free filters, with the trace."""
    model = build_model("resnet50", 1000, 3, 224)

    def proof() -> None:
        structure = Structure(model, example(model, 3, 224))
        plan = plan_by_name(traced_layers(structure), GlobRatios("*:0.5"), "filter")
        prove(model, plan, structure, example(model, 3, 224))

    return seconds(proof)


def cut_of(arch: str) -> tuple[float, nn.Module, nn.Module]:
    """Return the seconds of the cut, the dense network and the cut network."""
    dense, bench = Bench(arch, 1).model, Bench(arch, 1)
    kept = bench.pruner("GReg-1").kept()
    return (
        seconds(lambda: cut(bench.model, kept, "filter", bench.structure)),
        dense,
        to_memory_format(bench.model, bench.options),
    )


def what_pruning_buys(quick: bool) -> Iterator[Row]:
    """Measure the speedup of the cut network, which differs from the ratio of FLOPs."""
    for arch in ("resnet56",) if quick else ("resnet56", "vgg19", "resnet50"):
        _, dense, pruned = cut_of(arch)
        size = 224 if arch == "resnet50" else 32
        flops = cost_of(dense, 3, size).flops / cost_of(pruned, 3, size).flops
        for batch in (1, 16 if arch == "resnet50" else 128):
            images = torch.randn(batch, 3, size, size, device=DEVICE)
            nets = {"dense": dense.eval(), "cut": pruned.eval()}
            times = time_alternately(
                {name: partial(forward, net, images) for name, net in nets.items()}, 5 if quick else 20
            )
            title = f"buys: {arch}, {flops:.2f}x in FLOPs, batch {batch}: dense / cut"
            yield row(title, ratios(times["dense"], times["cut"]))


@torch.no_grad()
def forward(net: nn.Module, images: Tensor) -> float:
    return seconds(lambda: net(images))


def epoch_seconds(n: int) -> float:
    bench = Bench("resnet20", 1)
    spec = DataSpec("noise", 10, 3, 32, IMAGENET_MEAN, IMAGENET_STD, pad=4, flip=True)
    split = ArraySplit(torch.zeros(n, 3, 32, 32, dtype=torch.uint8), torch.zeros(n).long(), spec, DEVICE)
    batches = split.augmented(64, 0, "x", 0, Shard())
    update = bench.update(Pruner())

    def epoch() -> None:
        for step in range(n // 64):
            images, labels, _ = next(batches)
            train_step(bench.model, images, labels, update, step, None, bench.options.amp)

    next(batches)
    return seconds(epoch)


def scale(quick: bool) -> Iterator[Row]:
    """Measure cost per image by the size of the data set, and throughput by the number of processes."""
    sizes = (512, 1024, 2048)
    times = time_alternately({str(n): partial(epoch_seconds, n) for n in sizes}, 2 if quick else 5)
    for n in sizes[1:]:
        per_image = [512 / n * ratio for ratio in ratios(times[str(n)], times["512"])]
        yield row(f"scale: {n // 512} times the images: cost per image / of 512 images", per_image, "<= 1.1")
    if len(os.sched_getaffinity(0)) > 1:
        rounds = [(images_per_second(2), images_per_second(1)) for _ in range(1 if quick else 3)]
        yield row("scale: two processes of one thread / one process: images/s", [two / one for two, one in rounds])


def images_per_second(processes: int) -> float:
    """Return the throughput of a run on the digits, from its report."""
    words = """--dataset digits --arch resnet20 --method none --epochs 2 --batch_size 128 --lr 0.01 --seed 0
        --device cpu"""
    with tempfile.TemporaryDirectory() as cwd:
        start = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"] if processes > 1 else []
        subprocess.run(
            [sys.executable, *start, str(ROOT / "main.py"), *words.split()], cwd=cwd, check=True, capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        (report,) = Path(cwd).glob("Experiments/*/log/report.json")
        return json.loads(report.read_text())["images_per_second"]["finetune"]


PARTS = (penalty_overhead, training_speed, kept_memory, compiled_speed, feeding, setup, what_pruning_buys, scale)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="two minutes: fewer networks, wider intervals, no compilation"
    )
    parser.add_argument("--json", action="store_true", help="print a list of {name, ratio, low, high, goal, met}")
    parser.add_argument(
        "--only",
        default="",
        metavar="WORD",
        help=f"parts whose name contains WORD: {', '.join(part.__name__ for part in PARTS)}",
    )
    args = parser.parse_args()
    if not any(args.only in part.__name__ for part in PARTS):
        parser.error(
            f"--only {args.only}: no part has this in its name; there are {', '.join(p.__name__ for p in PARTS)}"
        )
    keep_freed_memory()
    rows, began = [], time.monotonic()
    print(f"torch {torch.__version__}, {device_name()}, {torch.get_num_threads()} threads", file=sys.stderr)
    for part in PARTS:
        if args.only not in part.__name__:
            continue
        for one in part(args.quick):
            rows.append(one)
            print(f"{time.monotonic() - began:6.0f} s  {line(one)}", file=sys.stderr, flush=True)
    print(json.dumps([asdict(one) for one in rows]) if args.json else "\n".join(map(line, rows)))
    return 0


def device_name() -> str:
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else torch.backends.cpu.get_cpu_capability()


def line(one: Row) -> str:
    digits = 3 if one.ratio < 10 else 1
    goal = f"  goal {one.goal}: {'met' if one.met else 'MISSED'}" if one.goal else ""
    return f"{one.name:96} {one.ratio:7.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]{goal}"


if __name__ == "__main__":
    sys.exit(main())
