"""The pictures of RESULTS.md, from the reports in results/; colours of Okabe and Ito, told apart by marks as well."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLES = {
    "L1": ("#000000", "o"),
    "L1-longer": ("#999999", "s"),
    "GReg-1": ("#D55E00", "^"),
    "GReg-2": ("#0072B2", "v"),
    "scratch": ("#009E73", "x"),
}
SOURCE = "CIFAR-10 (JPEG q75), ResNet20"
Run = tuple[dict[str, str], dict[str, Any]]


def runs_of(results: Path, experiment: str) -> list[Run]:
    """Axes and report of each run that was made."""
    found = []
    for file in sorted((results / experiment).glob("*.json")):
        axes = dict(re.findall(r"(\w+)=([^,]+)", file.stem))
        found.append((axes, json.loads(file.read_text())))
    return found


def draw(results: Path, folder: Path) -> None:
    """Every picture whose runs have been made."""
    for name, picture in PICTURES.items():
        figure = picture(results)
        if figure:
            figure.savefig(folder / f"results_{name}.png", dpi=110, metadata={"Software": None})


def blank(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * columns, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def cut_against_penalty(results: Path) -> Figure | None:
    """Accuracy on both sides of the cut, raw and re-estimated, over the λ that was reached."""
    runs = runs_of(results, "lambda")
    ratios = sorted({axes["ratio"] for axes, _ in runs})
    if not ratios:
        return None
    figure, panels = blank(len(ratios), f"The cut of GReg-1 after 391 steps, by how far λ grew: {SOURCE}")
    lines = {
        "before, re-estimated": ("acc1_before_cut_bn", "#0072B2", "o-"),
        "after, re-estimated": ("acc1_after_cut_bn", "#D55E00", "o-"),
        "before, raw": ("acc1_before_cut", "#0072B2", "x:"),
        "after, raw": ("acc1_after_cut", "#D55E00", "x:"),
    }
    for ax, ratio in zip(panels, ratios, strict=True):
        here = sorted((float(axes["tau"]), report) for axes, report in runs if axes["ratio"] == ratio)
        ax.axhline(here[0][1]["acc1_base"], color="0.6", lw=0.8)
        ax.text(here[0][0], here[0][1]["acc1_base"] + 1, "base", color="0.4", fontsize=8)
        for label, (key, colour, style) in lines.items():
            ax.plot([tau for tau, _ in here], [report[key] for _, report in here], style, color=colour, label=label)
        ax.set_xscale("log")
        ax.set_xlabel("λ of the pruned filters at the cut (τ)")
        ax.set_title(f"{100 * float(ratio):g} % of the filters go", fontsize=10)
        ax.set_ylim(0, 100)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(frameon=False, loc="lower center")
    return figure


def accuracy_by_ratio(results: Path) -> Figure | None:
    """After fine-tuning, method by method, and what each is above one-shot L1."""
    runs = runs_of(results, "schedule")
    ratios = sorted({axes["ratio"] for axes, _ in runs}, key=float)
    if not ratios:
        return None
    figure, (left, right) = blank(2, f"After the same fine-tuning, best epoch on the test set, mean and std: {SOURCE}")
    for i, (method, (colour, mark)) in enumerate(STYLES.items()):
        means, errors, gains, places = [], [], [], []
        for place, ratio in enumerate(ratios):
            values = accuracies(runs, ratio=ratio, method=method)
            l1 = accuracies(runs, ratio=ratio, method="L1")
            if values and l1:
                places.append(place + 0.09 * (i - 2))
                means.append(statistics.fmean(values))
                errors.append(statistics.stdev(values) if len(values) > 1 else 0.0)
                gains.append(means[-1] - statistics.fmean(l1))
        left.errorbar(places, means, errors, color=colour, marker=mark, ls="none", capsize=2, label=method)
        right.errorbar(places, gains, errors, color=colour, marker=mark, ls="none", capsize=2)
    for ax in (left, right):
        ax.set_xticks(range(len(ratios)), ratios)
        ax.set_xlabel("pruning ratio of the blocks' first convs")
    left.set_ylabel("test accuracy, %")
    right.set_ylabel("points above one-shot L1")
    right.axhline(0, color="0.85", zorder=0)
    left.legend(frameon=False)
    return figure


def accuracy_by_rate(results: Path) -> Figure | None:
    """The same cut networks, fine-tuned from several learning rates."""
    tuned, runs = runs_of(results, "schedule"), runs_of(results, "lr")
    runs += [(axes | {"lr": "0.01"}, report) for axes, report in tuned]
    ratios = sorted({axes["ratio"] for axes, _ in runs if axes["lr"] != "0.01"}, key=float)
    if not ratios:
        return None
    figure, panels = blank(len(ratios), f"The same cut networks, fine-tuned from three learning rates: {SOURCE}")
    for ax, ratio in zip(panels, ratios, strict=True):
        for method in ("L1", "GReg-1", "GReg-2"):
            points = []
            for rate in ("0.001", "0.01", "0.1"):
                values = accuracies(runs, ratio=ratio, method=method, lr=rate)
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else 0.0
                    points.append((float(rate), statistics.fmean(values), spread))
            colour, mark = STYLES[method]
            if points:
                x, y, error = zip(*points, strict=True)
                ax.errorbar(x, y, error, color=colour, marker=mark, capsize=2, label=method)
        ax.set_xscale("log")
        ax.set_xlabel("first learning rate of fine-tuning")
        ax.set_title(f"{100 * float(ratio):g} % of the filters gone", fontsize=10)
    panels[0].set_ylabel("test accuracy, best epoch, %")
    panels[0].legend(frameon=False)
    return figure


def accuracies(runs: list[Run], **wanted: str) -> list[float]:
    """``acc1_best`` of the runs with these axes."""
    return [report["acc1_best"] for axes, report in runs if wanted.items() <= axes.items()]


PICTURES = {"cut": cut_against_penalty, "schedule": accuracy_by_ratio, "lr": accuracy_by_rate}
