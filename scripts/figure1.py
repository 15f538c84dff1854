#!/usr/bin/env python3
"""The paper's Figure 1, for any layer of any run: python scripts/figure1.py FOLDER [--layer NAME] [--out FILE]

FOLDER holds the files mag_<layer>.npz that a GReg run with --save_mag_reg_log --plot_interval N writes to its log/.
Above: the spread of the filter norms of every layer against λ. Below: the norms of one layer's filters at four steps.
The paper shows layer2.3.conv1 of a ResNet50.
"""

import argparse
import sys
import zipfile
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

N_SNAPSHOTS = 4
CHOSEN, OTHERS = "#D55E00", "#7f7f7f"


def read_magnitudes(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return layer -> ``steps`` and ``penalties`` (snapshots,) and ``scores`` (snapshots, filters), mean |w| by filter.

    Raises:
        ValueError: there are no such files.
    """
    layers = {}
    for file in sorted(folder.glob("mag_*.npz")):
        with np.load(file) as data:
            layers[file.stem.removeprefix("mag_")] = {key: data[key] for key in ("steps", "penalties", "scores")}
    if not layers:
        raise ValueError(f"{folder} has no mag_<layer>.npz; give the run --save_mag_reg_log --plot_interval N")
    return layers


def draw_figure1(layers: dict[str, dict[str, np.ndarray]], chosen: str) -> Figure:
    """Draw the spread of filter norms against λ for all layers, and the norms of one layer's filters at four steps.

    Source: paper, figure 1. It shows L1-norms; mean |w| differs from them by a constant factor.
    """
    figure = Figure(figsize=(12.5, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = cast(np.ndarray, figure.subfigures(2, 1))
    ax = above.subplots()
    for name, layer in sorted(layers.items(), key=lambda item: item[0] == chosen):  # the chosen one on top
        spread = layer["scores"].std(1) / layer["scores"].mean(1)
        ax.plot(layer["penalties"], spread, color=CHOSEN if name == chosen else OTHERS, lw=2 if name == chosen else 0.8)
    ax.plot([], [], color=CHOSEN, lw=2, label=chosen)
    ax.plot([], [], color=OTHERS, lw=0.8, label="the other layers that lose filters")
    ax.legend(frameon=False, loc="upper left")
    ax.set_xlabel("largest penalty λ in the layer")
    ax.set_ylabel("std / mean of the filters' L1-norms")
    ax.set_ylim(bottom=0)
    layer = layers[chosen]
    snapshots = np.linspace(0, len(layer["steps"]) - 1, N_SNAPSHOTS).round().astype(int)
    for i, (ax, snapshot) in enumerate(zip(below.subplots(1, N_SNAPSHOTS, sharey=True), snapshots, strict=True)):
        norms = layer["scores"][snapshot]
        ax.bar(np.arange(len(norms)), norms / norms.max(), width=1.0, color="#0072B2")
        ax.set_title(f"step {layer['steps'][snapshot]:,}, λ = {layer['penalties'][snapshot]:.3g}", fontsize=10)
        ax.set_xlabel(f"filter of {chosen}")
        if not i:
            ax.set_ylabel("L1-norm / the largest")
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a PNG without matplotlib's version, so that the same figure gives the same bytes."""
    figure.savefig(file, dpi=110, metadata={"Software": None})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="figure1.py FOLDER [flags]",
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--layer", metavar="NAME", help="the layer below (default: the middle one)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="default: figure1.png in FOLDER")
    args = parser.parse_args(argv)
    try:
        layers = read_magnitudes(args.folder)
        names = list(layers)
        chosen = args.layer or names[len(names) // 2]
        if chosen not in layers:
            raise ValueError(f"--layer {chosen}: no such layer; there are {', '.join(names)}")
        target = args.out or args.folder / "figure1.png"
        save(draw_figure1(layers, chosen), target)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        parser.exit(2, f"figure1.py: error: {error}\n")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
