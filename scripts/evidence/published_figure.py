#!/usr/bin/env python3
"""Draw docs/img/published_imagenet.png from published.yaml: published numbers, none of them measured here."""

import argparse
from pathlib import Path

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parents[1] / "docs" / "img" / "published_imagenet.png"
COLORS = {"GReg-1": "#d62728", "GReg-2": "#1f77b4", "L1 (2023)": "0.2"}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    published = yaml.safe_load((HERE / "published.yaml").read_text())
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))

    rows = published["filter_pruning_resnet50"] + published["later_l1_resnet50"]
    for method in dict.fromkeys(row[0] for row in rows):
        points = [(speedup, pruned - base) for name, base, pruned, speedup in rows if name == method]
        own = method in COLORS
        left.plot(*zip(*points, strict=True), "o-" if own else "s", color=COLORS.get(method, "0.65"),
                  label=method if own else None, zorder=3 if own else 2)  # fmt: skip
        if not own:
            for x, y in points:
                # Avoid labels that overlap each other or the frame.
                below, end = method in ("DCP", "LFPC", "SFP"), x > 3
                shift = (-5 if end else 5, -11 if below else 4)
                left.annotate(
                    method, (x, y), textcoords="offset points", xytext=shift, fontsize=8, ha="right" if end else "left"
                )
    left.axhline(0, color="0.85", zorder=1)
    left.set_xlabel("speedup in FLOPs")
    left.set_ylabel("top-1 against the method's own base, points")
    left.set_title("Table 3: filter pruning, ResNet50", fontsize=11)
    left.legend(frameon=False, loc="lower left")

    rows = published["unstructured_resnet50"]
    for i, (method, base, pruned, sparsity) in enumerate(reversed(rows)):
        right.barh(i, pruned - base, color=COLORS.get(method, "0.65"))
        right.text(-0.02, i, f"{method}, {sparsity:.1f} % zeros", ha="right", va="center", fontsize=8, color="white")
    right.set_yticks([])
    right.set_xlabel("top-1 against the method's own base, points")
    right.set_title("Table 4: unstructured pruning, ResNet50", fontsize=11)
    figure.suptitle("ImageNet, PUBLISHED numbers (ICLR 2021, and one later L1 baseline) — not run here")
    figure.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    main()
