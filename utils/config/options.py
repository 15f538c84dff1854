"""Flags: the fields of the frozen dataclass ``Options``.

Each field is one flag, with its default, parser and help. ``--help``, the keys of ``--config``, ``log/params.yaml``
and docs/flags.md are derived from the fields.
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
from pruner.options import PENALIZED
from pruner.plan import LayerAddresses, StageRatios
from pruner.ratios import GlobRatios
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
    ranking,
    share,
)

RUN_ID = "run_id"  # a key of log/params.yaml beside the settings


class _OneFile(argparse.Action):
    """One file, also where the shell has expanded a pattern."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if len(values) > 1:
            raise ValueError(f"{option_string} matches {len(values)} files, not one: {', '.join(values)}")
        setattr(namespace, self.dest, values[0])


def flag(default: Any, parse: Callable[[str], Any], help: str, *aliases: str, **more: Any) -> Any:
    """Declare a field that is the flag ``--<name>``.

    Args:
        aliases: other spellings, short ones too.
        more: ``metavar``; ``section``, the heading in ``--help`` that starts with this flag; ``free``, whether the
            value may change on resume (it does not affect results); ``of_command``, whether the value is never stored:
            no file may decide what the program reads or runs.
    """
    meta = {"parse": parse, "help": help, "aliases": aliases, **more}
    return field(metadata=meta) if default is MISSING else field(default=default, metadata=meta)


def switch(help: str, *aliases: str, **more: Any) -> Any:
    """Declare a boolean flag, off by default."""
    return flag(False, boolean, help, *aliases, **more)


