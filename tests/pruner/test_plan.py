"""From flags to how many groups each layer loses."""

from decimal import Decimal
from fractions import Fraction
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import build_model
from pruner import groups
from pruner.layers import Layer, layers_of
from pruner.plan import (
    LayerAddresses,
    Plan,
    StageRatios,
    make_plan,
    number_pruned,
    parse_ratio,
    parse_skip_layers,
    parse_stage_pr,
    plan_of,
    skipped_addresses,
)
from pruner.ratios import GlobRatios
from utils.config.lr_schedule import parse_lr_schedule

quick = settings(max_examples=300, deadline=None)
SIZES = {"resnet18": 224, "resnet50": 224, "alexnet": 224, "vgg16_bn": 224, "lenet5": 32}


@cache
def layers(arch: str) -> list[Layer]:
    with torch.device("meta"):
        return layers_of(build_model(arch, 10, 3, SIZES.get(arch, 32)))


def plan(arch: str, stage_pr: str, skip: str = "", kind: str = "filter") -> Plan:
    skipped = skipped_addresses(layers(arch), LayerAddresses(skip), kind)
    return make_plan(layers(arch), StageRatios(stage_pr), skipped, kind)


def losing(made: Plan) -> set[str]:
    return {p.layer.address for p in made.layers if p.pruned}


# --- how many


@pytest.mark.parametrize(
    ("ratio", "n_groups", "expected"),
    [
        ("0.14", 100, 14), ("0.07", 100, 7), ("0.55", 100, 55), ("0.28", 100, 28), ("0.1", 30, 3), ("0.7", 10, 7),
        ("0.5", 7, 4), ("0.001", 64, 1), ("0.75", 16, 12), ("0.9", 16, 15), ("0.95", 16, 15), ("0.99", 16, 15),
        ("0.9999", 16, 15), ("0.9", 1, 0), ("0.5", 1, 0), ("0", 64, 0), ("0.000", 64, 0), ("-0", 64, 0),
    ],
)  # fmt: skip
def test_ceil_of_the_exact_decimal_but_never_all_groups(ratio, n_groups, expected):
    assert number_pruned(parse_ratio(ratio), n_groups) == expected


@quick
@given(st.integers(0, 10**6), st.integers(1, 5000))
def test_the_number_pruned_is_that_of_whole_number_arithmetic(millionths, n_groups):
    ratio = Decimal(millionths).scaleb(-6)
    assert number_pruned(ratio, n_groups) == min(-(-millionths * n_groups // 10**6), n_groups - 1)


@quick
@given(st.decimals(0, 1, places=40), st.integers(1, 10**7))
def test_forty_decimals_are_not_rounded(ratio, n_groups):
    pruned = number_pruned(ratio, n_groups)
    wanted = Fraction(ratio) * n_groups
    assert wanted <= pruned < wanted + 1 or pruned == n_groups - 1


# --- reading --stage_pr


def decimals(*texts: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(text) for text in texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0,0.5,0.5,0.5,0]", decimals("0", "0.5", "0.5", "0.5", "0")),
        ("[0, 0.75, 0.75, 0.32, 0]", decimals("0", "0.75", "0.75", "0.32", "0")),
        ("  [ 0 ,0.14 , 0.1]  ", decimals("0", "0.14", "0.1")),
        ("[0,.5,0.90,5e-1]", decimals("0", "0.5", "0.9", "0.5")),
        ("[0]", decimals("0")),
    ],
)
def test_a_list_is_a_ratio_per_stage(text, expected):
    assert parse_stage_pr(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1-3:0.5]", {1: "0.5", 2: "0.5", 3: "0.5"}),
        ("[0-1:0.5, 5:0.6, 8-9:0.2]", {0: "0.5", 1: "0.5", 5: "0.6", 8: "0.2", 9: "0.2"}),
        ("[ 7:0.2 ]", {7: "0.2"}),
        ("[4-4:0.1,2:0]", {4: "0.1", 2: "0"}),
    ],
)
def test_ranges_are_inclusive_and_by_index(text, expected):
    assert parse_stage_pr(text) == {index: Decimal(ratio) for index, ratio in expected.items()}


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("[0,1.5,0]", "'1.5'"), ("[0,-0.1]", "'-0.1'"), ("[0,half]", "'half'"), ("[0,nan]", "'nan'"),
        ("[0,inf]", "'inf'"), ("0.5", "'0.5'"), ("", "''"), ("[]", "''"), ("{}", "''"), ("[1,0.5]", "'1'"),
        ("[0,,1]", "''"), ("0,1", "'1'"), ("0-3:1", "'1'"), ("1-3:0.5,2:0.1", "'2:0.1'"), ("0-4:0.5,0.2", "'0.2'"),
        ("[1-3:0.5,0.4]", "'0.4'"), ("[3-1:0.5]", "'3-1:0.5'"), ("[1-3:2]", "'2'"),
        ("[1-3:0.5,2:0.1]", "'2:0.1'"), ("[a:0.5]", "'a:0.5'"), ("[1-:0.5]", "'1-:0.5'"),
        ("[0-99999999999:0.5]", "'0-99999999999:0.5'"), ("[0,1e-999999999]", "'1e-999999999'"),
    ],
)  # fmt: skip
def test_unreadable_ratios_are_named(text, bad):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse_stage_pr(text)
    assert bad in str(error.value)


