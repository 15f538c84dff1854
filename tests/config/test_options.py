import dataclasses
import re
import shlex
from dataclasses import fields
from decimal import Decimal

import pytest
import yaml
from helpers import one_line_refusal
from hypothesis import example, given
from hypothesis import strategies as st

from data import DATASETS
from pruner import PRUNERS
from pruner.plan import parse_skip_layers, parse_stage_pr
from utils.config import cli, types
from utils.config.cli import build_parser, parse
from utils.config.lr_schedule import parse_lr_schedule
from utils.config.options import GREG, Options, by_section, to_plain


def parsed(*words, dataset="digits"):
    return parse(["--dataset", dataset, *words])[0]


def notices(*words):
    return parse(["--dataset", "digits", *words])[1]


def refused(*words):
    return one_line_refusal(parse, ["--dataset", "digits", *words])


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a configuration file and returns its path."""

    def write(content):
        file = tmp_path / "settings.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(file)

    return write


# where values come from


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(config):
    file = config({"epochs": 7, "wd": 0.5, "dataset": "cifar10"})
    options, _ = parse(["--config", file, "--wd", "0.25", "--dataset", "digits"])
    assert (options.epochs, options.wd, options.dataset, options.momentum) == (7, 0.25, "digits", 0.9)


def test_a_file_for_config_wins_over_one_for_params_json(config, tmp_path):
    defaults = tmp_path / "defaults.json"
    defaults.write_text('{"epochs": 3, "batch_size": 8, "wd": 0.125}')
    words = ("--config", config({"epochs": 4, "wd": 0.25}), "--params_json", str(defaults), "--wd", "0.5")
    options = parsed(*words)
    assert (options.batch_size, options.epochs, options.wd) == (8, 4, 0.5)


def test_precedence_does_not_depend_on_the_order_of_words(config):
    file = config({"wd": 0.5})
    assert parsed("--wd", "0.25", "--config", file).wd == parsed("--config", file, "--wd", "0.25").wd == 0.25


def test_the_last_of_two_equal_flags_wins():
    assert parsed("--epochs", "3", "--epochs", "4").epochs == 4


def test_a_switch_set_in_the_file_holds(config):
    options = parsed("--config", config("debug: true\nscreen_print: false\n"))
    assert (options.debug, options.screen_print) == (True, False)


def test_null_in_the_file_means_the_default(config):
    options = parsed("--config", config("lr_ft: null\nepochs: null\n"))
    assert (options.lr_ft, options.epochs) == (None, 90)


def test_an_empty_file_sets_nothing(config):
    assert parsed("--seed", "1", "--config", config("")) == parsed("--seed", "1")


def test_a_file_in_json_is_read_as_well(config):
    assert parsed("--config", config('{"epochs": 3, "stage_pr": [0, 0.5]}')).stage_pr == "[0,0.5]"


def test_a_required_flag_may_stand_in_the_file(config):
    assert parse(["--config", config("dataset: mnist\n")])[0].dataset == "mnist"


def test_the_data_set_is_required_and_the_choices_are_named():
    line = one_line_refusal(parse, [])
    assert "--dataset" in line
    assert all(name in line for name in DATASETS)


def test_every_default_would_be_accepted_if_it_were_typed():
    for f in fields(Options):
        if f.default not in (None, dataclasses.MISSING):
            assert f.metadata["parse"](str(f.default)) == f.default, f.name


def test_defaults_are_those_of_imagenet():
    options = parsed()
    shown = {
        "batch_size_prune": 64, "lr_prune": 0.001, "batch_size": 256, "epochs": 90, "wd": 1e-4, "momentum": 0.9,
        "lr": 0.1, "print_freq": 10, "print_interval": 100, "test_interval": 2000,
        "save_interval": "2000", "last_n_epoch": 5, "data_path": "./data", "workers": 4, "arch": "resnet18",
        "pick_pruned": "min", "update_reg_interval": 5,
        "stabilize_reg_interval": 40000, "reg_upper_limit": Decimal(1), "reg_upper_limit_pick": Decimal("0.01"),
        "reg_granularity_prune": Decimal("1e-4"), "reg_granularity_pick": Decimal("1e-5"),
        "reg_granularity_recover": Decimal("-1e-4"), "mag_ratio_limit": 1000.0, "wg": "filter", "method": "none",
    }  # fmt: skip
    assert {key: getattr(options, key) for key in shown} == shown


# there and back


FULL = [
    *("--method", "GReg-2", "--arch", "resnet56", "--stage_pr", "[0,0.75,0.75,0.32,0]", "--skip_layers", "[1.0,2.3]"),
    *("--lr_ft", "0:0.01,60:0.001", "--reg_granularity_recover", "-1e-4", "--reg_granularity_prune", "0.00010"),
    *("--wd", "5e-4", "--save_interval", "10m", "--note", "two words: [a, b] # not a comment", "--seed", "12"),
    *("--expect_speedup", "2.5", "--screen_print", "--project_name", "2.55x_pr0.750.32", "--base_model_path", "a*.pth"),
]


@pytest.mark.parametrize("words", [[], FULL, ["--stage_pr", "[0-4:0.5, 5:0.6, 8-10:0.2]"], ["--lr_ft", "0:0.1"]])
def test_options_written_as_yaml_and_read_as_config_are_the_same(words, config):
    options = parsed(*words)
    again, _ = parse(["--config", config(to_plain(options))])
    assert again == options


@given(note=st.text(st.characters(exclude_categories=("Cs",))), name=st.text("abc[]{}:#'\" 0-", min_size=1))
def test_any_note_and_name_come_back_from_yaml(note, name, tmp_path_factory):
    options = parsed(f"--note={note.replace('[', '(')}", f"--project_name={name.replace('[', '(')}")
    file = tmp_path_factory.mktemp("notes") / "params.yaml"
    file.write_text(yaml.safe_dump(to_plain(options)))
    assert parse(["--config", str(file)])[0] == options


def test_plain_options_are_plain_values():
    plain = to_plain(parsed(*FULL))
    of_command = ["plan", "evaluate", "trust_checkpoint", "resume_path"]  # never stored: no file may decide them
    assert list(plain) == [f.name for f in fields(Options) if f.name not in of_command]
    assert {type(value) for value in plain.values()} <= {str, int, float, bool, type(None)}
    assert plain["reg_granularity_prune"] == "0.00010"  # as typed


def test_options_cannot_be_changed():
    options = parsed()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.epochs = 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0, 0.75, 0.75, 0.32, 0]", "[0,0.75,0.75,0.32,0]"),
        ("'[0,0.5]'", "[0,0.5]"),
        ("[0-4:0.5, 8-10:0.2]", "[0-4:0.5,8-10:0.2]"),
        ("{0-4: 0.5, 5: 0.6}", "{0-4:0.5,5:0.6}"),
        ("[0-4: 0.5, 5: 0.6]", "[0-4:0.5,5:0.6]"),
        ("\n- 0\n- 0.5\n", "[0,0.5]"),
    ],
)
def test_ratios_may_be_lists_or_mappings_in_yaml(text, value, config):
    assert parsed("--config", config(f"stage_pr: {text}")).stage_pr == value


@pytest.mark.parametrize("text", ["{0: 0.1, 30: 0.01}", "\n  0: 0.1\n  30: 0.01", "0:0.1,30:0.01", "'0:0.1,30:0.01'"])
def test_the_learning_rate_may_be_a_mapping_in_yaml(text, config):
    assert parse_lr_schedule(parsed("--config", config(f"lr_ft: {text}")).lr_ft) == {0: 0.1, 30: 0.01}


def test_a_layer_and_its_ratio_are_not_minutes_and_seconds_in_yaml(config):
    assert parsed("--config", config("stage_pr: [0-4:0.5, 5:0.6]")).stage_pr == "[0-4:0.5,5:0.6]"


def test_an_epoch_and_its_rate_are_not_minutes_and_seconds_in_yaml(config):
    assert parse_lr_schedule(parsed("--config", config("lr_ft: 0:0.1")).lr_ft) == {0: 0.1}


def test_small_numbers_are_read_from_yaml_as_they_are_typed(config):
    options = parsed("--config", config("reg_granularity_prune: 1e-4\nreg_granularity_pick: 0.00001\nwd: 5e-4\n"))
    assert (options.reg_granularity_prune, options.reg_granularity_pick) == (Decimal("1e-4"), Decimal("1e-5"))
    assert options.wd == 5e-4


# how words are read


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--project", "mine"], "project_name", "mine"),
        (["--screen"], "screen_print", True),
        (["--stabilize", "10000"], "stabilize_reg_interval", 10000),
        (["--batch_size", "8"], "batch_size", 8),
        (["--batch-size", "8"], "batch_size", 8),
        (["-b", "8"], "batch_size", 8),
        (["--wd", "0.5"], "wd", 0.5),
        (["--weight-decay", "0.5"], "wd", 0.5),
        (["-a", "vgg19"], "arch", "vgg19"),
        (["-j", "0"], "workers", 0),
        (["-p", "7"], "print_freq", 7),
        (["--print-freq", "7"], "print_freq", 7),
        (["--data", "images"], "data_path", "images"),
        (["--data=images"], "data_path", "images"),
        (["--oracle_pruning"], "method", "Oracle"),
        (["--method", "L1", "--oracle_pruning"], "method", "Oracle"),
        (["--oracle_pruning", "--method", "L1"], "method", "L1"),
        (["--method", "FixReg", "--fix_reg_interval", "7"], "fix_reg_interval", 7),
        (["-e"], "evaluate", True),
        (["--lr=0.5"], "lr", 0.5),
        (["--lr_schedule", "0:0.1,30:0.01"], "lr_ft", "0:0.1,30:0.01"),
        (["--lr_schedule", "{0:0.1,", "30:0.01}"], "lr_ft", "{0:0.1, 30:0.01}"),
        (["--plan"], "plan", "text"),
        (["--plan=json"], "plan", "json"),
        (["--base_model_path", "a.pth"], "base_model_path", "a.pth"),
        (["--reg_granularity_recover", "-1e-4"], "reg_granularity_recover", Decimal("-1e-4")),
        (["--reg_granularity_recover=-1e-4"], "reg_granularity_recover", Decimal("-1e-4")),
        (["--reg_granularity_recover", "-.5"], "reg_granularity_recover", Decimal("-0.5")),
    ],
)
def test_flag_spellings_of_the_original_program_are_accepted(words, name, value):
    assert getattr(parsed(*words), name) == value


def test_batch_sizes_of_the_two_phases_are_distinguished():
    options = parsed("--batch_size", "8", "--batch_size_prune", "4")
    assert (options.batch_size, options.batch_size_prune) == (8, 4)


@pytest.mark.parametrize("method", ["", "none"])
def test_an_empty_method_is_none(method, config):
    assert parsed("--method", method).method == "none"
    assert parsed("--config", config(f"method: '{method}'")).method == "none"


@pytest.mark.parametrize(
    ("words", "stage_pr"),
    [
        ("[0, 0.5, 0.5, 0.5, 0]", "[0,0.5,0.5,0.5,0]"),
        ("[0-4:0.5, 5:0.6, 8-10:0.2]", "[0-4:0.5,5:0.6,8-10:0.2]"),
        ("[ 0 , 0.5 ]", "[0,0.5]"),
        ("[0]", "[0]"),
        ("[0, 0.5, ]", "[0,0.5]"),
    ],
)
def test_a_list_that_blanks_have_split_is_one_value(words, stage_pr):
    first, *rest = words.split()
    for start in (["--stage_pr", first], [f"--stage_pr={first}"]):
        options = parsed(*start, *rest, "--epochs", "3")
        assert (parse_stage_pr(options.stage_pr), options.epochs) == (parse_stage_pr(stage_pr), 3)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--stage_pr", "0,0.5,0.5,0.5,0"], "stage_pr", "[0,0.5,0.5,0.5,0]"),
        (["--stage_pr=0-4:0.5,7:0.2,"], "stage_pr", "[0-4:0.5,7:0.2]"),
        (["--stage_pr", "0, 0.5, 0.5,"], "stage_pr", "[0,0.5,0.5]"),  # quoted
        (["--skip_layers", "1.0,2.0"], "skip_layers", "[1.0,2.0]"),
        (["--skip_layers", "1.0,2.0,"], "skip_layers", "[1.0,2.0]"),
        (["--lr_ft", "0:0.01,60:0.001,"], "lr_ft", "0:0.01,60:0.001"),
        (["--lr_ft", "{0:0.01,60:0.001,}"], "lr_ft", "0:0.01,60:0.001"),
    ],
)
def test_brackets_may_be_left_out_and_a_comma_may_end_a_list(words, name, value, config):
    read = {"stage_pr": parse_stage_pr, "skip_layers": parse_skip_layers, "lr_ft": parse_lr_schedule}[name]
    options = parsed(*words, "--epochs", "3")
    assert (read(getattr(options, name)), options.epochs) == (read(value), 3)
    again = parsed("--config", config({name: str(getattr(options, name))}))
    assert read(getattr(again, name)) == read(value)


@pytest.mark.parametrize("words", ["--stage_pr 0, 0.5, 0.5", "--skip_layers 1.0, 2.0", "--lr_ft 0:0.1, 30:0.01"])
def test_a_list_without_brackets_is_not_joined_and_quotes_are_asked_for(words):
    line = refused(*words.split())
    assert words.split(" ", 2)[2] in line
    assert "needs quotes" in line


def test_two_split_lists_are_two_values():
    options = parsed(*["--stage_pr", "[0,", "0.5,", "0]", "--skip_layers", "[1.0,", "2.3]", "--epochs", "3"])
    assert parse_stage_pr(options.stage_pr) == parse_stage_pr("[0,0.5,0]")
    assert parse_skip_layers(options.skip_layers) == ("1.0", "2.3")
    assert options.epochs == 3


def test_a_list_that_is_never_closed_is_refused():
    assert "--stage_pr" in refused("--stage_pr", "[0,", "0.5", "--epochs", "3")


def test_a_bracket_in_a_note_takes_no_other_flag_along():
    options = parsed("--note", "[draft", "--epochs", "3")
    assert (options.note, options.epochs) == ("[draft", 3)


def test_a_seed_is_drawn_where_none_is_given():
    drawn = {parsed().seed for _ in range(5)}
    assert len(drawn) > 1
    assert all(isinstance(seed, int) and seed >= 0 for seed in drawn)
    assert parsed("--seed", "0").seed == 0


# what is refused


WRONG = [
    (["--epochs", "many"], "--epochs"),
    (["--epochs", "1.5"], "--epochs"),
    (["--epochs", "-1"], "--epochs"),
    (["--epochs", str(2**63)], "--epochs"),
    (["--batch_size", "0"], "--batch_size"),
    (["--batch_size_prune", "0"], "--batch_size_prune"),
    (["--update_reg_interval", "0"], "--update_reg_interval"),
    (["--stabilize", "-1"], "--stabilize_reg_interval"),
    (["--lr", "-0.1"], "--lr"),
    (["--lr", "nan"], "--lr"),
    (["--wd", "inf"], "--wd"),
    (["--momentum", "x"], "--momentum"),
    (["--seed", "-3"], "--seed"),
    (["--reg_granularity_prune", "0"], "--reg_granularity_prune"),
    (["--reg_granularity_pick", "-1e-5"], "--reg_granularity_pick"),
    (["--reg_upper_limit", "NaN"], "--reg_upper_limit"),
    (["--reg_upper_limit", "1e999999"], "--reg_upper_limit"),
    (["--reg_granularity_recover", "a"], "--reg_granularity_recover"),
    (["--mag_ratio_limit", "0"], "--mag_ratio_limit"),
    (["--fix_reg_interval", "0"], "--fix_reg_interval"),
    (["--stage_pr", "[0,1.5,0]"], "--stage_pr"),
    (["--stage_pr", "0.5"], "--stage_pr"),
    (["--stage_pr", "[4-2:0.5]"], "--stage_pr"),
    (["--stage_pr", "[1-3:0.5,2:0.6]"], "--stage_pr"),
    (["--skip_layers", "[a]"], "--skip_layers"),
    (["--lr_ft", "0.1"], "--lr_ft"),
    (["--lr_ft", ""], "--lr_ft"),
    (["--save_interval", "0"], "--save_interval"),
    (["--save_interval", "10s"], "--save_interval"),
    (["--save_interval", "0m"], "--save_interval"),
    (["--save_interval", "m"], "--save_interval"),
    (["--expect_speedup", "0"], "--expect_speedup"),
    (["--method", "GReg-3"], "--method"),
    (["--arch", "resnet57"], "--arch"),
    (["--dataset", "cifar11"], "--dataset"),
    (["--wg", "layer"], "--wg"),
    (["--pick_pruned", "best"], "--pick_pruned"),
    (["--device", "tpu"], "--device"),
    (["--plan=xml"], "--plan"),
    (["--print_interval", "0"], "--print_interval"),
    (["--test_interval", "0"], "--test_interval"),
    (["--last_n_epoch", "0"], "--last_n_epoch"),
    (["--workers", "-1"], "--workers"),
    (["--epochs"], "--epochs"),
    (["--epoch_count", "3"], "--epoch_count"),
    (["--reg", "3"], "--reg"),
    (["stray"], "stray"),
    (["--base_model_path", "a.pth", "b.pth"], "--base_model_path"),
    (["--screen_print=1"], "--screen_print"),
]


@pytest.mark.parametrize(
    ("words", "culprit"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_flag(words, culprit):
    assert culprit in refused(*words)


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ("epoch: 3", "'epoch'"),
        ("stage-pr: [0]", "'stage-pr'"),
        ("config: other.yaml", "'config'"),
        ("1: 2", "'1'"),
        ("epochs: many", "--epochs"),
        ("epochs: [1, 2]", "--epochs"),
        ("epochs: {a: 1}", "--epochs"),
        ("epochs: 1.5", "--epochs"),
        ("debug: 3", "--debug"),
        ("method: [GReg-1]", "--method"),
        ("lr_ft: [0.1]", "--lr_ft"),
        ("stage_pr: 0.5", "--stage_pr"),
        ("- a\n- b", "settings.yaml"),
        ("just words", "settings.yaml"),
        ("a: [1", "settings.yaml"),
        ("a: b: c", "settings.yaml"),
        ("\tepochs: 3", "settings.yaml"),
        ("epochs: !!python/object/apply:os.getcwd []", "--epochs"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key_or_the_file(content, culprit, config):
    assert culprit in refused("--config", config(content))


def test_a_date_in_a_file_is_text_even_an_impossible_one(config):
    for note in ("2024-02-29", "2024-13-45"):
        assert parsed("--config", config(f"note: {note}")).note == note


def test_a_missing_or_unreadable_file_of_settings_is_named(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    for name in ("nowhere.yaml", "", "binary"):
        assert str(tmp_path / name) in refused("--config", str(tmp_path / name))


def test_a_value_of_several_lines_is_refused_in_one():
    assert "--epochs" in refused("--epochs", "1\n2")


def test_the_memory_layout_has_a_flag_for_and_one_against():
    values = {"": "auto", "--channels_last": "true", "--no-channels_last": "false", "--no_channels_last": "false"}
    for words, expected in values.items():
        assert parse(["--dataset", "digits", *words.split()])[0].channels_last == expected


# notices


@pytest.mark.parametrize("method", ["none", "L1"])
@pytest.mark.parametrize("name", ["lr_prune", "update_reg_interval", "reg_upper_limit", "batch_size_prune"])
def test_flags_of_growing_regularization_without_it_give_a_notice(method, name):
    words = ["--method", method, f"--{name}", "1"]
    assert any(f"--{name}" in notice and method in notice for notice in notices(*words))
    assert not notices("--method", "GReg-1", f"--{name}", "1")


def test_only_flags_of_the_command_line_give_a_notice():
    assert notices("--method", "L1") == notices("--method", "none") == []


def test_a_file_may_hold_settings_of_other_methods_without_a_notice(config):
    assert not notices("--method", "L1", "--config", config("lr_prune: 0.1"))


@pytest.mark.parametrize(
    ("method", "has_no_effect"), [("none", True), ("GReg-2", True), ("L1", False), ("GReg-1", False)]
)
def test_pick_pruned_without_effect_gives_a_notice(method, has_no_effect):
    assert (
        any("--pick_pruned" in notice for notice in notices("--method", method, "--pick_pruned", "max"))
        is has_no_effect
    )


GREG_2_ALONE = ("reg_upper_limit_pick", "reg_granularity_pick", "reg_granularity_recover")


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("GReg-1", {*GREG_2_ALONE, "fix_reg_interval"}),
        ("GReg-2", {"fix_reg_interval"}),
        ("FixReg", {*GREG_2_ALONE, "mag_ratio_limit"}),
    ],
)
def test_only_flags_of_another_method_give_a_notice(method, flags):
    for f in by_section()[GREG]:
        value = [] if f.metadata["parse"] is types.boolean else ["group" if f.name == "penalize" else "100"]
        noticed = any(f"--{f.name}" in notice for notice in notices("--method", method, f"--{f.name}", *value))
        assert noticed is (f.name in flags), f.name


def test_a_typed_interval_leaves_no_effect_to_the_growth_it_would_follow():
    growth = ("--update_reg_interval", "2", "--reg_granularity_prune", "0.1")
    assert not notices("--method", "FixReg", *growth)
    (notice,) = notices("--method", "FixReg", *growth, "--fix_reg_interval", "9")
    assert notice == "no effect beside --fix_reg_interval: --update_reg_interval, --reg_granularity_prune"
    (notice,) = notices("--method", "GReg-1", *growth, "--fix_reg_interval", "9")
    assert notice == "no effect under --method GReg-1: --fix_reg_interval"


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("--arch lenet5 --method L1", {"lr", "wd", "momentum"}),
        ("--arch lenet5_mini --method Oracle", {"lr", "wd", "momentum"}),
        ("--arch lenet5 --method none", {"wd", "momentum"}),
        ("--arch lenet5 --method GReg-1", {"lr"}),  # its prune phase is by SGD, with decay
        ("--arch lenet5 --method FixReg", {"lr"}),
        ("--arch lenet5 --method GReg-2 --directly_ft_weights a.pth", {"lr", "wd", "momentum"}),
        ("--arch resnet20 --method L1", {"lr"}),
        ("--arch resnet20 --method none", set()),
    ],
)
def test_rates_and_decay_without_effect_give_one_notice(words, flags):
    found = notices(*words.split(), "--lr", "0.5", "--wd", "0.5", "--momentum", "0.5")
    named = [word.strip(",") for notice in found for word in notice.partition(": ")[2].split()]
    assert sorted(named) == sorted(f"--{name}" for name in flags)


PRUNING_FLAGS = {
    "stage_pr": "[0]", "skip_layers": "[1]", "wg": "channel", "ratios": "*:0.5", "speedup": "2", "rank": "global",
    "round_to": "8", "pick_pruned": "max", "expect_speedup": "2", "reinit": "orth",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), PRUNING_FLAGS.items())
def test_pruning_flags_with_plain_training_give_a_notice(name, value):
    assert any(f"--{name}" in notice for notice in notices(f"--{name}", value))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--stage_pr [0,0.5,0.5,0.5,0] --round_to 8 --rank global", {"--rank", "--round_to"}),
        ("--ratios *:0.5 --round_to 8 --rank global", {"--rank"}),
        ("--speedup 2 --round_to 8 --rank global", set()),
        ("--stage_pr [0,0.5,0.5,0.5,0] --rank 3", {"--rank"}),
        ("--directly_ft_weights a.pth --reinit orth --prune_steps 700", {"--reinit", "--prune_steps"}),
        ("--directly_ft_weights a.pth --wg channel --pretrained", {"--pretrained"}),
    ],
)
@pytest.mark.parametrize("method", ["GReg-1", "L1"])
def test_flags_of_a_choice_not_made_give_a_notice(method, words, named):
    found = notices("--method", method, *words.split())
    assert {word.strip(",") for text in found for word in text.partition(": ")[2].split()} == named


def test_the_kind_of_a_network_that_is_only_fine_tuned_has_an_effect():
    assert not any("--wg" in text for text in notices("--directly_ft_weights", "a.pth", "--wg", "weight"))


# help


def test_every_flag_has_a_help_text_and_a_parser():
    for f in fields(Options):
        assert len(f.metadata["help"]) > 3, f.name
        assert callable(f.metadata["parse"]), f.name


def test_the_help_page_shows_every_section_and_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    page = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(heading in page for heading in by_section())
    assert all(f"--{f.name}" in page for f in fields(Options))
    assert all(name in page for name in (*PRUNERS, *DATASETS))


def help_on(page, name):
    """Return the part of the help page on ``--name``."""
    return re.search(rf"^  (?:-.*)?--{name}\b(?:.*\n)(?:   .*\n)*", page, re.MULTILINE)[0]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_help_page_shows_the_choices_of_every_flag_that_has_some(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    page = build_parser().format_help()
    with_choices = [f for f in fields(Options) if getattr(f.metadata["parse"], "choices", ())]
    assert {f.name for f in with_choices} >= {
        "method", "plan", "dataset", "wg", "pick_pruned", "inherit_pruned", "amp", "device", "dist_backend",
        "cuda_graph", "channels_last",
    }  # fmt: skip
    for f in with_choices:
        shown = " ".join(help_on(page, f.name).split())
        choices = f.metadata["parse"].choices
        assert "|".join(choices) in shown or ", ".join(choices) in shown, f.name
    assert max(len(line) for line in page.splitlines()) <= int(columns)


def test_the_help_page_ends_with_two_examples_that_are_right():
    _, examples = build_parser().format_help().split("examples:\n")
    commands = re.findall(r"python main\.py ((?:.*\\\n)*.*)", examples)
    assert len(commands) == 2
    for command in commands:
        options, notices = parse(shlex.split(command.replace("\\\n", " ")))
        assert options.method == "GReg-1"
        assert not notices
        assert '"[0,' in command


def test_every_field_is_in_one_section():
    listed = [f.name for flags in by_section().values() for f in flags]
    assert listed == [f.name for f in fields(Options)]


def test_the_help_page_has_no_unfilled_places():
    page = build_parser().format_help()
    assert not re.search(r"%\(|<class|MISSING|SUPPRESS", page)


# anything at all

WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
NEAR = st.text("0123456789.,:{}[]-+eEnaifm_ \t", max_size=16)


@given(NEAR | WORDS)
def test_any_schedule_is_read_or_refused(text):
    assert_value_or_refusal(parse_lr_schedule, text, dict)


@given(NEAR | WORDS)
def test_any_number_is_read_or_refused(text):
    assert_value_or_refusal(types.integer(0), text, int)
    assert_value_or_refusal(types.number(0), text, float)
    assert_value_or_refusal(types.decimal(0), text, Decimal)
    assert_value_or_refusal(types.decimal(None), text, Decimal)
    assert_value_or_refusal(types.SaveInterval, text, str)


def assert_value_or_refusal(read, text, kind):
    try:
        value = read(text)
    except ValueError:
        return
    assert isinstance(value, kind)
    if kind in (int, float, Decimal):
        assert float("-inf") < value < float("inf")


@given(st.sampled_from([f.name for f in fields(Options) if f.name not in ("dataset", "base_model_path")]), NEAR)
@example("lr", "--")
@example("lr_ft", "--")
@example("note", "--")
def test_any_value_of_any_flag_is_accepted_or_refused_in_one_line(name, text):
    try:
        parse(["--dataset", "digits", f"--{name}={text}"])
    except ValueError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - a value is as good as a refusal


@given(st.integers(0, 2**62))
def test_whole_numbers_are_read_as_they_are(value):
    assert types.integer(0)(str(value)) == value


@given(st.decimals(min_value=0, max_value=1000, places=8))
def test_decimals_are_read_exactly(value):
    assert types.decimal(0)(str(value)) == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_truth_is_read_in_any_case(text, value):
    assert types.boolean(text) is value


def test_a_parser_of_one_of_many_names_the_choices():
    line = one_line_refusal(types.one_of("a", "b"), "c")
    assert "'c'" in line
    assert "a, b" in line


def test_seeds_are_drawn_from_the_system_not_from_a_generator_that_others_use(monkeypatch):
    monkeypatch.setattr(cli.secrets, "randbelow", lambda limit: limit - 1)
    assert parsed().seed == 2**31 - 1
