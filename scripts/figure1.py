#!/usr/bin/env python3
"""The paper's Figure 1, for any layer of any run: python scripts/figure1.py FOLDER [--layer NAME] [--out FILE]

FOLDER has the files mag_<layer>.npz that a GReg run with --save_mag_reg_log --plot_interval N leaves in its log/.
Above, the spread of the filters' norms against λ, for every layer; below, the norms of one layer's filters at four
steps. The paper's own layer is layer2.3.conv1 of a ResNet50.
"""

import argparse
import sys
import zipfile
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MOMENTS = 4
SHOWN, OTHERS = "#D55E00", "#7f7f7f"


def read(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Layer -> ``steps`` (looks,), ``penalties`` (looks,) and ``scores`` (looks, filters), mean |w| by filter.

    Raises:
        ValueError: there are no such files.
    """
    found = {}
    for file in sorted(folder.glob("mag_*.npz")):
        with np.load(file) as data:
            found[file.stem.removeprefix("mag_")] = {key: data[key] for key in ("steps", "penalties", "scores")}
    if not found:
        raise ValueError(f"{folder} has no mag_<layer>.npz; give the run --save_mag_reg_log --plot_interval N")
    return found


def picture(layers: dict[str, dict[str, np.ndarray]], chosen: str) -> Figure:
    """Source: paper, figure 1. Its norm of a filter is the L1-norm; mean |w| differs by a factor alone."""
    figure = Figure(figsize=(12.5, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = cast(np.ndarray, figure.subfigures(2, 1))
    ax = above.subplots()
    for name, layer in sorted(layers.items(), key=lambda item: item[0] == chosen):  # the chosen one on top
        spread = layer["scores"].std(1) / layer["scores"].mean(1)
        ax.plot(layer["penalties"], spread, color=SHOWN if name == chosen else OTHERS, lw=2 if name == chosen else 0.8)
    ax.plot([], [], color=SHOWN, lw=2, label=chosen)
    ax.plot([], [], color=OTHERS, lw=0.8, label="the other layers that lose filters")
    ax.legend(frameon=False, loc="upper left")
    ax.set_xlabel("penalty λ, the same on every filter until the pick")
    ax.set_ylabel("std / mean of the filters' L1-norms")
    ax.set_ylim(bottom=0)
    layer = layers[chosen]
    looks = np.linspace(0, len(layer["steps"]) - 1, MOMENTS).round().astype(int)
    for i, (ax, look) in enumerate(zip(below.subplots(1, MOMENTS, sharey=True), looks, strict=True)):
        norms = layer["scores"][look]
        ax.bar(np.arange(len(norms)), norms / norms.max(), width=1.0, color="#0072B2")
        ax.set_title(f"step {layer['steps'][look]:,}, λ = {layer['penalties'][look]:.3g}", fontsize=10)
        ax.set_xlabel(f"filter of {chosen}")
        if not i:
            ax.set_ylabel("L1-norm / the largest")
    return figure


def save(figure: Figure, file: Path) -> None:
    """The same figure gives the same bytes: matplotlib's version is left out."""
    figure.savefig(file, dpi=110, metadata={"Software": None})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="figure1.py FOLDER [flags]",
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--layer", metavar="NAME", help="whose filters are drawn (default: the middle one)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="default: figure1.png in FOLDER")
    args = parser.parse_args(argv)
    try:
        layers = read(args.folder)
        names = list(layers)
        chosen = args.layer or names[len(names) // 2]
        if chosen not in layers:
            raise ValueError(f"--layer {chosen}: there are {', '.join(names)}")
        target = args.out or args.folder / "figure1.png"
        save(picture(layers, chosen), target)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        parser.exit(2, f"figure1.py: error: {error}\n")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