GREG = "Growing regularization (GReg-1, GReg-2) and fixed (FixReg)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every setting of a run. Parsed text is a subclass of ``str`` or a ``Decimal``, and prints as typed."""

    method: str = flag(
        "none", one_of(*PRUNERS, empty="none"), "pruning method; none: plain training", section="What to do"
    )
    plan: str | None = flag(
        None,
        one_of("text", "json"),
        "print layers, costs and lengths without running; --plan=json: as JSON",
        argparse={"nargs": "?", "const": "text"},
        of_command=True,
    )
    evaluate: bool = switch(
        "print accuracy and costs of --base_model_path; checkpoints of this program know their --arch and --dataset",
        "-e", of_command=True,
    )  # fmt: skip

    arch: str = flag(
        "resnet18",
        arch,
        f"{', '.join(CIFAR_MODELS)} for images up to 64 px; any torchvision classification network for larger "
        "ones; timm/NAME; FILE.py:FUNCTION, which runs that file",
        "-a",
        section="Network and data",
    )
    dataset: str = flag(MISSING, one_of(*DATASETS), "data set (required)", metavar="NAME")
    data_path: str = flag(
        "./data", path, "folder of the data sets; for npz and folder, the data set itself", "--data", free=True
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
        "start from torchvision's weights of this enum name (default: IMAGENET1K_V1)",
        metavar="WEIGHTS",
        argparse={"nargs": "?", "const": "true"},
    )
    trust_checkpoint: bool = switch(
        "load pickled networks, which can run code from the file; never stored", of_command=True
    )
    weights_key: str | None = flag(
        None,
        str,
        "key of the weights to load where --base_model_path holds several sets, e.g. state_dict_ema",
        metavar="KEY",
    )
    allow_untrained: bool = switch("allow pruning untrained weights", free=True)
    not_use_bn: bool = switch("CIFAR vgg* without batch norm")

    wg: str = flag("filter", one_of(*KINDS), "weight group: the unit of pruning", section="Pruning")
    stage_pr: StageRatios = flag(
        StageRatios(""),
        StageRatios,
        'pruning ratios: "[0,0.5,0.5,0]" by stage, or "[0-4:0.5, 7:0.2]" by layer; brackets may be left out',
        metavar="RATIOS",
    )
    ratios: GlobRatios = flag(
        GlobRatios(""),
        GlobRatios,
        "pruning ratios by module name, for any network: 'layer3.*.conv1:0.5, *.fc:0.3'; the last match wins",
        metavar="NAME:RATIO,...",
    )
    speedup: float | None = flag(
        None,
        number(1, above=True),
        "prune filters of all free layers until FLOPs fall by this factor; --ratios sets single layers",
        metavar="X",
    )
    rank: str = flag(
        "uniform",
        ranking,
        "--speedup: one ratio for all layers, or by score over the layer's mean; a number, the original's machine, is "
        "accepted for compatibility",
        metavar="uniform|global",
    )
    round_to: int = flag(1, integer(1), "--ratios, --speedup: keep a multiple of this many filters")
    skip_layers: LayerAddresses = flag(
        LayerAddresses(""), LayerAddresses, 'addresses of layers not to prune, e.g. "[1.0,2.3]"'
    )
    pick_pruned: str = flag("min", one_of(*PICKS), "groups that L1, GReg-1 and FixReg prune, by magnitude")
    base_pr_model: str | None = flag(
        None, path, "prune as many groups per layer as in this pruned checkpoint", metavar="FILE"
    )
    inherit_pruned: str = flag(
        "index",
        one_of("index", "pr"),
        "take from --base_pr_model the same groups (index) or only their number per layer (pr)",
    )
    reinit: str = flag(
        "",
        str,
        "after the cut of L1 or Oracle: orth, orthogonal weights; any other word, new random weights",
        metavar="orth|WORD",
    )
    directly_ft_weights: str | None = flag(
        None, path, "fine-tune the pruned network of this checkpoint; no pruning", metavar="FILE"
    )
    ft_in_oracle_pruning: bool = switch("Oracle: fine-tune each candidate after scoring it, and log its accuracy")
    expect_speedup: float | None = flag(
        None,
        number(0, above=True),
        "exit with code 2 if the planned speedup differs by more than 1 %% (2 %% with --round_to)",
        metavar="X",
        free=True,
    )

    prune_steps: int | None = flag(
        None,
        integer(1),
        "length of the prune phase in steps: λ grows for 64 %% of them, then is frozen. Sets K_u, K_s, δ, δ' and, "
        f"below {SHORT:,} steps, --lr_prune {SHORT_LR}, unless given",
        section=GREG,
    )
    batch_size_prune: int = flag(64, integer(1), "batch size of the prune phase, over all processes")
    lr_prune: float = flag(0.001, number(0), "learning rate of the prune phase")
    update_reg_interval: int = flag(5, integer(1), "K_u, steps between updates of the penalty λ")
    stabilize_reg_interval: int = flag(40000, integer(0), "K_s, steps with λ frozen before the cut")
    reg_upper_limit: Decimal = flag(Decimal("1.0"), decimal(0), "τ, ceiling of λ")
    reg_upper_limit_pick: Decimal = flag(Decimal("0.01"), decimal(0), "τ', λ at which GReg-2 selects")
    reg_granularity_prune: Decimal = flag(Decimal("1e-4"), decimal(0, above=True), "δ, growth of λ per update")
    reg_granularity_pick: Decimal = flag(
        Decimal("1e-5"), decimal(0, above=True), "δ', growth of λ per update before GReg-2 selects"
    )
    reg_granularity_recover: Decimal = flag(
        Decimal("-1e-4"), decimal(None), "λ of the groups that GReg-2 keeps, after selection"
    )
    fix_reg_interval: int | None = flag(
        None, integer(1), "FixReg: steps with λ = τ, before K_s more (default: as many as GReg-1's growth takes)"
    )
    mag_ratio_limit: float = flag(
        1000.0, number(0, above=True), "score ratio of kept to pruned groups at which a layer's λ stops growing"
    )
    penalize: str | None = flag(
        None,
        one_of(*PENALIZED),
        "λ on the pruned layers' weights (filter, the paper; default with --stage_pr), or on every parameter that the "
        "cut removes (group; default with --ratios and --speedup)",
    )
    block_loss_grad: bool = switch(
        "in the prune phase, train the weights of all conv and linear layers by the penalty alone, without the loss's "
        "gradient"
    )

    epochs: int = flag(
        90, integer(0), "epochs of fine-tuning or plain training", section="Training and fine-tuning", free=True
    )
    batch_size: int = flag(
        256, integer(1), "batch size of fine-tuning or plain training, over all processes", "-b", "--batch-size"
    )
    lr_ft: LrSchedule | None = flag(
        None,
        LrSchedule,
        "learning rates by epoch (default after pruning: 0:0.01,30:0.001,60:0.0001,75:0.00001; for plain training: "
        "--lr, divided by 10 at half and at three quarters of --epochs)",
        "--lr_schedule",
        metavar="EPOCH:LR,...",
    )
    lr: float = flag(0.1, number(0), "initial learning rate of plain training", "--learning-rate")
    momentum: float = flag(0.9, number(0), "momentum of SGD")
    wd: float = flag(
        1e-4, number(0), "weight decay γ; lenet* are fine-tuned without it", "--weight-decay", "--weight_decay"
    )
    train_images: int | None = flag(None, integer(1), "train on a random subset of this many images (default: all)")
    val_fraction: float = flag(
        0.0, share, "hold out this fraction of the training set and choose the best epoch on it, not on the test set"
    )
    last_n_epoch: int = flag(
        5, integer(1), "report mean and standard deviation of accuracy over the last N epochs", metavar="N", free=True
    )

    resume_path: str | None = flag(
        None,
        path,
        "resume a run: its directory, one of its checkpoints, or auto: the run of this command if there is one, else a "
        "new run",
        metavar="PATH|auto",
        section="Running",
        of_command=True,
    )
    seed: int = flag(None, integer(0), "seed of all random numbers (default: drawn and logged)")
    device: str = flag("auto", one_of("auto", "cpu", "cuda"), "auto: a GPU if there is one", free=True)
    gpu: int | None = flag(None, integer(0), "use one GPU, by its number among the visible ones", free=True)
    start_epoch: int = flag(
        0, integer(0), "accepted for compatibility; runs start at epoch 0", "--start-epoch", free=True
    )
    workers: int = flag(4, integer(0), "data loader processes for image files", "-j", free=True)

    multiprocessing_distributed: bool = switch(
        "accepted for compatibility; all visible GPUs are always used", "--multiprocessing-distributed",
        section="Several GPUs (flags of the original; torchrun: docs/distributed.md)", free=True,
    )  # fmt: skip
    world_size: int = flag(1, integer(-1), "number of machines; start several with torchrun", "--world-size", free=True)
    dist_url: str = flag("env://", str, "address of the rendezvous", "--dist-url", free=True)
    dist_backend: str | None = flag(
        None, one_of("nccl", "gloo"), "communication backend (default: nccl on GPUs)", "--dist-backend", free=True
    )
    sync_bn: bool = switch("batch-norm statistics of the whole batch, not of each process's part; on GPUs")

    amp: str = flag(
        "auto",
        one_of("auto", "none", "bf16"),
        "precision of convs and linear layers; auto: bf16 on CPUs with bf16 arithmetic, except for small networks",
        section="Speed (the choices of auto are stored in log/params.yaml)",
    )
    channels_last: str = flag(
        "auto",
        one_of("auto", "true", "false"),
        "memory layout of images; auto: with bf16; --no_channels_last: never",
        argparse={"nargs": "?", "const": "true"},
    )
    compile: str = flag(
        "auto",
        one_of("auto", "on", "off", aliases={"true": "on", "false": "off"}),
        "train and test through torch.compile, which takes up to 90 seconds; auto: for CIFAR ResNets on CPUs with "
        "AMX, from a million training images on",
        argparse={"nargs": "?", "const": "on"},
    )
    cuda_graph: str = flag("auto", one_of("auto", "on", "off"), "not implemented: auto and off run without", free=True)
    report_latency: bool = switch(
        "measure latency and throughput of the dense and the pruned network at batch 1 and 128", free=True
    )

    project_name: str = flag(
        "",
        file_name,
        "name of the run directory, Experiments/<name>_… (default: method, network, data)",
        section="Output",
        free=True,
    )
    screen_print: bool = switch("print every line of the log on the screen", free=True)
    note: str = flag("", str, "text for the log", free=True)
    debug: bool = switch("write to Debug_Dir/ instead of Experiments/, and print tracebacks", free=True)
    print_interval: int = flag(
        100, integer(1), "prune phase: steps between lines of progress, which also come by time", free=True
    )
    test_interval: int = flag(2000, integer(1), "prune phase: steps between tests", free=True)
    print_freq: int = flag(
        10,
        integer(1),
        "fine-tuning or plain training: steps between lines of progress",
        "-p",
        "--print-freq",
        free=True,
    )
    save_interval: SaveInterval = flag(
        SaveInterval("2000"),
        SaveInterval,
        "interval of checkpoints, in steps (500) or minutes (10m)",
        metavar="N|Nm",
        free=True,
    )
    save_init_model: bool = switch("save the initial weights as checkpoint_init.pth", free=True)
    save_mag_reg_log: bool = switch("record every group's score at each --plot_interval in log/mag_<layer>.npz")
    save_order_log: bool = switch(
        "record the rank correlation with the initial order at each --plot_interval in log/order_log.csv"
    )
    plot_interval: int = flag(100_000_000, integer(1), "prune phase: steps between snapshots for these logs")
    model_noise_std: float = flag(
        0.0, number(0), "after the cut: standard deviation of the noise on the weights of an ensemble"
    )
    model_noise_num: int = flag(0, integer(0), "after the cut: number of noisy copies in the ensemble")
    check_jsv_loop: int = flag(
        0, integer(0), "after the cut: batches over which the singular values of the input-output Jacobian are averaged"
    )


