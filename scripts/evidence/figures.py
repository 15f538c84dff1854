"""The pictures of RESULTS.md, listed in ``PICTURES``; colors of Okabe and Ito, which markers tell apart as well."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from scripts.evidence.reports import Report
from scripts.evidence.runs import (
    BY_LENGTH,
    Run,
    accuracy_by_seed,
    dense_equivalent_steps,
    gains,
    lead_over_curve,
    mean_and_std,
    select_by_length,
    select_by_rate,
    select_full,
    total_steps,
)
from scripts.figure1 import save

STYLES = {  # method -> color, marker
    "L1": ("#000000", "o"),
    "L1-longer": ("#999999", "s"),
    "GReg-1": ("#D55E00", "^"),
    "GReg-2": ("#0072B2", "v"),
    "scratch": ("#009E73", "x"),
}
DATA = "CIFAR-10 (JPEG q75)"
SOURCE = f"{DATA}, ResNet20"
Point = tuple[float, float, float]  # x, mean, standard deviation
Select = Callable[[dict[str, list[Run]]], list[Run]]
# Where a point's label lies, clear of L1's rising line: horizontal alignment, shift in points.
Label = tuple[str, tuple[float, float]]
ABOVE_LINE: Label = ("right", (-6, 5))
RIGHT_OF_LINE: Label = ("left", (7, -3))
BELOW_LINE: Label = ("center", (0, -17))


def draw_all(runs: dict[str, list[Run]], folder: Path) -> None:
    """Draw every picture that has finished runs, as ``results_<name>.png`` in `folder`.

    Args:
        runs: experiment -> its finished runs.
    """
    for name, draw in PICTURES.items():
        figure = draw(runs)
        if figure:
            save(figure, folder / f"results_{name}.png")


def make_panels(columns: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * columns, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def plot_method(ax: Axes, points: list[Point], method: str, line: str) -> None:
    """Plot a method's points with error bars."""
    if points:
        x, mean, std = zip(*points, strict=True)
        color, marker = STYLES[method]
        ax.errorbar(x, mean, std, color=color, marker=marker, ls=line, capsize=2, label=method)


def ratios_of(runs: list[Run]) -> list[str]:
    return sorted({axes["ratio"] for axes, _ in runs}, key=float)


def draw_cut(runs: dict[str, list[Run]]) -> Figure | None:
    """Draw accuracy before and after the cut, raw and re-estimated, against the final λ."""
    ratios = ratios_of(runs["lambda"])
    if not ratios:
        return None
    figure, panels = make_panels(len(ratios), f"The cut of GReg-1 after 391 steps, by how far λ grew: {SOURCE}")
    lines = {
        "before, re-estimated": ("acc1_before_cut_bn", "#0072B2", "o-"),
        "after, re-estimated": ("acc1_after_cut_bn", "#D55E00", "o-"),
        "before, raw": ("acc1_before_cut", "#0072B2", "x:"),
        "after, raw": ("acc1_after_cut", "#D55E00", "x:"),
    }
    for ax, ratio in zip(panels, ratios, strict=True):
        by_penalty = {float(axes["tau"]): report for axes, report in runs["lambda"] if axes["ratio"] == ratio}
        penalties = sorted(by_penalty)
        base = by_penalty[penalties[0]]["acc1_base"]
        ax.axhline(base, color="0.6", lw=0.8)
        ax.text(penalties[0], base + 1, "base", color="0.4", fontsize=8)
        for label, (key, color, style) in lines.items():
            ax.plot(penalties, [by_penalty[tau][key] for tau in penalties], style, color=color, label=label)
        ax.set_xscale("log")
        ax.set_xlabel("λ of the pruned filters at the cut (τ)")
        ax.set_title(f"{100 * float(ratio):g} % of the filters go", fontsize=10)
        ax.set_ylim(0, 100)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(frameon=False, loc="lower center")
    return figure


def draw_schedule(runs: dict[str, list[Run]], experiment: str, net: str) -> Figure | None:
    """Draw accuracy after fine-tuning by ratio, and the gain of each method over one-shot L1."""
    members = runs[experiment]
    ratios = ratios_of(members)
    if not ratios:
        return None
    over = "mean and std over seeds" if len({report["seed"] for _, report in members}) > 1 else "one seed"
    figure, (left, right) = make_panels(2, f"After fine-tuning, best epoch on the test set, {over}: {DATA}, {net}")
    for i, method in enumerate(STYLES):
        accuracy: list[Point] = []
        gain: list[Point] = []
        for position, ratio in enumerate(ratios):
            x = position + 0.09 * (i - 2)
            values = list(accuracy_by_seed(members, ratio=ratio, method=method).values())
            differences = gains(members, ratio, method, "L1")
            accuracy += [(x, *mean_and_std(values))] if values else []
            gain += [(x, *mean_and_std(differences))] if differences else []
        plot_method(left, accuracy, method, "none")
        if method != "scratch":  # far below: the scale would hide the differences of the others
            plot_method(right, gain, method, "none")
    for ax in (left, right):
        ax.set_xticks(range(len(ratios)), ratios)
        ax.set_xlabel("pruning ratio of the blocks' first convs")
    left.set_ylabel("test accuracy, %")
    right.set_ylabel("points above one-shot L1, seed by seed")
    right.axhline(0, color="0.85", zorder=0)
    left.legend(frameon=False)
    return figure


