"""Plan a run and its costs, without weights where the network allows it."""

import copy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from data import DataSpec, check_subset
from model import build_model, build_on_meta, check_outputs, fit_to, is_timm, runs_file, weights_of
from model.cost import Cost, cost_of, example
from model.pretrained import DEFAULT
from pruner import PRUNERS, Plan, Schedule, inherit_plan, make_plan, plan_of, plan_of_cut, skipped_addresses
from pruner.cut import shrunk_copy
from pruner.layers import Layer, layers_of, traced_layers
from pruner.ratios import plan_by_name, plan_by_speedup
from pruner.selection import filter_scores
from pruner.structure import Structure
from utils.checkpoint.files import read_own
from utils.checkpoint.state import Checkpoint
from utils.config.options import Options
from utils.config.paths import find_one
from utils.config.types import error_prefix
from utils.dist.process_group import shard
from utils.pipeline.base_model import load_base_model
from utils.reporting.tables import plan_values

Shapes = dict[str, list[int]]  # name of a tensor -> shape


@dataclass(frozen=True)
class Planned:
    """Plan, schedule and costs of a run.

    Attributes:
        before, after: costs before and after the cut.
        values: the plan as plain values, for the table, ``--plan=json`` and the report.
        inherited: groups kept by another run (``--base_pr_model``), or None.
        structure: of the network, if filters or channels are pruned.
        base_shapes: of an already pruned base network; empty for a dense one.
    """

    plan: Plan
    schedule: Schedule | None
    before: Cost
    after: Cost
    values: dict[str, Any]
    inherited: dict[str, Tensor] | None = None
    structure: Structure | None = None
    base_shapes: Shapes = field(default_factory=dict)

    def training_images(self, options: Options, n_train: int) -> int:
        """Images that a run trains on in both phases, with `n_train` in an epoch."""
        prune_steps = self.schedule.cut_after_step + 1 if self.schedule else 0
        return prune_steps * options.batch_size_prune + options.epochs * n_train


def plan_run(options: Options, spec: DataSpec, resumed: Checkpoint | None = None) -> Planned:
    """Make the plan of a run.

    Args:
        resumed: checkpoint of a resumed run; files named by its options are not read again.

    Raises:
        ValueError: the flags do not fit the network, or the plan misses ``--expect_speedup``.
    """
    if options.pretrained:
        if options.base_model_path:
            raise ValueError("--pretrained and --base_model_path exclude each other: pass one")
        with error_prefix("pretrained"):
            if not is_timm(options.arch):
                weights_of(options.arch, options.pretrained, spec.size)
            elif options.pretrained != DEFAULT:
                raise ValueError(f"timm names weights in --arch: {options.arch}.{options.pretrained}, if it has them")
    if spec.train_images is not None:
        with error_prefix("train_images"):
            check_subset(spec.train_images, options.train_images, options.val_fraction, spec.name, shard().world_size)
    network = f"arch {options.arch}" + " --not_use_bn" * options.not_use_bn
    own = runs_file(options.arch)  # with weights: what it computes may depend on values
    with error_prefix(network):
        build = build_model if own else build_on_meta
        model = build(options.arch, spec.classes, spec.channels, spec.size, not options.not_use_bn)
        check_outputs(model, asdict(spec), _smallest_batch(options))
    dense = before = cost_of(model, spec.channels, spec.size)
    base_shapes = resumed.record.get("base_shapes") if resumed else _shapes_of_pruned_base(options)
    if base_shapes:
        _fit_to_shapes(model, base_shapes)
        before = cost_of(model, spec.channels, spec.size)
    traced = _Network(model, spec, before)
    cut = (resumed or _read_pruned(options, "directly_ft_weights")) if options.directly_ft_weights else None
    plan, inherited = _plan(options, traced, resumed, cut)
    method = PRUNERS[options.method]
    method.check(options, plan)
    structure = traced.structure if plan.pruned and plan.kind != "weight" else None
    smaller = _fit_to_shapes(copy.deepcopy(model), _shapes_of(cut)) if cut else shrunk_copy(model, plan, structure)
    after = cost_of(smaller, spec.channels, spec.size)
    schedule = None if options.directly_ft_weights else method.make_schedule(options, plan)
    values = plan_values(options, spec, plan, before, after, schedule, dense if base_shapes else None)
    if method.prunes:
        _check_speedup(options, values["speedup"], plan)
    return Planned(plan, schedule, before, after, values, inherited, structure, base_shapes or {})


def _smallest_batch(options: Options) -> int:
    """Images in the smallest batch that is trained on, at most 2; a single one at the end of an epoch is left out."""
    sizes = [options.batch_size] * (options.epochs > 0)
    sizes += [options.batch_size_prune] * PRUNERS[options.method].has_prune_phase
    return min([2, *sizes])


@dataclass
class _Network:
    """Network on the meta device; traced at the first use of `structure`."""

    model: nn.Module
    spec: DataSpec
    cost: Cost

    @cached_property
    def structure(self) -> Structure:
        return Structure(self.model, example(self.model, self.spec.channels, self.spec.size))

    @property
    def layers(self) -> list[Layer]:
        """Layers by address, or by name if the network has no addresses."""
        try:
            return layers_of(self.model)
        except ValueError:
            return traced_layers(self.structure)


