"""Flags: one frozen ``Options``, from defaults, files and the command line.

Each field below is one flag: its default, parser and help stand together, and everything else (``--help``, the
keys of ``--config``, ``log/params.yaml``, docs/flags.md) follows from them.
"""

import argparse
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from decimal import Decimal
from typing import Any

from data import DATASETS
from model import CIFAR_MODELS
from pruner import PRUNERS
from pruner.groups import KINDS, PICKS
from pruner.plan import LayerAddresses, StageRatios
from pruner.short_schedule import SHORT, SHORT_LR
from utils.config.lr_schedule import LrSchedule
from utils.config.types import (
    SaveInterval,
    arch,
    boolean,
    decimal,
    file_name,
    integer,
    number,
    one_of,
    path,
    pretrained,
    share,
)

RUN_ID = "run_id"  # a key of log/params.yaml beside the settings: which run it is of


class _OneFile(argparse.Action):
    """A pattern that the shell has expanded."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if len(values) > 1:
            raise ValueError(f"{option_string} matches {len(values)} files, not one: {', '.join(values)}")
        setattr(namespace, self.dest, values[0])


def flag(default: Any, parse: Callable[[str], Any], help: str, *aliases: str, **more: Any) -> Any:
    """A field that is a flag, ``--<name>``.

    Args:
        aliases: other spellings, short ones too.
        more: ``metavar``; ``section``, the heading in ``--help`` that begins with this flag; ``free``, whether the
            value may change on resume (it does not affect results); ``of_command``, whether it is never stored: it
            holds for the command that it is typed in, since no file may decide what the program reads or runs.
    """
    meta = {"parse": parse, "help": help, "aliases": aliases, **more}
    return field(metadata=meta) if default is MISSING else field(default=default, metadata=meta)


def switch(help: str, *aliases: str, **more: Any) -> Any:
    return flag(False, boolean, help, *aliases, **more)


GREG = "Growing regularization (GReg-1, GReg-2) and a fixed one (FixReg)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every setting of a run. Text that a parser understands is kept as text, so that it prints as typed."""

    method: str = flag(
        "none", one_of(*PRUNERS, empty="none"), "pruning method; none is plain training", section="What to do"
    )
    plan: str | None = flag(
        None,
        one_of("text", "json"),
        "print what would happen and stop; --plan=json for programs",
        argparse={"nargs": "?", "const": "text"},
        of_command=True,
    )
    evaluate: bool = switch(
        "print accuracy and costs of --base_model_path and stop; a file of this program knows --arch and --dataset",
        "-e", of_command=True,
    )  # fmt: skip

    arch: str = flag(
        "resnet18",
        arch,
        f"{', '.join(CIFAR_MODELS)} for images up to 64 px; torchvision's for larger ones",
        "-a",
        section="Network and data",
    )
    dataset: str = flag(MISSING, one_of(*DATASETS), "the images (required)", metavar="NAME")
    data_path: str = flag(
        "./data", path, "where data sets are; for npz and folder, the folder itself", "--data", free=True
    )
    base_model_path: str | None = flag(
        None,
        path,
        "weights to start from: a path, or a pattern that matches one file",
        metavar="FILE",
        argparse={"nargs": "+", "action": _OneFile},
    )
    pretrained: str | None = flag(
        None,
        pretrained,
        "start from torchvision's weights, by the name of their enum (default: IMAGENET1K_V1)",
        metavar="WEIGHTS",
        argparse={"nargs": "?", "const": "true"},
    )
    trust_checkpoint: bool = switch(
        "read files that hold a pickled network, which runs code from the file; never stored", of_command=True
    )
    weights_key: str | None = flag(
        None,
        str,
        "of --base_model_path, if it holds several sets of weights: the key of those to take, e.g. state_dict_ema",
        metavar="KEY",
    )
    allow_untrained: bool = switch("prune a network that nobody trained", free=True)
    not_use_bn: bool = switch("vgg* for small images without batch-norm")

    wg: str = flag("filter", one_of(*KINDS), "weight group: what is pruned as one", section="Pruning")
    stage_pr: StageRatios = flag(
        StageRatios(""),
        StageRatios,
        'pruning ratios: "[0,0.5,0.5,0]" by stage, or "[0-4:0.5, 7:0.2]" by layer; brackets may be left out',
        metavar="RATIOS",
    )
    skip_layers: LayerAddresses = flag(LayerAddresses(""), LayerAddresses, 'layers to leave alone, e.g. "[1.0,2.3]"')
    pick_pruned: str = flag("min", one_of(*PICKS), "which groups L1, GReg-1 and FixReg pick, by magnitude")
    base_pr_model: str | None = flag(
        None, path, "prune as many groups per layer as in this pruned checkpoint", metavar="FILE"
    )
    inherit_pruned: str = flag(
        "index", one_of("index", "pr"), "from --base_pr_model: the very groups (index) or their number (pr)"
    )
    reinit: str = flag(
        "",
        str,
        "after the cut of L1 or Oracle: orth for orthogonal weights, any other word to start from scratch",
        metavar="orth|WORD",
    )
    directly_ft_weights: str | None = flag(
        None, path, "fine-tune the pruned network of this checkpoint; no pruning", metavar="FILE"
    )
    ft_in_oracle_pruning: bool = switch("Oracle: fine-tune each candidate, once it is judged, and log its accuracy")
    expect_speedup: float | None = flag(
        None,
        number(0, above=True),
        "stop with exit code 2 if the plan misses this by over 1 %%",
        metavar="X",
        free=True,
    )

    prune_steps: int | None = flag(
        None,
        integer(1),
        "length of the prune phase, in steps: λ grows for 64 %% of them and stands still for the rest. From it follow "
        f"K_u, K_s, δ, δ' and, below {SHORT:,} steps, --lr_prune {SHORT_LR}, each unless it is given",
        section=GREG,
    )
    batch_size_prune: int = flag(64, integer(1), "batch size of the prune phase")
    lr_prune: float = flag(0.001, number(0), "learning rate of the prune phase")
    update_reg_interval: int = flag(5, integer(1), "K_u, steps between two updates of the penalty λ")
    stabilize_reg_interval: int = flag(40000, integer(0), "K_s, steps with λ frozen before the cut")
    reg_upper_limit: Decimal = flag(Decimal("1.0"), decimal(0), "τ, ceiling of λ")
    reg_upper_limit_pick: Decimal = flag(Decimal("0.01"), decimal(0), "τ', λ at which GReg-2 picks")
    reg_granularity_prune: Decimal = flag(Decimal("1e-4"), decimal(0, above=True), "δ, growth of λ per update")
    reg_granularity_pick: Decimal = flag(
        Decimal("1e-5"), decimal(0, above=True), "δ', growth per update while GReg-2 picks"
    )
    reg_granularity_recover: Decimal = flag(Decimal("-1e-4"), decimal(None), "λ of what GReg-2 keeps, after its pick")
    fix_reg_interval: int | None = flag(
        None, integer(1), "steps with λ at τ under FixReg, before K_s more (default: as many as GReg-1's growth takes)"
    )
    mag_ratio_limit: float = flag(1000.0, number(0, above=True), "gap between kept and pruned that ends a layer early")
    block_loss_grad: bool = switch("in the prune phase, only the penalty moves the pruned network's weights")

    epochs: int = flag(
        90, integer(0), "epochs of fine-tuning, or of plain training", section="Training and fine-tuning", free=True
    )
    batch_size: int = flag(256, integer(1), "batch size of fine-tuning, or of plain training", "-b", "--batch-size")
    lr_ft: LrSchedule | None = flag(
        None,
        LrSchedule,
        "learning rates by epoch (default after pruning: 0:0.01,30:0.001,60:0.0001,75:0.00001; of plain training: "
        "--lr, divided by 10 at half and again at three quarters of --epochs)",
        "--lr_schedule",
        metavar="EPOCH:LR,...",
    )
    lr: float = flag(0.1, number(0), "first learning rate of plain training", "--learning-rate")
    momentum: float = flag(0.9, number(0), "of SGD")
    wd: float = flag(
        1e-4, number(0), "weight decay γ; lenet* are fine-tuned without", "--weight-decay", "--weight_decay"
    )
    train_images: int | None = flag(
        None, integer(1), "train on this many of the training images, drawn by --seed (default: all)"
    )
    val_fraction: float = flag(
        0.0, share, "hold out this part of the training set, and choose the best epoch on it, not on the test set"
    )
    last_n_epoch: int = flag(
        5, integer(1), "report mean and deviation of the last N epochs' accuracy", metavar="N", free=True
    )

    resume_path: str | None = flag(
        None,
        path,
        "resume a run: its directory, one of its checkpoints, or auto: the run of this very command, if there is "
        "one, else a new one",
        metavar="PATH|auto",
        section="Running",
        of_command=True,
    )
    seed: int = flag(None, integer(0), "of everything random (default: drawn, and logged)")
    device: str = flag("auto", one_of("auto", "cpu", "cuda"), "auto: the GPU if there is one", free=True)
    gpu: int | None = flag(None, integer(0), "number of the GPU to use, among those visible", free=True)
    start_epoch: int = flag(
        0, integer(0), "accepted for the original's sake; a run begins at epoch 0", "--start-epoch", free=True
    )
    workers: int = flag(4, integer(0), "processes that read image files", "-j", free=True)

    multiprocessing_distributed: bool = switch(
        "use every visible GPU, which happens anyway", "--multiprocessing-distributed",
        section="Several GPUs (of the original; see the README for torchrun)", free=True,
    )  # fmt: skip
    world_size: int = flag(
        1, integer(-1), "number of machines; more than one start with torchrun", "--world-size", free=True
    )
    rank: int = flag(0, integer(-1), "which machine this is", free=True)
    dist_url: str = flag("env://", str, "where the machines meet", "--dist-url", free=True)
    dist_backend: str | None = flag(
        None, one_of("nccl", "gloo"), "how processes talk (default: nccl on GPUs)", "--dist-backend", free=True
    )

    amp: str = flag(
        "auto",
        one_of("auto", "none", "bf16"),
        "number format of convs and linear layers; auto: bf16 on CPUs that compute in it, but for small networks",
        section="Speed (what auto decides is in log/params.yaml)",
    )
    channels_last: str = flag(
        "auto",
        one_of("auto", "true", "false"),
        "memory layout of images; auto: with bf16; --no_channels_last: never",
        argparse={"nargs": "?", "const": "true"},
    )
    compile: bool = switch("train through torch.compile, which needs a compiler and takes a minute first")
    cuda_graph: str = flag("auto", one_of("auto", "on", "off"), "steps as CUDA graphs; auto: off, for now", free=True)
    report_latency: bool = switch(
        "measure latency and throughput of the dense and of the cut network, batch 1 and 128, for the report", free=True
    )

    project_name: str = flag(
        "",
        file_name,
        "name of the run's directory, Experiments/<name>_… (default: method, net, data)",
        section="Output",
        free=True,
    )
    screen_print: bool = switch("every line of the log on the screen, too", free=True)
    note: str = flag("", str, "a remark for the log", free=True)
    debug: bool = switch("write to Debug_Dir/ instead of Experiments/, and print the traceback of an error", free=True)
    print_interval: int = flag(
        100, integer(1), "steps of the prune phase between two lines of progress, which also come by time", free=True
    )
    test_interval: int = flag(2000, integer(1), "steps of the prune phase between two tests", free=True)
    print_freq: int = flag(
        10, integer(1), "the same for batches of fine-tuning, or of plain training", "-p", "--print-freq", free=True
    )
    save_interval: SaveInterval = flag(
        SaveInterval("2000"),
        SaveInterval,
        "how often a checkpoint is written: 500 steps, or 10m minutes",
        metavar="N|Nm",
        free=True,
    )
    save_init_model: bool = switch("keep the starting weights as checkpoint_init.pth", free=True)
    save_mag_reg_log: bool = switch("every group's score at each --plot_interval, in log/mag_<layer>.npz")
    save_order_log: bool = switch(
        "rank agreement with the starting order at each --plot_interval, in log/order_log.csv"
    )
    plot_interval: int = flag(100_000_000, integer(1), "steps of the prune phase between two looks for these logs")
    model_noise_std: float = flag(0.0, number(0), "after the cut: deviation of the noise on the weights of an ensemble")
    model_noise_num: int = flag(0, integer(0), "after the cut: number of noisy copies whose outputs are averaged")
    check_jsv_loop: int = flag(
        0, integer(0), "after the cut: batches over which the input-output Jacobian's singular values are taken"
    )