def test_an_index_too_long_for_a_number_is_named_too():
    entry = f"0-{'9' * 5000}:0.5"
    with pytest.raises(ValueError, match="0-9999"):
        parse_stage_pr(f"[{entry}]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1.0,2.3]", ("1.0", "2.3")), ("[1.0, 2.0, 2.3, 3.0, 3.5]", ("1.0", "2.0", "2.3", "3.0", "3.5")),
        ("[3,7]", ("3", "7")), (" [2.3.0] ", ("2.3.0",)), ("[]", ()), ("", ()), ("  ", ()),
        ("[ ]", ()), ("1.0,2.0", ("1.0", "2.0")), ("1.0, 2.0,", ("1.0", "2.0")), ("[1.0,2.0, ]", ("1.0", "2.0")),
        ("2.3", ("2.3",)), ("[3,]", ("3",)),
    ],
)  # fmt: skip
def test_skipped_layers_are_addresses_or_their_beginnings(text, expected):
    assert parse_skip_layers(text) == expected


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("[1.0,layer2]", "'layer2'"), ("[1..0]", "'1..0'"), ("[1.]", "'1.'"), ("[-1]", "'-1'"), ("[1,,2]", "''"),
        ("[1.0.0.0]", "'1.0.0.0'"), ("layer2", "'layer2'"), ("1.0 2.0", "'1.0 2.0'"), ("{}", "''"),
    ],
)  # fmt: skip
def test_an_invalid_address_is_named(text, bad):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse_skip_layers(text)
    assert bad in str(error.value)


# A list as it should be, and one of its commas or brackets too many or too few.
SPOILED = st.tuples(
    st.sampled_from(["0,0.5,0.5,0", "1-3:0.5,7:0.2", "1.0,2.3", "0:0.1,30:0.01"]),
    st.sampled_from([
        "{},,", "{}, ,", ",{}", "[{}", "{}]", "{{{}", "{}}}", "[{}}}", "[{}]]", "[[{}]]", "[{},,]", "[,{}]", "[{}],",
        "][{}", ",", ",,", "[,]", "[", "]", "[]]",
    ]),
)  # fmt: skip


@quick
@given(SPOILED, st.sampled_from([parse_stage_pr, parse_skip_layers, parse_lr_schedule]))
def test_lone_brackets_and_commas_are_refused_in_one_line(spoiled, parse):
    text, pattern = spoiled
    assert len(complaint(parse, pattern.format(text)).splitlines()) == 1


@pytest.mark.parametrize("text", ["[0,0.5", "0,0.5]", "[0,0.5}", "[[0,0.5]]", "[0,[0.5]]", "0,0.5[", "{0:0.5", "[0],"])
@pytest.mark.parametrize("parse", [parse_stage_pr, parse_skip_layers])
def test_a_list_with_lone_or_more_brackets_is_named(parse, text):
    assert complaint(parse, text) == f"'{text}' is not a list: it has one pair of brackets around it, or none"


