"""Flags: one frozen ``Options``, from defaults, files and the command line.

Each field below is one flag: its default, parser and help stand together, and everything else (``--help``, the
keys of ``--config``, ``log/params.yaml``) follows from them.
"""

import argparse
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, NoReturn

from data import DATASETS
from model import CIFAR_MODELS
from pruner import PRUNERS, short_schedule
from pruner.groups import KINDS, PICKS
from pruner.plan import parse_skip_layers, parse_stage_pr
from pruner.short_schedule import SHORT, SHORT_LR
from utils.config.lr_schedule import parse_lr_schedule, uses_adam
from utils.config.settings_file import read_settings_file
from utils.config.types import (
    arch,
    boolean,
    checked,
    decimal,
    error_prefix,
    file_name,
    integer,
    interval,
    nearest,
    number,
    one_of,
    path,
    pretrained,
    share,
)

RUN_ID = "run_id"  # a key of log/params.yaml beside the settings: which run it is of


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: ([^ =]+)", message)
        if unknown and unknown[1].startswith("-"):
            message += nearest(unknown[1], self._option_string_actions)
        elif unknown:
            message += "; a value with blanks needs quotes"
        raise ValueError(message)


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
    stage_pr: str = flag(
        "",
        checked(lambda text: text and parse_stage_pr(text)),
        'pruning ratios: "[0,0.5,0.5,0]" by stage, or "[0-4:0.5, 7:0.2]" by layer; brackets may be left out',
        metavar="RATIOS",
    )
    skip_layers: str = flag(
        "", checked(lambda text: text and parse_skip_layers(text)), 'layers to leave alone, e.g. "[1.0,2.3]"'
    )
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
    lr_ft: str | None = flag(
        None,
        checked(parse_lr_schedule),
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
    seed: int | None = flag(None, integer(0), "of everything random (default: drawn, and logged)")
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
    save_interval: str = flag(
        "2000", interval, "how often a checkpoint is written: 500 steps, or 10m minutes", metavar="N|Nm", free=True
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


_METAVARS = {int: "N", int | None: "N", float: "X", float | None: "X", Decimal: "X"}
_WIDEST = 44  # characters of choices that stand beside a flag; more stand in its help
EXAMPLES = """examples:
  Half of a CIFAR network's filters: costs and steps (without --plan, the run)
    python main.py --dataset cifar10 --arch resnet56 --method GReg-1 \\
        --stage_pr "[0,0.5,0.5,0.5,0]" --base_model_path base.pth --plan

  Your own images, in my_images/{train,val}/CLASS/, pruned in 1,000 steps
    python main.py --dataset folder --data_path my_images --arch resnet18 \\
        --method GReg-1 --stage_pr "[0,0.5,0.5,0.5,0.5,0]" --pretrained \\
        --prune_steps 1000 --batch_size_prune 32 --batch_size 32 \\
        --epochs 30 --lr_ft 0:0.01,15:0.001
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line: every field of ``Options``, grouped; values stay text until all sources are merged."""
    parser = _Parser(
        prog="main.py",
        usage="main.py --dataset NAME [--method NAME] [--stage_pr RATIOS] [flags]",
        description="Prune a trained network by growing regularization (GReg-1, GReg-2)\n"
        "or at one shot (L1), and fine-tune it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    for heading, flags in by_section().items():
        group = parser.add_argument_group(heading)
        for f in flags:
            meta = f.metadata
            names = sorted((f"--{f.name}", *meta["aliases"]), key=len)
            how: dict[str, Any] = {"dest": f.name, "help": _help_text(f) + _default_text(f)}
            if meta["parse"] is boolean:
                how |= {"action": "store_const", "const": "true"}
            else:
                how["metavar"] = meta.get("metavar") or _metavar(f)
            how |= meta.get("argparse", {})
            group.add_argument(*names, **how)
    parser.add_argument("--oracle_pruning", dest="method", action="store_const", const="Oracle", help="method Oracle")
    parser.add_argument("--config", metavar="FILE", help="defaults for all of these, in YAML; the command line wins")
    parser.add_argument("--params_json", metavar="FILE", help="the same in JSON; --config wins")
    parser.add_argument(
        "--no-channels_last", "--no_channels_last", dest="channels_last", action="store_const", const="false",
        help=argparse.SUPPRESS,
    )  # fmt: skip
    return parser


def _metavar(f: Field) -> str:
    return _choices(f) or _METAVARS.get(f.type, f.name.split("_")[-1].upper())


def _choices(f: Field) -> str:
    return "|".join(getattr(f.metadata["parse"], "choices", ()))


def _help_text(f: Field) -> str:
    """The help, with the choices that are too many to stand beside the flag."""
    return f.metadata["help"] + (f": {', '.join(f.metadata['parse'].choices)}" if len(_choices(f)) > _WIDEST else "")


def _default_text(f: Field) -> str:
    shown = f.default is not MISSING and f.default not in (None, "", False)
    return f" (default: {f.default})" if shown else ""


def parse(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Options from the command line, over ``--config``, over defaults; and notices on what was typed in vain.

    Raises:
        ValueError: an unknown flag or key, a wrong type, an impossible value; names it.
    """
    given, typed = read(argv)
    options = build(given)
    return options, notices_on(options, typed)


def read(argv: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Settings as text, from the command line and from files; and the names of those on the command line.

    Raises:
        ValueError: an unknown flag or key.
    """
    typed = vars(build_parser().parse_args(_words(argv)))
    given: dict[str, str] = {}
    for source in ("params_json", "config"):  # later ones win
        if source in typed:
            with error_prefix(source):
                given |= _read_file(source, path(typed.pop(source)))
    return given | typed, set(typed)


def build(given: dict[str, str]) -> Options:
    """Options of settings as text; what is not given has its default, a seed is drawn.

    Raises:
        ValueError: a wrong type, an impossible value, or nothing where there is no default; names the flag.
    """
    values = {}
    for f in fields(Options):
        if f.name in given and given[f.name] is not None:
            try:
                values[f.name] = f.metadata["parse"](given[f.name])
            except ValueError as error:
                raise ValueError(f"--{f.name}: {' '.join(str(error).split())}") from None
        elif f.default is MISSING:
            raise ValueError(f"--{f.name} is required; {_help_text(f)}")
    if values.get("seed") is None:
        values["seed"] = secrets.randbelow(2**31)
    return _in_prune_steps(Options(**values), {name for name in values if given.get(name) is not None})


def _in_prune_steps(options: Options, given: set[str]) -> Options:
    """The options with what ``--prune_steps`` gives filled in, where the method has a prune phase."""
    method = PRUNERS[options.method]
    if options.prune_steps is None or not method.has_prune_phase:
        return options
    with error_prefix("prune_steps"):
        return replace(options, **short_schedule(options, given, method.picks_later))


def differences(options: Options, before: Options) -> list[str]:
    """Settings that differ and may not change on resume: ``--flag value (was value)``."""
    found = []
    for f in fields(Options):
        now, then = getattr(options, f.name), getattr(before, f.name)
        may_change = f.metadata.get("free") or f.metadata.get("of_command")
        if (now < then) if f.name == "epochs" else (now != then and not may_change):
            found.append(f"--{f.name} {now} (was {then})")
    return found


_LISTS = ("--stage_pr", "--skip_layers", "--lr_ft", "--lr_schedule")


def _words(argv: Sequence[str]) -> list[str]:
    """Words as meant: a list that blanks have split is one (``--stage_pr [0, 0.5, 0]``), and -1e-4 is no flag."""
    words: list[str] = []
    open_list = False
    for word in argv:
        last = words[-1] if words else ""
        if open_list and not word.startswith("--"):
            words[-1] += f" {word}"
        elif re.fullmatch(r"-[0-9.]+(e[-+]?[0-9]+)?", word, re.IGNORECASE) and last.startswith("--"):
            words[-1] += f"={word}"
        else:
            words.append(word)
        name, _, value = words[-1].partition("=") if words[-1].startswith("--") else (last, "", words[-1])
        of_list = len(name) > 4 and any(flag.startswith(name) for flag in _LISTS)
        open_list = (of_list or open_list) and value[:1] in ("[", "{") and value[-1:] not in ("]", "}")
    return words


def _read_file(source: str, path: str) -> dict[str, str]:
    """Settings of a file that `source`, a flag, names.

    Raises:
        ValueError: it cannot be read, or has a key that is no flag; names flag and file.
    """
    try:
        given = read_settings_file(path)
    except ValueError as error:
        raise ValueError(f"--{source} {path}: {error}") from None
    given.pop(RUN_ID, None)  # log/params.yaml is such a file, and names the run that it is of
    known = {f.name for f in fields(Options)}
    for key in given:
        if key not in known:
            raise ValueError(f"--{source} {path}: unknown key '{key}'{nearest(key, known)}")
    return given


def notices_on(options: Options, typed: set[str]) -> list[str]:
    """What was typed on the command line but has no effect on this run."""
    if options.evaluate:
        return []
    notices, left = [], set(typed)  # each flag is named once, with the first reason
    for reason, names in _without_effect(options):
        named = [name for name in dict.fromkeys(names) if name in left]
        left -= set(named)
        if named:
            notices.append(f"no effect {reason}: {', '.join(f'--{name}' for name in named)}")
    if "start_epoch" in typed:
        notices.append("--start_epoch has no effect: a run begins at epoch 0")
    return notices


def _without_effect(options: Options) -> Iterator[tuple[str, Sequence[str]]]:
    """Reasons, and the flags that have no effect for each."""
    method = PRUNERS[options.method]
    idle = [*method.ignores]
    if not method.has_prune_phase:
        idle += [f.name for f in by_section()[GREG]] + ["save_mag_reg_log", "save_order_log"]
    if options.method != "Oracle":
        idle.append("ft_in_oracle_pruning")
    if method.prunes:
        idle.append("lr")  # fine-tuning has --lr_ft
    yield f"under --method {options.method}", idle
    if uses_adam(options) and not (method.has_prune_phase and not options.directly_ft_weights):
        yield f"on {options.arch}, trained by Adam without weight decay", ("momentum", "wd")
    if not (options.base_model_path or options.directly_ft_weights):
        yield "without --base_model_path", ("weights_key",)
    for flag_given, beside in (
        ("directly_ft_weights", ("base_model_path", "weights_key", "stage_pr", "skip_layers", "base_pr_model")),
        ("base_pr_model", ("skip_layers",)),
        ("fix_reg_interval", () if "fix_reg_interval" in idle else ("update_reg_interval", "reg_granularity_prune")),
    ):
        if getattr(options, flag_given):
            yield f"beside --{flag_given}", beside


def stored_defaults() -> dict[str, Any]:
    """The settings that run directories and checkpoints hold, and their defaults."""
    return {f.name: f.default for f in fields(Options) if not f.metadata.get("of_command")}


def from_plain(values: dict[str, Any]) -> dict[str, str]:
    """What ``to_plain`` gave, as text; what is no stored setting is left out."""
    return {key: str(value) for key, value in values.items() if key in stored_defaults() and value is not None}


def to_plain(options: Options) -> dict[str, Any]:
    """Stored settings as plain values: what ``log/params.yaml`` and checkpoints hold, and ``--config`` reads back."""
    values = {key: value for key, value in asdict(options).items() if key in stored_defaults()}
    return {key: str(value) if isinstance(value, Decimal) else value for key, value in values.items()}