def by_section() -> dict[str, list[Field]]:
    """The flags under their headings, in order."""
    sections: dict[str, list[Field]] = {}
    for f in fields(Options):
        heading = f.metadata.get("section") or next(reversed(sections))
        sections.setdefault(heading, []).append(f)
    return sections


def differences(options: Options, before: Options) -> list[str]:
    """Settings that differ and may not change on resume: ``--flag value (was value)``."""
    found = []
    for f in fields(Options):
        now, then = getattr(options, f.name), getattr(before, f.name)
        may_change = f.metadata.get("free") or f.metadata.get("of_command")
        if (now < then) if f.name == "epochs" else (now != then and not may_change):
            found.append(f"--{f.name} {now} (was {then})")
    return found


def stored_defaults() -> dict[str, Any]:
    """The settings that run directories and checkpoints hold, and their defaults."""
    return {f.name: f.default for f in fields(Options) if not f.metadata.get("of_command")}


def from_plain(values: dict[str, Any]) -> dict[str, str]:
    """What ``to_plain`` gave, as text; what is no stored setting is left out."""
    return {key: str(value) for key, value in values.items() if key in stored_defaults() and value is not None}


def to_plain(options: Options) -> dict[str, Any]:
    """Stored settings as plain values: what ``log/params.yaml`` and checkpoints hold, and ``--config`` reads back."""
    values = {key: value for key, value in asdict(options).items() if key in stored_defaults()}
    # Text that was parsed is a subclass of str, which neither YAML nor safe loading knows.
    return {key: str(value) if isinstance(value, str | Decimal) else value for key, value in values.items()}
