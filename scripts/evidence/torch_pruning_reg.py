#!/usr/bin/env python3
"""Run main.py with an additional method, ``Torch-Pruning``: that library's GrowingReg, for comparison on equal terms.

Base network, data, ratio of each layer, cut and report are those of main.py; which penalties grow, by how much, and
which filters are pruned is the library's. Its own benchmarks make 100 updates (one per epoch) of 1e-5 from 1e-4 on, at
learning rate 0.01 (a tenth of it from epoch 60, a hundredth from 80) without weight decay, and rank all layers
together. Here the learning rate is constant and each layer has its own ratio. Over other numbers of steps, that is

    python scripts/evidence/torch_pruning_reg.py --method Torch-Pruning --reg_granularity_prune 1e-5 \\
        --reg_upper_limit 0.00099 --lr_prune 0.01 --wd 0 --stabilize_reg_interval 0 --update_reg_interval N …

In one process: with several GPUs visible, name one (--gpu).
"""

import sys
import warnings
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pruner import PRUNERS, Plan, Pruner, PruningContext, Schedule, groups
from pruner.greg import GReg1

STARTING_REG = 1e-4  # as in its benchmarks


class TorchPruning(Pruner):
    """Penalizes every channel of the layers to prune, weaker ones more; the weakest are pruned.

    Source: torch_pruning.pruner.GrowingRegPruner, with the importance of its benchmarks.
    """

    prunes = has_prune_phase = True
    ignores = ("reinit", "pick_pruned", "inherit_pruned")

    def __init__(self, model: nn.Module, plan: Plan, schedule: Schedule, grow: float, example: Tensor):
        self._model, self._plan, self._schedule, self._step, self._updates = model, plan, schedule, -1, 0
        names = {module: name for name, module in model.named_modules()}
        others = [m for m, name in names.items() if isinstance(m, (nn.Conv2d, nn.Linear)) and name not in plan.pruned]
        training = model.training
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._peer = tp.pruner.GrowingRegPruner(
                model, example, tp.importance.GroupMagnitudeImportance(p=2), reg=STARTING_REG, delta_reg=grow,
                ignored_layers=others,
            )  # fmt: skip
        model.train(training)
        self._groups = {names[group[0].dep.target.module]: group for group in self._peer._groups}

    @classmethod
    def make_schedule(cls, options, plan: Plan) -> Schedule:
        return GReg1.make_schedule(options, plan)

    @classmethod
    def check(cls, options, plan: Plan) -> None:
        if plan.kind != "filter":
            raise ValueError("--method Torch-Pruning prunes filters only: leave --wg at filter")

    @classmethod
    def build(cls, options, context: PruningContext) -> "TorchPruning":
        schedule = context.schedule
        assert schedule is not None
        assert context.structure is not None
        image = torch.zeros_like(context.structure.example, device=next(context.model.parameters()).device)
        return cls(context.model, context.plan, schedule, float(options.reg_granularity_prune), image)

    @property
    def status(self) -> str:
        return "growing" if self._updates < self._schedule.updates_to_finish else "stabilizing"

    @property
    def finished(self) -> bool:
        return self._step >= self._schedule.cut_after_step

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        self._step = step
        if self.status == "growing" and step % self._schedule.update_every_steps == 0:
            self._peer.update_reg()
            self._updates += 1

    @torch.no_grad()
    def after_backward(self) -> None:
        self._peer.regularize(self._model)

    def kept(self) -> dict[str, Tensor]:
        importance = self._peer.estimate_importance
        return {name: groups.keep(importance(self._groups[name]), n) for name, n in self._plan.pruned.items()}

    def gaps(self) -> dict[str, float]:
        """Return the current gap between kept and pruned filters of each layer; GReg's is a running average."""
        scores = self.scores()
        return {name: groups.gap(scores[name], kept).item() for name, kept in self.kept().items()}

    def scores(self) -> dict[str, Tensor]:
        return {
            name: groups.scores(self._model.get_parameter(f"{name}.weight"), "filter") for name in self._plan.pruned
        }

    def report(self) -> dict[str, float]:
        return {"lambda": max(reg.max().item() for reg in self._peer.group_reg.values())}

    def state_dict(self) -> dict:
        reg = {name: self._peer.group_reg[group] for name, group in self._groups.items()}
        return {"step": self._step, "updates": self._updates, "reg": reg}

    def load_state_dict(self, state: dict) -> None:
        self._step, self._updates = state["step"], state["updates"]
        for name, group in self._groups.items():
            self._peer.group_reg[group] = state["reg"][name]


if __name__ == "__main__":
    PRUNERS["Torch-Pruning"] = TorchPruning
    from main import main  # after the method is registered

    sys.exit(main())