LISTS = {  # by parser, the entries of a list
    parse_stage_pr: st.one_of(
        st.lists(st.sampled_from(["0", "0.5", "0.14", "1e-3"]), min_size=2, max_size=6),
        st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True).map(
            lambda found: [f"{10 * i}-{10 * i + i % 10}:0.{i}" for i in sorted(found)]
        ),
    ),
    parse_skip_layers: st.lists(st.sampled_from(["1.0", "2.3.0", "7"]), min_size=1, max_size=6),
    parse_lr_schedule: st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True).map(
        lambda found: [f"{i}:0.{i}" for i in sorted(found)]
    ),
}


@pytest.mark.parametrize("parse", LISTS)
@quick
@given(st.data())
def test_a_list_is_the_same_with_and_without_brackets_and_a_last_comma(parse, data):
    entries = data.draw(LISTS[parse])
    text = data.draw(st.sampled_from([",", ", ", " ,"])).join(entries)
    brackets = "{}" if parse is parse_lr_schedule else data.draw(st.sampled_from(["[]", "{}"]))
    last = data.draw(st.sampled_from([",", " ,", ", "]))
    expected = parse(f"{brackets[0]}{text}{brackets[1]}")
    assert len(expected) >= len(entries)
    for same in (text, f"{text}{last}", f"{brackets[0]}{text}{last}{brackets[1]}", f" {text} "):
        assert parse(same) == expected


def complaint(parse, text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


LIKELY = st.text(st.sampled_from("[]{}0123456789.,:-+eE \t\n_naif٣²"), max_size=30)
TEXTS = st.one_of(
    st.text(max_size=30), LIKELY, LIKELY.map(lambda text: f"[{text}]"), st.text(max_size=20).map("[{}]".format)
)


@pytest.mark.parametrize("parse", [parse_stage_pr, parse_skip_layers])
@quick
@given(TEXTS)
def test_any_text_is_a_value_or_an_error_in_one_line(parse, text):
    assert len(complaint(parse, text).splitlines()) <= 1


@quick
@given(st.lists(st.integers(0, 999), min_size=1, max_size=9), st.sampled_from([",", ", ", " , "]))
def test_ratios_read_back_as_typed(thousandths, comma):
    ratios = [str(Decimal(value).scaleb(-3)) for value in thousandths]
    assert parse_stage_pr(f"[{comma.join(ratios)}]") == decimals(*ratios)


# --- residual nets


def test_filters_of_a_basic_block_are_pruned_in_its_first_conv_only():
    assert losing(plan("resnet18", "[0,0.5,0.5,0.5,0.5,0]")) == {f"{s}.{b}.0" for s in range(1, 5) for b in range(2)}


def test_filters_of_a_bottleneck_are_pruned_in_all_convs_but_the_last():
    blocks = {1: 3, 2: 4, 3: 6, 4: 3}
    expected = {f"{s}.{b}.{c}" for s, n in blocks.items() for b in range(n) for c in (0, 1)}
    assert losing(plan("resnet50", "[0,0.5,0.5,0.5,0.5,0]")) == expected


def test_channels_of_a_block_are_pruned_in_all_convs_but_the_first():
    basic = {f"{s}.{b}.1" for s in range(1, 5) for b in range(2)}
    assert losing(plan("resnet18", "[0,0.5,0.5,0.5,0.5,0]", kind="channel")) == basic
    bottleneck = losing(plan("resnet50", "[0,0,0,0,0.5,0]", kind="channel"))
    assert bottleneck == {f"4.{b}.{c}" for b in range(3) for c in (1, 2)}


def test_each_stage_has_its_own_ratio():
    made = plan("resnet56", "[0,0.75,0,0.32,0]")
    assert {(p.layer.address[0], p.groups, p.pruned) for p in made.layers if p.pruned} == {("1", 16, 12), ("3", 64, 21)}


def test_single_weights_are_pruned_in_every_conv_and_linear_layer_by_stage():
    made = plan("resnet18", "[0.1,0.2,0.3,0.4,0.5,0.6]", kind="weight")
    for planned in made.layers:
        size = torch.Size(planned.layer.shape).numel()
        assert planned.groups == size
        assert planned.pruned == -(-size * (planned.layer.entry + 1) // 10)
    assert {p.layer.name for p in made.layers} >= {"conv1", "layer2.0.downsample.0", "layer4.1.conv2", "fc"}
    assert {p.layer.entry for p in made.layers if p.layer.name in ("layer2.0.downsample.0", "fc")} == {2, 5}


def test_all_that_stands_in_a_block_has_the_ratio_of_its_stage():
    """As networks of other sources name their stems, shortcuts and gates."""

    def block(**more):
        parts = {"conv1": nn.Conv2d(8, 8, 3), "conv2": nn.Conv2d(8, 8, 3), **more}
        return nn.Sequential(nn.ModuleDict(parts))

    network = nn.ModuleDict({
        "conv1": nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)),
        "layer1": block(se=nn.ModuleDict({"fc1": nn.Conv2d(8, 2, 1)})),
        "layer2": block(
            shortcut=nn.Sequential(nn.Conv2d(8, 8, 1)), downsample=nn.Sequential(nn.Identity(), nn.Conv2d(8, 8, 1)),
        ),
        "linear": nn.Linear(8, 4),
    })  # fmt: skip
    layers = layers_of(network)
    assert [layer.entry for layer in layers] == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3]
    addresses = [layer.address for layer in layers[2:-1]]
    assert addresses == ["1.0.0", "1.0.1", "1.0.se.fc1", "2.0.0", "2.0.1", "2.0.shortcut.0", "2.0.downsample.1"]