def _plan(
    options: Options, network: _Network, resumed: Checkpoint | None, cut: Checkpoint | None
) -> tuple[Plan, dict[str, Tensor] | None]:
    """Make the plan; also return the kept groups, if inherited from another run.

    Args:
        cut: the network of ``--directly_ft_weights``.
    """
    resumed_kept = resumed.kept_groups() if resumed else {}
    method, model = PRUNERS[options.method], network.model
    by_name = bool(options.ratios or options.speedup)
    if by_name and method.prunes:
        return _plan_by_name(options, network, resumed_kept), None
    if not method.prunes and not options.directly_ft_weights:
        try:
            return plan_of(layers_of(model), {}, options.wg), None
        except ValueError:  # plain training needs no addresses
            return plan_of([], {}, options.wg), None
    inherits = options.directly_ft_weights or options.base_pr_model
    with error_prefix(f"arch {options.arch}"):
        layers = network.layers if inherits else layers_of(model)
    if cut:
        source = str(options.directly_ft_weights)
        if options.wg == "weight":
            return inherit_plan(layers, options.wg, cut.kept_groups(), source), None
        return plan_of_cut(layers, options.wg, _shapes_of(cut), source), None
    if options.base_pr_model:
        if options.stage_pr:
            raise ValueError("--base_pr_model and --stage_pr exclude each other: pass one")
        kept = resumed_kept or _read_pruned(options, "base_pr_model").kept_groups()
        plan = inherit_plan(layers, options.wg, kept, options.base_pr_model)
        return plan, kept if options.inherit_pruned == "index" else None
    if not options.stage_pr:
        raise ValueError(
            f"--method {options.method} needs --stage_pr, such as [0,0.5,0.5,0.5,0] or [1-15:0.7], --ratios '*:0.5' or "
            "--speedup 2"
        )
    kind = f" --wg {options.wg}" if options.wg == "weight" else ""
    with error_prefix(f"skip_layers {options.skip_layers}{kind}"):
        skipped = skipped_addresses(layers, options.skip_layers, options.wg)
    with error_prefix(f"stage_pr {options.stage_pr}"):
        plan = make_plan(layers, options.stage_pr, skipped, options.wg, method.rounded)
    if resumed_kept and {name: int((~kept).sum()) for name, kept in resumed_kept.items()} != plan.pruned:
        raise ValueError("the numbers of pruned groups in the checkpoint differ from its --stage_pr")
    return plan, None


def _plan_by_name(options: Options, network: _Network, resumed_kept: dict[str, Tensor]) -> Plan:
    """Make the plan of ``--ratios`` and ``--speedup``."""
    for flag in ("stage_pr", "base_pr_model", "directly_ft_weights", "skip_layers"):
        if getattr(options, flag):
            given = "ratios" if options.ratios else "speedup"
            raise ValueError(f"--{given} and --{flag} exclude each other: pass one")
    if options.wg == "channel":
        raise ValueError("--ratios and --speedup do not support --wg channel: use --wg filter or weight")
    with error_prefix(f"arch {options.arch}"):
        structure = network.structure
    layers = traced_layers(structure)
    if resumed_kept:  # resumed
        return inherit_plan(layers, options.wg, resumed_kept, "the checkpoint")
    rounded = PRUNERS[options.method].rounded
    if options.speedup is None:
        with error_prefix(f"ratios {options.ratios}"):
            return plan_by_name(layers, options.ratios, options.wg, rounded, options.round_to)
    if options.wg == "weight":
        raise ValueError("--speedup does not support --wg weight: masks do not reduce FLOPs")
    base = load_base_model(options, network.spec).model if options.rank == "global" else None
    scores = filter_scores(base, layers) if base else None
    with error_prefix(f"speedup {options.speedup:g}"):
        return plan_by_speedup(
            structure, layers, options.speedup, network.cost.flops, options.ratios, scores, options.round_to
        )


def _read_pruned(options: Options, flag: str) -> Checkpoint:
    """Read the file of a pruned network of another run."""
    with error_prefix(flag):
        path = find_one(getattr(options, flag))
        content = read_own(path, options.trust_checkpoint)
        if not content or not content.is_pruned:
            raise ValueError(f"{path} holds no pruned network of this program")
    arch, kind = content.options["arch"], content.options["wg"]
    if arch != options.arch:
        raise ValueError(f"--{flag}: {path} holds a {arch}, not a {options.arch}")
    if kind != options.wg:
        raise ValueError(f"--{flag}: {path} has pruned {kind}s: use --wg {kind}")
    return content


def _shapes_of(content: Checkpoint) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in content.model.items()}


def _fit_to_shapes(model: nn.Module, shapes: Shapes) -> nn.Module:
    return fit_to(model, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


def _shapes_of_pruned_base(options: Options) -> Shapes:
    """Return the tensor shapes of ``--base_model_path`` if it is a pruned network to be pruned again; else empty."""
    if not options.base_model_path or options.directly_ft_weights or not PRUNERS[options.method].prunes:
        return {}
    try:
        path = find_one(options.base_model_path)
    except ValueError:
        return {}  # a plan needs no weights; a run raises when it loads them
    with error_prefix("base_model_path"):
        own = read_own(path, options.trust_checkpoint, options.weights_key)
    return _shapes_of(own) if own and own.kept else {}


def _check_speedup(options: Options, planned: float, plan: Plan) -> None:
    rounded = options.round_to > 1 and (options.ratios or options.speedup)
    expected, tolerance = options.expect_speedup, 0.02 if rounded else 0.01
    if expected is None:
        return
    if plan.kind == "weight":
        raise ValueError("--expect_speedup does not support --wg weight: masks do not reduce FLOPs")
    if abs(planned / expected - 1) > tolerance:
        raise ValueError(f"--expect_speedup {expected:g}: this plan's speedup is {planned:.2f}x")