def by_section() -> dict[str, list[Field]]:
    """Group the flags by heading, in order."""
    sections: dict[str, list[Field]] = {}
    for f in fields(Options):
        heading = f.metadata.get("section") or next(reversed(sections))
        sections.setdefault(heading, []).append(f)
    return sections


def differences(options: Options, before: Options) -> list[str]:
    """List settings that differ and may not change on resume: ``--flag value (was value)``."""
    changed = []
    for f in fields(Options):
        now, then = getattr(options, f.name), getattr(before, f.name)
        may_change = f.metadata.get("free") or f.metadata.get("of_command")
        if (now < then) if f.name == "epochs" else (now != then and not may_change):
            changed.append(f"--{f.name} {now} (was {then})")
    return changed


def stored_defaults() -> dict[str, Any]:
    """Settings stored in run directories and checkpoints, with their defaults."""
    return {f.name: f.default for f in fields(Options) if not f.metadata.get("of_command")}


def settings_off_default(options: Options) -> dict[str, Any]:
    """Return plain values of the settings that change the result and are not at their defaults, files left out."""
    values = to_plain(options)
    return {
        f.name: values[f.name]
        for f in fields(Options)
        if f.name in values
        and getattr(options, f.name) != f.default
        and (f.name == "epochs" or not f.metadata.get("free"))
        and f.metadata["parse"] is not path
    }


def from_plain(values: dict[str, Any]) -> dict[str, str]:
    """Convert a result of ``to_plain`` to text; keys that are not stored settings are left out."""
    return {key: str(value) for key, value in values.items() if key in stored_defaults() and value is not None}


def to_plain(options: Options) -> dict[str, Any]:
    """Convert stored settings to plain values, for ``log/params.yaml``, checkpoints and ``--config``."""
    values = {key: value for key, value in asdict(options).items() if key in stored_defaults()}
    # Neither YAML nor safe loading knows subclasses of str.
    return {key: str(value) if isinstance(value, str | Decimal) else value for key, value in values.items()}
