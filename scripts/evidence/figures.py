"""The pictures of RESULTS.md, named in ``PICTURES``; colours of Okabe and Ito, told apart by marks too."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from scripts.evidence.runs import Run, accuracies, arithmetic, by_length, by_rate, gains, mean_and_std, steps
from scripts.figure1 import save

STYLES = {
    "L1": ("#000000", "o"),
    "L1-longer": ("#999999", "s"),
    "GReg-1": ("#D55E00", "^"),
    "GReg-2": ("#0072B2", "v"),
    "scratch": ("#009E73", "x"),
}
DATA = "CIFAR-10 (JPEG q75)"
SOURCE = f"{DATA}, ResNet20"


def draw(reports: dict[str, list[Run]], folder: Path) -> None:
    """Every picture whose runs have been made, as ``results_<name>.png`` in `folder`.

    Args:
        reports: experiment -> runs.
    """
    for name, picture in PICTURES.items():
        figure = picture(reports)
        if figure:
            save(figure, folder / f"results_{name}.png")


def blank(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * columns, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def plot(ax: Axes, points: list[tuple[float, float, float]], method: str, line: str) -> None:
    """A method's (x, mean, deviation)."""
    if points:
        x, y, error = zip(*points, strict=True)
        colour, mark = STYLES[method]
        ax.errorbar(x, y, error, color=colour, marker=mark, ls=line, capsize=2, label=method)


def cut_against_penalty(reports: dict[str, list[Run]]) -> Figure | None:
    """Accuracy on both sides of the cut, raw and re-estimated, over the λ that was reached."""
    runs = reports["lambda"]
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
        here = sorted(
            ((float(axes["tau"]), report) for axes, report in runs if axes["ratio"] == ratio),
            key=lambda point: point[0],
        )
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


def accuracy_by_ratio(reports: dict[str, list[Run]], experiment: str, net: str) -> Figure | None:
    """After fine-tuning, method by method, and what each is above one-shot L1."""
    runs = reports[experiment]
    ratios = sorted({axes["ratio"] for axes, _ in runs}, key=float)
    if not ratios:
        return None
    over = "mean and std over seeds" if len({report["seed"] for _, report in runs}) > 1 else "one seed"
    figure, (left, right) = blank(2, f"After fine-tuning, best epoch on the test set, {over}: {DATA}, {net}")
    for i, method in enumerate(STYLES):
        levels: list[tuple[float, float, float]] = []
        above: list[tuple[float, float, float]] = []
        for place, ratio in enumerate(ratios):
            found = [*accuracies(runs, ratio=ratio, method=method).values()]
            for points, values in ((levels, found), (above, gains(runs, ratio, method, "L1"))):
                points += [(place + 0.09 * (i - 2), *mean_and_std(values))] if values else []
        plot(left, levels, method, "none")
        if method != "scratch":  # far below: the others would not be told apart
            plot(right, above, method, "none")
    for ax in (left, right):
        ax.set_xticks(range(len(ratios)), ratios)
        ax.set_xlabel("pruning ratio of the blocks' first convs")
    left.set_ylabel("test accuracy, %")
    right.set_ylabel("points above one-shot L1, seed by seed")
    right.axhline(0, color="0.85", zorder=0)
    left.legend(frameon=False)
    return figure


def accuracy_by_rate(reports: dict[str, list[Run]]) -> Figure | None:
    """The same cut networks, fine-tuned from several learning rates."""
    runs = by_rate(reports)
    ratios = sorted({axes["ratio"] for axes, _ in runs}, key=float)
    if not ratios:
        return None
    figure, panels = blank(len(ratios), f"The same cut networks, fine-tuned from three learning rates: {SOURCE}")
    for ax, ratio in zip(panels, ratios, strict=True):
        for method in ("L1", "GReg-1", "GReg-2"):
            points = [
                (float(rate), *mean_and_std([*found.values()]))
                for rate in ("0.001", "0.01", "0.1")
                if (found := accuracies(runs, ratio=ratio, method=method, lr=rate))
            ]
            plot(ax, points, method, "-")
        ax.set_xscale("log")
        ax.set_xlabel("first learning rate of fine-tuning")
        ax.set_title(f"{100 * float(ratio):g} % of the filters gone", fontsize=10)
    panels[0].set_ylabel("test accuracy, best epoch, %")
    panels[0].legend(frameon=False)
    return figure


def accuracy_by_length(reports: dict[str, list[Run]], ratio: str) -> Figure | None:
    """L1 and GReg-1 over the steps that they had in all, and over their arithmetic."""
    runs = [(axes, report) for axes, report in by_length(reports) if axes["ratio"] == ratio]
    if not runs:
        return None
    one_of = {(axes["method"], axes["before"], axes["tuned"]): report for axes, report in runs}
    gone = f"{100 * float(ratio):g} % of the filters gone"
    figure, panels = blank(2, f"{gone}, by length of training, mean and std over seeds: {SOURCE}")
    # GReg-1's points lie on one side of L1's line in each panel, and so do their names.
    views = (lambda report: sum(steps(report)), "right", (-6, 5)), (arithmetic, "left", (6, -9))
    for ax, (length, side, shift) in zip(panels, views, strict=True):
        points = {
            (method, before, tuned): (
                length(report),
                *mean_and_std([*accuracies(runs, method=method, before=before, tuned=tuned).values()]),
            )
            for (method, before, tuned), report in one_of.items()
        }
        for method, line in {"L1": "-", "GReg-1": "none"}.items():
            plot(ax, sorted(point for key, point in points.items() if key[0] == method), method, line)
        for (method, before, tuned), (x, y, _) in points.items():
            if method == "GReg-1":
                ax.annotate(f"{before} + {tuned}", (x, y), shift, textcoords="offset points", ha=side, fontsize=8)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(0.27, 0.1)
    panels[0].set_xlabel("steps in all (GReg-1: before + after the cut)")
    panels[1].set_xlabel("arithmetic, in steps of the uncut network")
    panels[0].set_ylabel("test accuracy, best epoch, %")
    panels[0].legend(frameon=False, loc="upper left")
    return figure


PICTURES: dict[str, Callable[[dict[str, list[Run]]], Figure | None]] = {
    "cut": cut_against_penalty,
    "schedule": partial(accuracy_by_ratio, experiment="schedule", net="ResNet20"),
    "schedule56": partial(accuracy_by_ratio, experiment="schedule56", net="ResNet56"),
    "lengths": partial(accuracy_by_length, ratio="0.9"),
    "lr": accuracy_by_rate,
}