def test_of_two_equal_names_the_last_counts_in_its_place():
    ratios = GlobRatios("a.*:0.5, *.b:0.3, a.*:0.7").ratios
    assert [*ratios.items()] == [("*.b", Decimal("0.3")), ("a.*", Decimal("0.7"))]


@pytest.mark.parametrize("kind", groups.KINDS)
def test_all_zeros_remove_nothing_whatever_the_kind(kind):
    made = plan("resnet20", "[0,0,0,0,0]", kind=kind)
    assert made.pruned == {}
    assert made == plan_of(layers("resnet20"), {}, kind)


@pytest.mark.parametrize("kind", ["filter", "channel"])
@pytest.mark.parametrize(
    ("arch", "stage_pr", "named"),
    [
        ("resnet20", "[0.5,0,0,0,0]", "conv1"), ("resnet20", "[0,0,0,0,0.5]", "linear"),
        ("resnet50", "[0.1,0,0,0,0,0]", "conv1"), ("resnet50", "[0,0,0,0,0,0.1]", "fc"),
    ],
)  # fmt: skip
def test_stem_and_classifier_of_a_residual_net_are_refused_by_name(arch, stage_pr, named, kind):
    with pytest.raises(ValueError, match=named):
        plan(arch, stage_pr, kind=kind)


@pytest.mark.parametrize(("arch", "stages"), [("resnet20", 5), ("resnet110", 5), ("resnet18", 6), ("resnet50", 6)])
@pytest.mark.parametrize("extra", [-1, 1])
def test_a_list_of_the_wrong_length_is_refused_with_both_numbers(arch, stages, extra):
    with pytest.raises(ValueError, match=rf"{stages + extra} .*{stages}"):
        plan(arch, f"[{','.join('0' * (stages + extra))}]")


def test_ranges_are_refused_for_a_residual_net():
    with pytest.raises(ValueError, match="stages"):
        plan("resnet56", "[1-15:0.5]")


def test_skipping_stops_at_a_dot():
    everything = losing(plan("resnet110", "[0,0.5,0,0,0]"))
    assert everything == {f"1.{block}.0" for block in range(18)}
    assert everything - losing(plan("resnet110", "[0,0.5,0,0,0]", "[1.1]")) == {"1.1.0"}
    assert everything - losing(plan("resnet110", "[0,0.5,0,0,0]", "[1.10,1.2.0]")) == {"1.10.0", "1.2.0"}
    assert losing(plan("resnet110", "[0,0.5,0.5,0,0]", "[1]")) == {f"2.{block}.0" for block in range(18)}


def test_skipping_one_conv_of_a_bottleneck_leaves_the_other():
    assert losing(plan("resnet50", "[0,0,0,0,0.5,0]", "[4.0,4.1.1]")) == {"4.1.0", "4.2.0", "4.2.1"}


def test_skipping_the_stem_or_the_classifier_makes_their_ratio_legal():
    assert losing(plan("resnet20", "[0.5,0.5,0,0,0.5]", "[0,4]")) == {"1.0.0", "1.1.0", "1.2.0"}


def test_skipping_a_missing_layer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"5\.7"):
        plan("resnet20", "[0,0.5,0.5,0.5,0]", "[1.0,5.7]")
    with pytest.raises(ValueError, match="17"):
        plan("vgg19", "[1-15:0.5]", "[17]")


