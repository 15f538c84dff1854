"""Base of GReg-1, GReg-2 and FixReg: penalties, updates, gaps and the state of each layer."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import groups, selection
from .base import PruningContext
from .loop import InLoop
from .options import PrunerOptions
from .penalty import Factors, FilterFactors, GroupFactors, Penalty, RegularizedLayer
from .plan import Plan
from .schedule import Schedule
from .settings import Settings

log = logging.getLogger(__name__)


class _PendingGaps:
    """Gaps in transfer from the device to the host.

    Attributes:
        step, layers: of which update they are, and of what.
        gaps: one per layer, (layers,).
    """

    def __init__(self, step: int, layers: list[RegularizedLayer], gaps: Tensor):
        self.step, self.layers, self._gaps, self._arrived = step, layers, gaps, None
        if gaps.is_cuda:
            self._gaps = torch.empty(gaps.shape, dtype=gaps.dtype, pin_memory=True).copy_(gaps, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    @property
    def gaps(self) -> Tensor:
        """Waits for the device if the transfer is not complete."""
        if self._arrived:
            self._arrived.synchronize()
        return self._gaps

    def state_dict(self) -> dict:
        return {"step": self.step, "layers": [layer.name for layer in self.layers], "gaps": self.gaps}


def penalizes_groups(options: PrunerOptions, plan: Plan) -> bool:
    """Whether λ acts on every parameter that the cut removes: by default where layers are named by --ratios."""
    by_default = "filter" if options.stage_pr or plan.kind != "filter" else "group"
    return (options.penalize or by_default) == "group"


class GReg(InLoop):
    """Base class: updates of λ every K_u steps, the gradient λw, and K_s steps with λ frozen.

    In a training loop of one's own (``InLoop``):

        pruner = GReg1(network, example, speedup=2.0, steps=3000).attach(optimizer)

    Args:
        network: to prune, with its trained weights.
        example: the argument of the network, e.g. one image (1, channels, height, width).
        speedup: FLOPs before / after the cut; or
        ratios: pruning ratios by module name, ``"layer3.*.conv1:0.5"``.
        steps: optimizer steps until the cut, into which the schedule fits; None: the schedule of the settings.
        rank: ``uniform`` or ``global``, with `speedup`.
        round_to: keep a multiple of this many filters.
        settings: fields of ``Settings``.

    Raises:
        ValueError: the network cannot be traced, pruned so far, or the cut cannot be proved right.

    Attributes:
        milestones: what has happened -> the step at which it did.
    """

    prunes = True
    has_prune_phase = True
    penalty: Penalty
    _built: dict[str, Any] = {}  # noqa: RUF012 - plan and schedule in a user's loop; the command line compares its flags
    gap_kinds: tuple[str, ...] = ("filter", "channel")  # the original follows no gap of single weights

    def __init__(
        self,
        network: nn.Module,
        example: Any,
        *,
        speedup: float | None = None,
        ratios: str | Mapping[str, float] | None = None,
        steps: int | None = None,
        rank: str = "uniform",
        round_to: int = 1,
        **settings: Any,
    ):
        options = Settings.of(type(self), steps, settings)
        self._prepare(options, network, example, speedup, ratios, rank, round_to)
        self._built = {
            "method": type(self).__name__,
            "plan": self.plan.pruned,
            "penalize": "group" if penalizes_groups(options, self.plan) else "filter",
            "block_loss_grad": options.block_loss_grad,
        } | {name: str(value) for name, value in vars(self.schedule).items()}

    @classmethod
    def check(cls, options: PrunerOptions, plan: Plan) -> None:
        if penalizes_groups(options, plan) and plan.kind != "filter":
            raise ValueError(f"--penalize group needs --wg filter: with --wg {plan.kind} λ is on the weights alone")

    @classmethod
    def make_schedule(cls, options: PrunerOptions, plan: Plan) -> Schedule:
        return Schedule(
            update_every_steps=options.update_reg_interval,
            stabilize_steps=options.stabilize_reg_interval,
            grow=options.reg_granularity_prune,
            grow_pick=options.reg_granularity_pick,
            limit=options.reg_upper_limit,
            limit_pick=options.reg_upper_limit_pick,
            keep=options.reg_granularity_recover,
            gap_limit=options.mag_ratio_limit,
            picks_later=cls.picks_later,
            empty=not plan.pruned,
        )

    def _l1(self, options: PrunerOptions, context: PruningContext) -> tuple[dict[str, Tensor], selection.Comparison]:
        """Select the groups that L1 keeps of the initial weights, or take those that another run kept."""
        return selection.picks(options, context)

    def _begin(self, options: PrunerOptions, context: PruningContext) -> None:
        model, plan, schedule = context.model, context.plan, context.schedule
        assert schedule is not None  # ``make_schedule`` of these methods gives one
        self.schedule, self.kind = schedule, plan.kind
        self.layers = [
            RegularizedLayer(
                p.layer.name,
                model.get_parameter(f"{p.layer.name}.weight"),
                plan.kind,
                p.pruned,
                p.layer.width_of(plan.kind),
            )
            for p in plan.layers
            if p.pruned
        ]
        blocked = [model.get_parameter(f"{p.layer.name}.weight") for p in plan.layers if options.block_loss_grad]
        factors: Factors = FilterFactors(self.layers)
        if context.structure and self.layers and penalizes_groups(options, plan):
            factors = GroupFactors(model, self.layers, context.structure)
        self.penalty = Penalty(factors, blocked)
        self._l1_picks, self._comparison = self._l1(options, context)
        self.milestones: dict[str, int] = {}
        self.decisions = 0
        # On a GPU gaps are read at the next update, without a host sync; since nothing grows in between, λ and
        # selections are the same. A short stabilization leaves no time for that.
        on_gpu = any(layer.weight.is_cuda for layer in self.layers)
        self.reads_late = on_gpu and schedule.stabilize_steps >= schedule.update_every_steps
        self._pending: _PendingGaps | None = None
        self._step = -1
        self._finished_at: int | None = None  # T, the step at whose update the last layer finished

    @property
    def penalized(self) -> Sequence[nn.Parameter]:
        return self.penalty.parameters

    @property
    def status(self) -> str:
        """``growing`` while λ grows, ``stabilizing`` while it is frozen."""
        return "growing" if self._finished_at is None else "stabilizing"

    @property
    def finished(self) -> bool:
        if self._finished_at is None:
            return False
        return self._step - self._finished_at >= self.schedule.stabilize_steps

    def before_step(self, step: int) -> None:
        self._step = step
        if self.status == "growing" and step % self.schedule.update_every_steps == 0:
            self._read_gaps()
            if self.status == "growing":
                self._update(step)

    @torch.no_grad()
    def _update(self, step: int) -> None:
        """Raise λ, then find the layers that are done.

        Source: paper, sections 3.2 and 3.3; the gap as a second way to finish follows the original: of layers that
        have picked. Before that a wide gap ends nothing: a layer with dead filters has an infinite one from the start.
        """
        growing = [layer for layer in self.layers if not layer.finished]
        for layer in growing:
            layer.updates += 1
            self._grow(layer, step)
        picked = [layer for layer in growing if layer.kept is not None]
        if picked and self.kind in self.gap_kinds:
            gaps = [layer.gap for layer in picked if layer.gap is not None]
            self._pending = _PendingGaps(step, picked, torch.stack(gaps))
            if not self.reads_late:
                self._read_gaps()
        for layer in growing:
            if not layer.finished and layer.updates >= self.schedule.updates_to_finish:
                layer.finished = True
                self.decisions += 1
        self._stop_if_all_finished(step)

    def _read_gaps(self) -> None:
        """End the layers whose gaps were wide at the last update."""
        if self._pending is None:
            return
        step, layers, gaps = self._pending.step, self._pending.layers, self._pending.gaps.tolist()
        self._pending = None
        for layer, wide in zip(layers, self._wide(gaps), strict=True):
            if wide and not layer.finished:
                layer.finished = True
                self.decisions += 1
        self._stop_if_all_finished(step)

    def _stop_if_all_finished(self, step: int) -> None:
        if self._finished_at is None and all(layer.finished for layer in self.layers):
            self._finished_at = self.milestones["λ stops"] = step
            self.decisions += 1
            log.info("step %d: λ is frozen for %d steps", step, self.schedule.stabilize_steps)

    def _grow(self, layer: RegularizedLayer, step: int) -> None:
        raise NotImplementedError

    def _wide(self, gaps: list[float]) -> list[bool]:
        """For each growing layer with a selection, whether its gap ends it."""
        raise NotImplementedError

    def _set_penalty(self, layer: RegularizedLayer) -> None:
        schedule = self.schedule
        layer.set_penalty(float(schedule.penalty(layer.updates)), float(schedule.penalty_kept(layer.updates)))
        self.penalty.set_stale()

    def after_backward(self) -> None:
        """Add the penalty's gradient, λ_g·w, to the loss's; weight decay in the same pass, or in the optimizer.

        Source: paper, section 3.2: an L2 penalty ½·λ_g·w² whose factor grows.
        """
        self.penalty.add_gradients()

    def kept(self) -> dict[str, Tensor]:
        return {layer.name: layer.kept for layer in self.layers if layer.kept is not None}

    def report(self) -> dict[str, float]:
        """The largest λ of the net, and each layer's gap, for the log."""
        penalties = {"lambda": max((layer.largest_penalty for layer in self.layers), default=0.0)}
        return penalties | {f"gap/{name}": gap for name, gap in self.gaps().items()}

    def comparison(self) -> selection.Comparison:
        return self._comparison

    def gaps(self) -> dict[str, float]:
        """Layer name -> running average of the gap; of single weights, where it ends nothing, the current gap."""
        gaps = {layer.name: layer.gap for layer in self.layers}
        if self.gap_kinds and self.kind not in self.gap_kinds:
            gaps = {
                layer.name: groups.gap(layer.scores(), layer.kept) for layer in self.layers if layer.kept is not None
            }
        return {name: gap.item() for name, gap in gaps.items() if gap is not None}

    def scores(self) -> dict[str, Tensor]:
        return {layer.name: layer.scores() for layer in self.layers}

    def fingerprint(self) -> int:
        progress = [(layer.name, layer.updates, layer.finished) for layer in self.layers]
        return selection.digest((self._finished_at, progress), self.kept())

    def state_dict(self) -> dict:
        """The state, including gaps not yet read: saving changes nothing."""
        layers = {
            layer.name: {
                "updates": layer.updates,
                "finished": layer.finished,
                "kept": layer.kept,
                "gap": layer.gap,
            }
            for layer in self.layers
        }
        return {
            "step": self._step,
            "decisions": self.decisions,
            "finished_at": self._finished_at,
            "layers": layers,
            "pending": self._pending.state_dict() if self._pending else None,
            "l1_picks": self._l1_picks,
            "comparison": self._comparison,
            "milestones": self.milestones,
            **({"built": self._built} if self._built else {}),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state`, a result of ``state_dict``.

        Raises:
            ValueError: `state` is of a pruner of another method, plan or schedule.
        """
        if "step" not in state:
            raise ValueError(f"the state is not of a {type(self).__name__}")
        for name, value in state.get("built", {}).items():
            if self._built.get(name, value) != value:
                raise ValueError(
                    f"the state is of a pruner with another {name}: {value}, here {self._built[name]}; build the "
                    "pruner as it was built then, from the base network's weights"
                )
        self._made = state["step"] + 1
        self._step, self._finished_at, self.decisions = state["step"], state["finished_at"], state["decisions"]
        self._comparison, self.milestones = dict(state["comparison"]), dict(state["milestones"])
        self._l1_picks = {name: mask.to(self._l1_picks[name].device) for name, mask in state["l1_picks"].items()}
        for layer in self.layers:
            for key, value in state["layers"][layer.name].items():
                setattr(layer, key, value.to(layer.weight.device) if isinstance(value, Tensor) else value)
            self._set_penalty(layer)
        pending = state.get("pending")  # older checkpoints have none: what was to be read was read before saving
        by_name = {layer.name: layer for layer in self.layers}
        self._pending = pending and _PendingGaps(
            pending["step"], [by_name[name] for name in pending["layers"]], pending["gaps"]
        )