def draw_rates(runs: dict[str, list[Run]]) -> Figure | None:
    """Draw accuracy of the same cut networks against the first learning rate of fine-tuning."""
    selected = select_by_rate(runs)
    ratios = ratios_of(selected)
    if not ratios:
        return None
    figure, panels = make_panels(len(ratios), f"The same cut networks, fine-tuned from three learning rates: {SOURCE}")
    for ax, ratio in zip(panels, ratios, strict=True):
        for method in ("L1", "GReg-1", "GReg-2"):
            points = [
                (float(rate), *mean_and_std([*values.values()]))
                for rate in ("0.001", "0.01", "0.1")
                if (values := accuracy_by_seed(selected, ratio=ratio, method=method, lr=rate))
            ]
            plot_method(ax, points, method, "-")
        ax.set_xscale("log")
        ax.set_xlabel("first learning rate of fine-tuning")
        ax.set_title(f"{100 * float(ratio):g} % of the filters gone", fontsize=10)
    panels[0].set_ylabel("test accuracy, best epoch, %")
    panels[0].legend(frameon=False)
    return figure


def draw_lengths(runs: dict[str, list[Run]], select: Select, ratio: str, labels: tuple[Label, Label]) -> Figure | None:
    """Draw accuracy against total steps, and against their FLOPs; `labels` places those of GReg-1's points in each."""
    selected = [(axes, report) for axes, report in select(runs) if axes["ratio"] == ratio]
    if not any(axes["method"] == "GReg-1" for axes, _ in selected):
        return None
    title = f"{100 * float(ratio):g} % of the filters gone, by length of training, mean and std over seeds: {SOURCE}"
    figure, (left, right) = make_panels(2, title)
    plot_lengths(left, selected, total_steps, labels[0])
    plot_lengths(right, selected, dense_equivalent_steps, labels[1])
    left.set_xlabel("steps in all (GReg-1: before + after the cut)")
    right.set_xlabel("arithmetic, in steps of the uncut network")
    left.set_ylabel("test accuracy, best epoch, %")
    left.legend(frameon=False, loc="upper left")
    return figure


def plot_lengths(ax: Axes, runs: list[Run], length: Callable[[Report], float], label: Label) -> None:
    """Plot accuracy against `length`: L1 and scratch as lines, GReg-1 as labelled points."""
    groups = {(axes["method"], axes["before"], axes["tuned"]): report for axes, report in runs}
    points = {
        (method, before, tuned): (
            length(report),
            *mean_and_std([*accuracy_by_seed(runs, method=method, before=before, tuned=tuned).values()]),
        )
        for (method, before, tuned), report in groups.items()
    }
    for method, line in {"L1": "-", "scratch": ":", "GReg-1": "none"}.items():
        plot_method(ax, sorted(point for key, point in points.items() if key[0] == method), method, line)
    side, shift = label
    for (method, before, tuned), (x, y, _) in points.items():
        if method == "GReg-1":
            text = f"{int(before):,} + {int(tuned):,}"
            ax.annotate(text, (x, y), shift, textcoords="offset points", ha=side, fontsize=8)
    ax.set_xscale("log")
    ax.margins(0.3, 0.1)
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_locator(NullLocator())


def draw_trend(runs: dict[str, list[Run]], ratio: str) -> Figure | None:
    """Draw GReg-1's lead over L1 against its steps before the cut: short schedules filled, full length open."""
    figure, (ax,) = make_panels(1, f"GReg-1 − L1 by length, {100 * float(ratio):g} % of the filters gone\n{SOURCE}")
    styles: dict[str, tuple[Callable[[Report], float], str, str]] = {
        "at equal steps": (total_steps, *STYLES["GReg-1"]),
        "at equal FLOPs": (dense_equivalent_steps, *STYLES["GReg-2"]),
    }
    for select in BY_LENGTH:
        selected, fill = select(runs), "none" if select is select_full else "full"
        for label, (length, color, marker) in styles.items():
            leads = lead_over_curve(selected, ratio, length)
            points = [(before, lead, tuned) for (before, tuned), lead in leads.items() if lead is not None]
            for before, lead, tuned in points:
                ax.plot(before, lead, marker, color=color, fillstyle=fill, label=label)
                ax.annotate(f"+ {tuned:,}", (before, lead), (6, -3), textcoords="offset points", fontsize=8)
    if not ax.lines:
        return None
    ax.axhline(0, color="0.85", zorder=0)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.margins(0.2, 0.15)
    ax.set_xlabel("steps before the cut (beside each point: steps after it)")
    ax.set_ylabel("points above L1")
    handles = {str(line.get_label()): line for line in ax.get_lines() if not str(line.get_label()).startswith("_")}
    ax.legend(handles.values(), handles, frameon=False)
    return figure


PICTURES: dict[str, Callable[[dict[str, list[Run]]], Figure | None]] = {
    "cut": draw_cut,
    "schedule": partial(draw_schedule, experiment="schedule", net="ResNet20"),
    "schedule56": partial(draw_schedule, experiment="schedule56", net="ResNet56"),
    "lengths": partial(draw_lengths, select=select_by_length, ratio="0.9", labels=(ABOVE_LINE, RIGHT_OF_LINE)),
    "full": partial(draw_lengths, select=select_full, ratio="0.9", labels=(BELOW_LINE, BELOW_LINE)),
    "trend": partial(draw_trend, ratio="0.9"),
    "lr": draw_rates,
}
