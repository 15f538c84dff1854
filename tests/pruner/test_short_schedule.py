"""``--prune_steps N``: exactly N steps with any other flags; constants computed by hand."""

import itertools
from decimal import Decimal

import pytest
import yaml
from helpers import one_line_refusal

from pruner import PRUNERS
from pruner.plan import Plan
from pruner.schedule import Schedule
from utils.config.cli import build, parse
from utils.config.options import to_plain

LENGTHS = (20, 100, 626, 1_000, 5_000, 15_625, 15_626, 20_000, 100_000, 1_000_000)


def parsed(method, *words):
    """Return the options of ``--flag value …`` without parsing a command line."""
    given = {flag.removeprefix("--"): str(value) for flag, value in zip(words[::2], words[1::2], strict=True)}
    return build({"dataset": "digits", "seed": "0", "method": method, **given})


class LosingPlan(Plan):
    pruned = {"layer": 2}  # noqa: RUF012 - never written to


def schedule_of(options):
    return PRUNERS[options.method].make_schedule(options, LosingPlan("filter", ()))


def length_of(options):
    return schedule_of(options).cut_after_step + 1


# N -> K_u, K_s, δ, T. By hand: 64 % of 626 is 401, so 401 updates at K_u = 1, the last at step 400, and 225 steps
# stand still; 401·δ > 1 ≥ 400·δ asks for 0.00249… < δ ≤ 0.0025. At 100,000 steps K_u = 7: of 64,000 steps there is room
# for 9,143 updates, the last at 9,142·7 = 63,994, and 1/9,143 = 0.00010937… < δ ≤ 1/9,142 = 0.00010938….
GREG_1 = {
    1: (1, 0, "2", 0),
    2: (1, 1, "2", 0),
    3: (1, 1, "0.6", 1),
    20: (1, 7, "0.08", 12),
    100: (1, 36, "0.0157", 63),
    626: (1, 225, "0.0025", 400),
    1_000: (1, 360, "0.001563", 639),
    5_000: (1, 1_800, "0.00031251", 3_199),
    15_625: (1, 5_625, "0.00010001", 9_999),
    15_626: (2, 5_625, "0.0002", 10_000),
    20_000: (2, 7_201, "0.00015626", 12_798),
    100_000: (7, 36_005, "0.00010938", 63_994),
    1_000_000: (64, 360_063, "0.00010001", 639_936),
}

# N -> K_u, K_s, δ', δ, the step of the pick, T. By hand: of the 401 updates of 626 steps an eighth, 50, pick at
# step 49: 50·δ' ≥ 0.01 > 49·δ' for 0.0002; then 351·δ > 0.99 ≥ 350·δ for 0.0028205… < δ ≤ 0.0028285….
GREG_2 = {
    2: (1, 0, "0.01", "1", 0, 1),
    20: (1, 7, "0.01", "0.09", 0, 12),
    100: (1, 36, "0.0013", "0.0177", 7, 63),
    626: (1, 225, "0.0002", "0.002821", 49, 400),
    1_000: (1, 360, "0.000125", "0.00177", 79, 639),
    15_625: (1, 5_625, "0.000008", "0.00011315", 1_249, 9_999),
    1_000_000: (64, 360_063, "0.000008", "0.00011315", 79_936, 639_936),
}


@pytest.mark.parametrize("n_steps", GREG_1)
def test_the_constants_of_greg_1_by_hand(n_steps):
    options = parsed("GReg-1", "--prune_steps", n_steps)
    every, still, grow, last = GREG_1[n_steps]
    assert (options.update_reg_interval, options.stabilize_reg_interval) == (every, still)
    assert options.reg_granularity_prune == Decimal(grow)
    assert schedule_of(options).stabilize_from == last
    assert length_of(options) == n_steps


@pytest.mark.parametrize("n_steps", GREG_2)
def test_the_constants_of_greg_2_by_hand(n_steps):
    options = parsed("GReg-2", "--prune_steps", n_steps)
    every, still, grow_pick, grow, picked_at, last = GREG_2[n_steps]
    assert (options.update_reg_interval, options.stabilize_reg_interval) == (every, still)
    assert (options.reg_granularity_pick, options.reg_granularity_prune) == (Decimal(grow_pick), Decimal(grow))
    assert (schedule_of(options).picked_at, schedule_of(options).stabilize_from) == (picked_at, last)
    assert length_of(options) == n_steps


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
def test_every_length_is_exact_and_λ_ends_just_above_τ(method):
    for n_steps in (*range(2, 700), *LENGTHS):
        options = parsed(method, "--prune_steps", n_steps)
        schedule = schedule_of(options)
        grown = schedule.stabilize_from + 1
        assert length_of(options) == n_steps
        assert abs(grown - 0.64 * n_steps) < options.update_reg_interval + 1
        assert 1 < schedule.penalty(schedule.updates_to_finish) <= 1 + options.reg_granularity_prune
        assert schedule.updates_to_finish <= 10_000
        if method == "GReg-2" and n_steps >= 13:
            assert schedule.picked_at < grown / 8 <= schedule.picked_at + 2 * options.update_reg_interval