def test_single_weights_of_a_residual_net_cannot_be_skipped():
    with pytest.raises(ValueError, match="skipped by stage"):
        plan("resnet20", "[0,0.5,0.5,0.5,0]", "[1.0]", kind="weight")


# --- single-branch nets


def test_ranges_give_ratios_to_layers_by_index_and_the_rest_keep_all():
    made = plan("vgg19", "[0-1:0.25, 5:0.6, 8-9:0.2]", "[9]")
    expected = {0: (64, 16), 1: (64, 16), 5: (256, 154), 8: (512, 103)}
    assert {p.layer.entry: (p.groups, p.pruned) for p in made.layers if p.pruned} == expected


def test_skipping_names_whole_indices():
    assert losing(plan("vgg19", "[1-15:0.5]", "[1]")) == {str(index) for index in range(2, 16)}


def test_single_weights_of_a_chain_may_be_skipped_and_include_first_and_last_layer():
    everything = losing(plan("vgg11", "[0-8:0.5]", kind="weight"))
    assert everything == {str(index) for index in range(9)}
    assert everything - losing(plan("vgg11", "[0-8:0.5]", "[0,8]", kind="weight")) == {"0", "8"}


def test_zero_for_layers_up_to_the_number_in_the_name_is_legal():
    assert len(layers("vgg19")) == 17
    assert plan("vgg19", "[0-18:0]").pruned == {}
    assert losing(plan("vgg19", "[1-15:0.5, 16-18:0]")) == {str(index) for index in range(1, 16)}


@pytest.mark.parametrize("kind", ["filter", "weight"])
def test_a_ratio_for_a_layer_that_does_not_exist_is_refused_by_index(kind):
    with pytest.raises(ValueError, match=r"layer 17"):
        plan("vgg19", "[1-15:0.5, 17:0.1]", kind=kind)


@pytest.mark.parametrize(
    ("arch", "last", "name"),
    [("vgg19", 16, "classifier"), ("lenet5", 4, "classifier"), ("mlp_7_linear", 6, "7"), ("alexnet", 7, "classifier")],
)
def test_filters_of_a_classifier_are_refused_by_name(arch, last, name):
    assert len(layers(arch)) == last + 1
    with pytest.raises(ValueError, match=rf"filters.*{name}"):
        plan(arch, f"[{last}:0.5]")
    assert losing(plan(arch, f"[0-{last - 1}:0.5]")) == {str(index) for index in range(last)}


@pytest.mark.parametrize("arch", ["vgg19", "lenet5", "mlp_7_linear", "alexnet"])
def test_channels_of_the_first_layer_are_refused_by_name(arch):
    with pytest.raises(ValueError, match=rf"channels.*{layers(arch)[0].name}"):
        plan(arch, "[0:0.5]", kind="channel")
    assert losing(plan(arch, "[1:0.5]", kind="channel")) == {"1"}


@pytest.mark.parametrize(("arch", "last"), [("vgg19", 16), ("lenet5", 4), ("mlp_7_linear", 6)])
def test_channels_of_the_last_layer_are_the_filters_before_it(arch, last):
    made = plan(arch, f"[{last}:0.5]", kind="channel")
    assert [(p.layer.entry, p.groups) for p in made.layers if p.pruned] == [(last, layers(arch)[last - 1].shape[0])]


@pytest.mark.parametrize(("arch", "index"), [("alexnet", 5), ("vgg16_bn", 13)])
def test_channels_of_a_layer_that_reads_flattened_maps_are_refused_by_name(arch, index):
    with pytest.raises(ValueError, match=layers(arch)[index].name):
        plan(arch, f"[{index}:0.5]", kind="channel")


def test_a_list_is_refused_for_a_single_branch_net():
    with pytest.raises(ValueError, match="index"):
        plan("vgg19", "[0,0.5,0.5,0.5,0]")


def test_a_higher_ratio_never_prunes_fewer_groups():
    for arch, template in (("resnet20", "[0,{r},{r},{r},0]"), ("vgg11", "[0-7:{r}]")):
        totals = [sum(plan(arch, template.format(r=f"0.{tenth}")).pruned.values()) for tenth in range(10)]
        assert totals == sorted(set(totals))
