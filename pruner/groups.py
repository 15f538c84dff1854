"""Mapping between a weight and its groups: filters, input channels or single weights. Pure functions.

A weight is (out, in, kh, kw) for a conv and (out, in) for a linear layer. A new kind of group is one line in
``_GROUP_DIM`` (a group is a slice along that dimension; None: every weight is a group of its own).
"""

import torch
from torch import Tensor

_GROUP_DIM: dict[str, int | None] = {"filter": 0, "channel": 1, "weight": None}
KINDS = tuple(_GROUP_DIM)
PICKS = ("min", "max", "rand")


def count(shape: tuple[int, ...], kind: str, width: int = 1) -> int:
    """Number of groups in a weight of `shape`.

    Args:
        width: filters per group, where a grouped conv reads several together.
    """
    dim = _GROUP_DIM[kind]
    return torch.Size(shape).numel() if dim is None else shape[dim] // width


def scores(weight: Tensor, kind: str, width: int = 1) -> Tensor:
    """Mean |w| over each group, (groups,).

    Source: paper, section 3.2, sorts by L1-norm; the mean, as in the original, is the same order within a layer.
    """
    dim = _GROUP_DIM[kind]
    magnitude = weight.detach().abs()
    if dim is None:
        return magnitude.flatten()
    means = magnitude.mean(dim=[d for d in range(weight.ndim) if d != dim])
    return means if width == 1 else means.view(-1, width).mean(1)


def spread(values: Tensor, shape: tuple[int, ...], kind: str) -> Tensor:
    """A value per group, (groups,), as a view that broadcasts to a weight of `shape`."""
    dim = _GROUP_DIM[kind]
    if dim is None:
        return values.view(shape)
    return values.view([-1 if d == dim else 1 for d in range(len(shape))])


def keep(group_scores: Tensor, n_pruned: int, how: str = "min", generator: torch.Generator | None = None) -> Tensor:
    """Mask of the kept groups, (groups,) bool, with `n_pruned` False.

    Args:
        how: which go: the lowest scores (``min``), the highest (``max``), or any (``rand``, by `generator`).

    Raises:
        ValueError: `how` is none of ``PICKS``.
    """
    if how not in PICKS:
        raise ValueError(f"cannot pick groups by '{how}'; choose from {', '.join(PICKS)}")
    if n_pruned == 0:
        return torch.ones_like(group_scores, dtype=torch.bool)
    if how == "rand":
        kept = torch.ones_like(group_scores, dtype=torch.bool)
        kept[torch.randperm(len(group_scores), generator=generator)[:n_pruned].to(kept.device)] = False
        return kept
    # A threshold is found in linear time: no sort of millions of weights. Of equals at it the first go, so
    # that every device picks the same.
    order = -group_scores if how == "max" else group_scores
    threshold = order.kthvalue(n_pruned).values
    below, ties = order < threshold, order == threshold
    return ~(below | (ties & (ties.cumsum(0) <= n_pruned - below.sum())))


def gap(group_scores: Tensor, kept: Tensor) -> Tensor:
    """Mean score of the kept groups / mean score of the pruned groups, a scalar tensor.

    Pruned groups that are exactly zero count as the smallest normal number, so that the gap stays finite.
    """
    n_kept = kept.sum()
    kept_mean = (group_scores * kept).sum() / n_kept
    pruned_mean = (group_scores * ~kept).sum() / (len(kept) - n_kept)
    limits = torch.finfo(group_scores.dtype)
    return (kept_mean / pruned_mean.clamp_min(limits.tiny)).clamp_max(limits.max)


def overlap(kept_a: Tensor, kept_b: Tensor) -> float:
    """Share of the groups pruned in `kept_a` that are pruned in `kept_b` too; 1.0 where none is."""
    pruned = (~kept_a).sum().item()
    return (~kept_a & ~kept_b).sum().item() / pruned if pruned else 1.0


def rank_agreement(scores_a: Tensor, scores_b: Tensor) -> tuple[float, float]:
    """Kendall's τ and Spearman's ρ between two scorings of the same groups; nan where all scores are equal."""
    a, b = scores_a.cpu().numpy(), scores_b.cpu().numpy()
    if (a == a[0]).all() or (b == b[0]).all():
        return float("nan"), float("nan")
    from scipy.stats import kendalltau, spearmanr  # here: half a second that most commands need not wait for

    return float(kendalltau(a, b).statistic), float(spearmanr(a, b).statistic)


def sample(group_scores: Tensor, at_most: int = 10_000) -> Tensor:
    """Subsample scores evenly to `at_most`, for rank correlations of millions of weights."""
    return group_scores[:: -(-len(group_scores) // at_most)]
