"""Torch-Pruning's GrowingReg as a method, and the paper's Figure 1 from a run's files."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from model import build_model
from model.cost import example
from pruner import PruningContext, make_plan
from pruner.layers import layers_of
from pruner.structure import Structure
from scripts.evidence.torch_pruning_reg import STARTING_REG, TorchPruning
from scripts.figure1 import main as figure1
from utils.config.cli import parse

ROOT = Path(__file__).resolve().parents[2]
WORDS = "--dataset cifar10 --arch resnet20 --method GReg-1 --stage_pr [0,0.5,0,0,0] --update_reg_interval 2"
WORDS += " --reg_granularity_prune 0.25 --reg_upper_limit 0.75 --stabilize_reg_interval 3"


@pytest.fixture
def pruner():
    torch.manual_seed(0)
    options, _ = parse(WORDS.split())
    model = build_model("resnet20", 10, 3, 32)
    plan = make_plan(layers_of(model), options.stage_pr, "", "filter")
    return TorchPruning.build(
        options,
        PruningContext(
            model,
            plan,
            TorchPruning.make_schedule(options, plan),
            structure=Structure(model, example(model, 3, 32)),
        ),
    )


def regs(pruner):
    return {name: pruner._peer.group_reg[group] for name, group in pruner._groups.items()}


def test_the_weakest_channel_is_penalized_most_and_the_strongest_not_at_all(pruner):
    importance = {name: pruner._peer.estimate_importance(group) for name, group in pruner._groups.items()}
    assert list(importance) == [f"layer1.{i}.conv1" for i in range(3)]
    for step in range(4):  # two updates
        pruner.before_step(step)
    for name, reg in regs(pruner).items():
        assert reg[importance[name].argmin()].item() == pytest.approx(STARTING_REG + 2 * 0.25)
        assert reg[importance[name].argmax()].item() == pytest.approx(STARTING_REG)
    for name, kept in pruner.kept().items():
        assert kept.sum() == 8
        assert importance[name][kept].min() > importance[name][~kept].max()


def test_it_grows_past_the_limit_then_stabilizes_then_is_done(pruner):
    statuses = []
    step = 0
    while not pruner.finished:
        pruner.before_step(step)
        statuses.append(pruner.status)
        step += 1
    # 0.25, 0.5, 0.75, 1 at steps 0, 2, 4, 6: the fourth is the first above 0.75
    assert statuses == ["growing"] * 6 + ["stabilizing"] * 4
    assert max(reg.max().item() for reg in regs(pruner).values()) == pytest.approx(1 + STARTING_REG)


def test_it_resumes_from_its_state(pruner):
    pruner.before_step(0)
    state = {**pruner.state_dict(), "reg": {name: reg.clone() for name, reg in regs(pruner).items()}}
    pruner.before_step(2)
    later = {name: reg.clone() for name, reg in regs(pruner).items()}
    pruner.load_state_dict(state)
    pruner.before_step(2)
    assert all(torch.equal(reg, later[name]) for name, reg in regs(pruner).items())


def test_single_weights_are_refused_in_one_line(tmp_path):
    command = [
        sys.executable,
        ROOT / "scripts" / "evidence" / "torch_pruning_reg.py",
        *WORDS.split(),
        "--wg",
        "weight",
        "--plan",
    ]
    command += ["--method", "Torch-Pruning"]
    ran = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "--wg" in ran.stderr


@pytest.fixture
def magnitudes(tmp_path):
    for i, name in enumerate(("layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1")):
        scores = np.random.default_rng(i).uniform(0.5, 1, (6, 8)).astype("f4")
        np.savez(tmp_path / f"mag_{name}.npz", steps=np.arange(6) * 10, penalties=np.linspace(0, 0.5, 6), scores=scores)
    return tmp_path


def test_figure_1_is_drawn_for_any_layer(magnitudes, capsys):
    assert figure1([str(magnitudes)]) == 0
    assert figure1([str(magnitudes), "--layer", "layer3.0.conv1", "--out", str(magnitudes / "other.png")]) == 0
    one, other = (matplotlib.image.imread(magnitudes / name) for name in ("figure1.png", "other.png"))
    assert one.shape == other.shape
    assert one.shape[1] >= 1200
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("words", "message"), [(["--layer", "conv9"], "layer2.0.conv1"), ([], "--save_mag_reg_log")])
def test_a_wrong_command_for_figure_1_is_one_line(words, message, magnitudes, tmp_path_factory, capsys):
    folder = magnitudes if words else tmp_path_factory.mktemp("empty")
    with pytest.raises(SystemExit) as ended:
        figure1([str(folder), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
