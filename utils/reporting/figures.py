"""Figures of a run."""

from pathlib import Path

import numpy as np
from torch import Tensor

from utils.reporting.snapshots import ScoreHistory

KEPT, PRUNED, MARK = "#1f77b4", "#d62728", "0.35"


def norms_figure(history: ScoreHistory, kept: dict[str, Tensor], milestones: dict[str, int], path: Path) -> None:
    """Plot the spread of filter norms while λ grows: each filter of three layers, then the spread of every layer.

    Source: the figure of the paper's introduction, row 1 (spread over λ); the traces by filter are ours.

    Args:
        kept: layer name -> bool (groups,), for the colors.
        milestones: label -> step, drawn as dotted lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here: most commands draw nothing
    from matplotlib.figure import Figure

    names = list(history.scores)
    detailed = [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})]
    figure = Figure(figsize=(4.2 * (len(detailed) + 1), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(detailed) + 1)
    steps = history.steps
    for ax, name in zip(axes, detailed, strict=False):
        scores = history.scores[name]  # (snapshots, groups)
        scores = scores / scores[0].mean()
        is_kept = kept[name].cpu().numpy()
        for group in np.argsort(is_kept):
            ax.plot(steps, scores[:, group], color=KEPT if is_kept[group] else PRUNED, lw=0.9, alpha=0.75)
        ax.set_yscale("log")
        ax.set_ylim(bottom=max(scores[scores > 0].min(), 1e-6) / 2)
        ax.set_title(f"{name}: {len(is_kept)} groups, {int((~is_kept).sum())} pruned", fontsize=10)
        ax.set_xlabel("step of the prune phase")
        _mark(ax, milestones)
    axes[0].set_ylabel("mean |w| of a group, relative to the layer's at step 0")
    axes[0].plot([], [], color=KEPT, label="kept")
    axes[0].plot([], [], color=PRUNED, label="pruned")
    axes[0].legend(loc="lower left", frameon=False)

    last = axes[-1]
    for name in names:
        scores = history.scores[name]
        color = {detailed[0]: "C2", detailed[-1]: "C4"}.get(name, "0.75")
        last.plot(history.penalties, scores.std(1) / scores.mean(1), color=color, lw=1.4 if color[0] == "C" else 0.8,
                  label=name if color[0] == "C" else None)  # fmt: skip
    last.set_xlabel("penalty λ of the pruned groups")
    last.set_title("spread of norms: std / mean, all layers", fontsize=10)
    last.legend(frameon=False)
    figure.suptitle("Growing regularization: the groups' norms spread while λ grows")
    figure.savefig(path, dpi=110)


def _mark(ax, milestones: dict[str, int]) -> None:
    """Mark GReg-2's selection and the end of growth by dotted lines."""
    for text, step in milestones.items():
        ax.axvline(step, color=MARK, ls=":", lw=1)
        ax.text(step, 0.985, f" {text}", transform=ax.get_xaxis_transform(), color=MARK, fontsize=8, va="top")
