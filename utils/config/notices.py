"""Flags of a command that have no effect on its run."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from pruner import PRUNERS
from utils.config.lr_schedule import uses_adam
from utils.config.options import GREG, Options, by_section

# Of the prune phase and the cut, which --directly_ft_weights leaves out.
BEFORE_FINE_TUNING = (
    *(name for name in PRUNERS["none"].ignores if name not in ("wg", "expect_speedup")),
    *(f.name for f in by_section()[GREG]),
    "base_model_path", "weights_key", "pretrained", "allow_untrained", "save_mag_reg_log", "save_order_log",
    "plot_interval", "model_noise_std", "model_noise_num", "check_jsv_loop", "report_latency",
)  # fmt: skip

OF_EVALUATION = (
    "evaluate", "arch", "dataset", "data_path", "base_model_path", "trust_checkpoint", "weights_key",
    "not_use_bn", "seed", "device", "gpu", "workers", "multiprocessing_distributed", "world_size", "dist_url",
    "dist_backend", "screen_print", "debug",
)  # fmt: skip


def notices_on(options: Options, typed: set[str]) -> list[str]:
    """List flags of the command line that have no effect on this run."""
    if options.evaluate:
        unused = [f.name for f in fields(options) if f.name in typed and f.name not in OF_EVALUATION]
        return [f"no effect under --evaluate: {', '.join(f'--{name}' for name in unused)}"] if unused else []
    notices, left = [], set(typed)  # each flag is named once, with its first reason
    for reason, names in _without_effect(options):
        named = [name for name in dict.fromkeys(names) if name in left]
        left -= set(named)
        if named:
            notices.append(f"no effect {reason}: {', '.join(f'--{name}' for name in named)}")
    if "start_epoch" in typed:
        notices.append("--start_epoch has no effect: runs start at epoch 0")
    return notices


def _without_effect(options: Options) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield a reason and the flags that have no effect for it."""
    method = PRUNERS[options.method]
    idle = [*method.ignores]
    if not method.has_prune_phase:
        idle += [f.name for f in by_section()[GREG]] + ["save_mag_reg_log", "save_order_log"]
    if options.method != "Oracle":
        idle.append("ft_in_oracle_pruning")
    if method.prunes:
        idle.append("lr")  # fine-tuning has --lr_ft
    elif options.directly_ft_weights:
        idle.remove("wg")
    yield f"under --method {options.method}", idle
    if uses_adam(options) and not (method.has_prune_phase and not options.directly_ft_weights):
        yield f"on {options.arch}, trained by Adam without weight decay", ("momentum", "wd")
    if not (options.base_model_path or options.directly_ft_weights):
        yield "without --base_model_path", ("weights_key",)
    for flag_given, beside in (
        ("directly_ft_weights", BEFORE_FINE_TUNING),
        ("base_pr_model", ("skip_layers",)),
        ("fix_reg_interval", () if "fix_reg_interval" in idle else ("update_reg_interval", "reg_granularity_prune")),
    ):
        if getattr(options, flag_given):
            yield f"beside --{flag_given}", beside
    if not options.speedup:
        yield "without --speedup", ("rank",)
    if not (options.ratios or options.speedup):
        yield "without --ratios or --speedup", ("round_to",)
