from types import SimpleNamespace

import pytest
from helpers import one_line_refusal
from hypothesis import given
from hypothesis import strategies as st

from utils.config.lr_schedule import LrSchedule, learning_rates, lr_at, parse_lr_schedule, schedule_notices, uses_adam


def options(**changes):
    usual = {"lr_ft": None, "method": "GReg-1", "arch": "resnet56", "lr": 0.1, "epochs": 90, "lr_prune": 0.001}
    given = usual | changes
    return SimpleNamespace(**given | {"lr_ft": given["lr_ft"] and LrSchedule(given["lr_ft"])})


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.01), (1, 0.01), (9, 0.01), (10, 0.005), (59, 0.005), (60, 0.001), (119, 0.001), (10**6, 0.001)],
)
def test_a_rate_holds_from_its_epoch_up_to_the_next_one(epoch, rate):
    assert lr_at({0: 0.01, 10: 0.005, 60: 0.001}, epoch) == rate


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_epochs_before_the_first_key_have_the_first_rate(epoch):
    assert lr_at({5: 0.1, 8: 0.01}, epoch) == 0.1


def test_the_last_rate_is_reached_in_the_last_epoch():
    rates = parse_lr_schedule("0:0.01,2:0.001,4:0.0001")
    assert [lr_at(rates, epoch) for epoch in range(5)] == [0.01, 0.01, 0.001, 0.001, 0.0001]


@pytest.mark.parametrize("text", ["0:0.1,100:0.01", "{0:0.1,100:0.01}", "{0: 0.1, 100: 0.01}", " 0:0.1, 100:1e-2 ",
                                  "0:0.1,100:0.01,", "{0:0.1,100:0.01, }"])  # fmt: skip
def test_a_schedule_is_read_with_or_without_braces_and_blanks(text):
    assert list(parse_lr_schedule(text).items()) == [(0, 0.1), (100, 0.01)]


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("100:0.01,0:0.1", "'0:0.1' comes after epoch 100"),
        ("", "''"),
        ("{}", "''"),
        ("0.1", "0.1"),
        ("0:0.1,,", "''"),
        (",", "''"),
        ("0:0.1,30", "30"),
        ("0:0.1,x:0.01", "x:0.01"),
        ("0:fast", "0:fast"),
        ("0:0.1:0.2", "0:0.1:0.2"),
        ("-1:0.1", "-1:0.1"),
        ("0:-0.1", "0:-0.1"),
        ("0:nan", "0:nan"),
        ("0:inf", "0:inf"),
        ("1.5:0.1", "1.5:0.1"),
        ("0:0.1,0:0.2", "0:0.2"),
        ("{0:0.1", "{0:0.1"),
    ],
)
def test_an_unreadable_schedule_is_named(text, culprit):
    assert culprit in one_line_refusal(parse_lr_schedule, text)


@given(st.dictionaries(st.integers(0, 10**6), st.floats(0, 1e6), min_size=1))
def test_a_schedule_written_out_is_read_back(rates):
    text = ",".join(f"{epoch}:{rate!r}" for epoch, rate in sorted(rates.items()))
    assert parse_lr_schedule(text) == rates


def test_fine_tuning_has_the_imagenet_schedule_by_default():
    assert learning_rates(options()) == {0: 0.01, 30: 0.001, 60: 0.0001, 75: 0.00001}


@pytest.mark.parametrize("method", ["none", "L1", "GReg-2"])
@pytest.mark.parametrize("arch", ["resnet56", "lenet5"])
def test_a_given_schedule_overrides_every_default(method, arch):
    assert learning_rates(options(lr_ft="0:0.5,7:0.25", method=method, arch=arch)) == {0: 0.5, 7: 0.25}


@pytest.mark.parametrize(
    ("epochs", "rates"),
    [
        (1, [0.2]), (2, [0.2, 0.02]), (3, [0.2, 0.2, 0.02]), (4, [0.2, 0.2, 0.02, 0.002]),
        (5, [0.2, 0.2, 0.2, 0.02, 0.002]), (8, 4 * [0.2] + 2 * [0.02] + 2 * [0.002]),
        (20, 10 * [0.2] + 5 * [0.02] + 5 * [0.002]), (90, 45 * [0.2] + 23 * [0.02] + 22 * [0.002]),
    ],
)  # fmt: skip
def test_plain_training_divides_its_rate_by_ten_at_half_and_at_three_quarters(epochs, rates):
    given = options(method="none", lr=0.2, epochs=epochs)
    assert [lr_at(learning_rates(given), epoch) for epoch in range(epochs)] == pytest.approx(rates)
    assert not schedule_notices(given, False)  # every rate is reached


def test_a_great_many_epochs_have_three_rates():
    assert learning_rates(options(method="none", epochs=10**9)) == {
        0: 0.1, 5 * 10**8: pytest.approx(0.01), 75 * 10**7: pytest.approx(0.001),
    }  # fmt: skip


def test_plain_training_for_no_epoch_has_a_rate():
    assert lr_at(learning_rates(options(method="none", epochs=0)), 0) == 0.1


@pytest.mark.parametrize("arch", ["lenet5", "lenet5_mini"])
def test_lenets_are_fine_tuned_by_adam_with_the_default_schedule(arch):
    given = options(arch=arch, lr=0.003)
    assert uses_adam(given)
    assert learning_rates(given) == learning_rates(options())


@pytest.mark.parametrize("arch", ["resnet20", "vgg19", "mlp_7_linear", "lenets.py:body"])
def test_other_networks_are_fine_tuned_by_sgd(arch):
    assert not uses_adam(options(arch=arch))


def test_rates_that_are_never_reached_give_a_notice():
    (notice,) = schedule_notices(options(lr_ft="0:0.001,30:0.0001", epochs=30), True)
    assert "from epoch 30 on" in notice
    assert not schedule_notices(options(lr_ft="0:0.001,30:0.0001", epochs=31), True)


def test_a_rise_of_the_rate_after_the_prune_phase_gives_a_notice():
    rising = {"lr_ft": "0:0.01", "lr_prune": 0.001}
    (notice,) = schedule_notices(options(**rising), True)
    assert "0.001" in notice
    assert "0.01" in notice
    assert not schedule_notices(options(**rising), False)
    for quiet in ({"lr_ft": "0:0.001"}, {"epochs": 0, **rising}):
        assert not schedule_notices(options(**quiet), True)
