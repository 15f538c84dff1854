"""A group's score, its pick and its place in the weight, over every kind of group."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruner import groups

KIND = pytest.mark.parametrize("kind", groups.KINDS)
SHAPE = pytest.mark.parametrize("shape", [(3, 5, 2, 4), (4, 3), (1, 2, 3, 3), (2, 1)], ids=str)
quick = settings(max_examples=150, deadline=None)

# Few different values, so that ties are the rule.
scored = st.lists(st.integers(0, 6), min_size=2, max_size=40).flatmap(
    lambda values: st.tuples(st.just(torch.tensor(values) / 4), st.integers(0, len(values) - 1))
)


def random_weight(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def slices(weight: Tensor, kind: str) -> list[Tensor]:
    """The groups, spelt out."""
    return {
        "filter": lambda: [weight[i] for i in range(weight.shape[0])],
        "channel": lambda: [weight[:, i] for i in range(weight.shape[1])],
        "weight": lambda: list(weight.flatten()),
    }[kind]()


@KIND
@SHAPE
def test_a_score_is_the_mean_magnitude_of_its_group(kind, shape):
    weight = random_weight(shape)
    by_hand = torch.stack([part.abs().mean() for part in slices(weight, kind)])
    found = groups.scores(weight.requires_grad_(), kind)
    assert found.shape == (groups.count(shape, kind),)
    assert not found.requires_grad
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("filter", [2.5, 6.0]), ("channel", [4.75, 3.75]), ("weight", [1, 2, 3, 4, 8, 8, 8, 0])],
)
def test_scores_worked_by_hand(kind, expected):
    conv = torch.tensor([1.0, -2, 3, -4, -8, 8, 8, 0]).view(2, 2, 1, 2)
    assert groups.scores(conv, kind).tolist() == expected


def test_scores_of_a_linear_layer_worked_by_hand():
    linear = torch.tensor([[1.0, -3.0, 2.0], [0.0, 6.0, -6.0]])
    assert groups.scores(linear, "filter").tolist() == [2.0, 4.0]
    assert groups.scores(linear, "channel").tolist() == [0.5, 4.5, 4.0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 4, 3, 2), {"filter": 8, "channel": 4, "weight": 192}), ((7, 5), {"filter": 7, "channel": 5, "weight": 35})],
    ids=str,
)
def test_groups_are_counted_from_the_shape_alone(shape, expected):
    assert {kind: groups.count(shape, kind) for kind in groups.KINDS} == expected


@KIND
@SHAPE
def test_a_value_is_spread_over_exactly_the_weights_of_its_group(kind, shape):
    values = torch.arange(groups.count(shape, kind), dtype=torch.float32)
    spread = groups.spread(values, shape, kind).expand(shape)
    for value, part in zip(values, slices(spread, kind), strict=True):
        assert (part == value).all()


@KIND
@SHAPE
def test_spread_is_the_inverse_of_score(kind, shape):
    values = torch.rand(groups.count(shape, kind))
    torch.testing.assert_close(groups.scores(groups.spread(values, shape, kind).expand(shape), kind), values)


@quick
@given(scored)
def test_min_prunes_exactly_n_and_none_above_a_kept_one(case):
    scores, n_pruned = case
    kept = groups.keep(scores, n_pruned, "min")
    assert kept.dtype == torch.bool
    assert (~kept).sum() == n_pruned
    assert n_pruned == 0 or scores[~kept].max() <= scores[kept].min()


@quick
@given(scored)
def test_max_prunes_exactly_n_and_none_below_a_kept_one(case):
    scores, n_pruned = case
    kept = groups.keep(scores, n_pruned, "max")
    assert (~kept).sum() == n_pruned
    assert n_pruned == 0 or scores[~kept].min() >= scores[kept].max()


@quick
@given(scored, st.booleans())
def test_of_equal_scores_the_first_are_pruned_as_by_a_stable_sort(case, highest):
    scores, n_pruned = case
    order = scores.argsort(stable=True, descending=highest)
    expected = torch.ones(len(scores), dtype=torch.bool)
    expected[order[:n_pruned]] = False
    assert groups.keep(scores, n_pruned, "max" if highest else "min").equal(expected)


@quick
@given(scored, st.integers(0, 2**31))
def test_rand_prunes_exactly_n_and_draws_only_from_its_generator(case, seed):
    scores, n_pruned = case
    first = groups.keep(scores, n_pruned, "rand", torch.Generator().manual_seed(seed))
    torch.rand(3)  # the global generator moves on
    again = groups.keep(scores.flip(0), n_pruned, "rand", torch.Generator().manual_seed(seed))
    assert (~first).sum() == n_pruned
    assert first.equal(again)


def test_rand_differs_between_seeds_and_between_draws():
    scores = torch.arange(64.0)
    generator = torch.Generator().manual_seed(1)
    picks = [groups.keep(scores, 32, "rand", generator), groups.keep(scores, 32, "rand", generator)]
    picks.append(groups.keep(scores, 32, "rand", torch.Generator().manual_seed(2)))
    assert not picks[0].equal(picks[1])
    assert not picks[0].equal(picks[2])


def test_rand_does_not_draw_from_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    groups.keep(torch.arange(9.0), 4, "rand", torch.Generator().manual_seed(0))
    assert torch.rand(4).equal(expected)


def test_an_unknown_pick_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"median.*min, max, rand"):
        groups.keep(torch.arange(4.0), 1, "median")


def test_gap_is_the_mean_of_the_kept_over_the_mean_of_the_pruned():
    scores = torch.tensor([1.0, 3.0, 6.0, 8.0, 10.0])
    kept = torch.tensor([False, False, True, True, True])
    assert groups.gap(scores, kept).item() == 4.0  # 8 / 2
    assert groups.gap(scores, ~kept).item() == 0.25


@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 100.0])
def test_the_gap_is_finite_if_the_pruned_are_exactly_zero(magnitude):
    found = groups.gap(torch.tensor([0.0, magnitude]), torch.tensor([False, True])).item()
    assert math.isfinite(found)
    assert found > 1e30


def test_overlap_is_the_share_of_the_first_selection_in_the_second():
    a = torch.tensor([False, False, False, False, True, True])
    b = torch.tensor([True, False, False, False, False, True])
    c = torch.tensor([True, True, False, True, True, True])
    assert groups.overlap(a, b) == 0.75
    assert groups.overlap(a, c) == 0.25
    assert groups.overlap(c, a) == 1.0
    assert groups.overlap(a, ~a) == 0.0
    assert groups.overlap(torch.ones(3, dtype=torch.bool), a[:3]) == 1.0


@quick
@given(scored)
def test_overlap_of_selections_of_equal_size_is_symmetric(case):
    scores, n_pruned = case
    lowest, highest = groups.keep(scores, n_pruned), groups.keep(scores, n_pruned, "max")
    assert groups.overlap(lowest, lowest) == 1.0
    assert groups.overlap(lowest, highest) == groups.overlap(highest, lowest)