def test_the_learning_rate_is_higher_on_a_short_schedule():
    rates = [parsed("GReg-1", "--prune_steps", n).lr_prune for n in (19_999, 20_000)]
    assert rates == [0.01, 0.001]
    assert parsed("GReg-1", "--prune_steps", 100, "--lr_prune", 0.5).lr_prune == 0.5


GIVEN = {
    "reg_upper_limit": ("0.3", "10"),
    "reg_upper_limit_pick": ("0.001", "0.1"),
    "update_reg_interval": ("1", "7", "10"),
    "stabilize_reg_interval": ("0", "57", "225"),
    "reg_granularity_prune": ("0.1", "0.00257"),
    "reg_granularity_pick": ("0.0025", "0.002"),
}


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_given_flag_and_the_length_are_both_kept(name, method):
    for value, n_steps in itertools.product(GIVEN[name], (626, 1_000, 100_000)):
        options = parsed(method, "--prune_steps", n_steps, f"--{name}", value)
        assert getattr(options, name) == Decimal(value)
        assert length_of(options) == n_steps, (value, n_steps)


def test_with_δ_given_k_u_brings_growth_near_to_64_percent():
    options = parsed("GReg-1", "--prune_steps", 1_000, "--reg_granularity_prune", "0.01")
    assert options.update_reg_interval == 6  # 101 updates in the 640 steps
    assert (schedule_of(options).stabilize_from, options.stabilize_reg_interval) == (600, 399)


def test_with_k_s_given_growth_takes_the_rest_at_a_k_u_that_divides_it():
    options = parsed("GReg-1", "--prune_steps", 100_000, "--stabilize_reg_interval", 10_000)
    assert schedule_of(options).stabilize_from == 89_999
    assert 89_999 % options.update_reg_interval == 0


def test_flags_that_fix_the_length_override_it():
    words = ("--prune_steps", 1_000, "--update_reg_interval", 10, "--stabilize_reg_interval", 100)
    assert length_of(parsed("GReg-1", *words)) == 991
    words = (*words, "--reg_granularity_prune", "0.1")
    assert length_of(parsed("GReg-1", *words)) == 201


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
def test_any_flags_give_the_length_or_name_the_smallest_possible(method):
    lists = [[None, *values[:2]] for values in GIVEN.values()]
    refused = 0
    for values, n_steps in itertools.product(itertools.product(*lists), (1, 30, 626)):
        given = [word for name, v in zip(GIVEN, values, strict=True) if v for word in (f"--{name}", v)]
        try:
            options = parsed(method, "--prune_steps", n_steps, *given)
        except ValueError as error:
            refused += 1
            smallest = int(str(error).split()[-5])
            assert n_steps < smallest == length_of(parsed(method, "--prune_steps", smallest, *given))
        else:
            made = length_of(options)
            assert made == n_steps or (made < n_steps and "--stabilize_reg_interval" in given)
    assert refused > 50


def test_too_few_steps_are_refused_with_the_smallest_number():
    words = ["--dataset", "digits", "--method", "GReg-2", "--prune_steps"]
    assert one_line_refusal(parse, [*words, "1"]).startswith("--prune_steps: 1 is too few")
    assert one_line_refusal(parse, [*words, "1"]).endswith("2 is the smallest possible")
    line = one_line_refusal(parse, [*words, "100", "--reg_granularity_pick", "1e-5", "--stabilize", "50"])
    assert line.endswith("1051 is the smallest possible")  # 1,000 updates to pick, 1 more, 50 steps
    assert "--prune_steps" in one_line_refusal(parse, [*words, "0"])


def test_without_the_flag_nothing_changes():
    options = parsed("GReg-2")
    assert (options.update_reg_interval, options.stabilize_reg_interval, options.lr_prune) == (5, 40_000, 0.001)
    assert length_of(options) == 94_501


@pytest.mark.parametrize("method", ["none", "L1"])
def test_methods_without_a_prune_phase_give_a_notice(method):
    options, notices = parse(["--dataset", "digits", "--method", method, "--prune_steps", "100"])
    assert (options.update_reg_interval, options.lr_prune) == (5, 0.001)
    assert any("--prune_steps" in notice for notice in notices)


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
@pytest.mark.parametrize("n_steps", LENGTHS)
def test_its_settings_are_stored_and_read_back_unchanged(n_steps, method, tmp_path):
    options = parsed(method, "--prune_steps", n_steps)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(to_plain(options)))
    assert parse(["--config", str(tmp_path / "params.yaml")])[0] == options


@pytest.mark.parametrize("picks_later", [False, True])
def test_the_sum_of_penalties_is_that_of_every_step(picks_later):
    schedule = Schedule(
        update_every_steps=3, stabilize_steps=7, grow=Decimal("0.1"), grow_pick=Decimal("0.05"), limit=Decimal("0.6"),
        limit_pick=Decimal("0.2"), keep=Decimal("0"), gap_limit=1000.0, picks_later=picks_later,
    )  # fmt: skip
    updates = range(schedule.updates_to_pick + 1, schedule.updates_to_finish + 1)
    by_step = sum(3 * schedule.penalty(n) for n in updates) + 7 * schedule.penalty(schedule.updates_to_finish)
    assert schedule.penalty_sum == pytest.approx(float(by_step))
