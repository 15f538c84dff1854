"""A wrong command gives one line (the flag, the value, what to do) and writes nothing."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_program, write_image_folder, write_npz_set

DIGITS = "--dataset digits --arch resnet20"
VGG = "--dataset digits --arch vgg11"
PRUNE = f"{DIGITS} --method L1 --stage_pr [0,0.5,0.5,0.5,0]"
GREG = f"{DIGITS} --method GReg-1 --allow_untrained --stage_pr [0,0.5,0.5,0.5,0]"
NPZ = "--dataset npz --arch resnet20 --method none --data_path {bad}"

# What is wrong -> the command, and parts of the line: the flag, the value, what to do.
WRONG = {
    # flags and names
    "no data set": ("", "--dataset", "required", "digits"),
    "unknown flag": (f"{DIGITS} --epoch_s 3", "--epoch_s", "did you mean", "--epochs"),
    "ambiguous flag": (f"{DIGITS} --reg 3", "--reg", "could match", "--reg_upper_limit"),
    "stray word": (f"{DIGITS} stray", "stray", "unrecognized"),
    "unknown data set": ("--dataset cifar11", "--dataset", "cifar11", "'cifar10'"),
    "unknown network": ("--dataset digits --arch resnet21", "--arch", "resnet21", "did you mean 'resnet"),
    "unknown method": (f"{DIGITS} --method greg1", "--method", "greg1", "'GReg-1'"),
    "unknown kind of group": (f"{PRUNE} --wg filters", "--wg", "filters", "'filter'"),
    "unknown pick": (f"{PRUNE} --pick_pruned mid", "--pick_pruned", "mid", "'min'"),
    "unknown weights": ("--dataset imagenet --arch resnet18 --pretrained V3", "--pretrained", "V3", "IMAGENET1K_V1"),
    "weights of a small network": (f"{DIGITS} --pretrained", "--pretrained", "resnet20", "train the network first"),
    "a network for other images": ("--dataset tiny_imagenet --arch lenet5", "--arch lenet5", "64", "32"),
    "a network that cannot be pruned": (
        "--dataset imagenet --arch mobilenet_v2 --method L1 --stage_pr [0:0.5]", "--arch mobilenet_v2", "resnet*",
    ),
    # numbers
    "a word for a number": (f"{DIGITS} --epochs ten", "--epochs", "ten", "whole number"),
    "negative epochs": (f"{DIGITS} --epochs -1", "--epochs", "-1", "from 0"),
    "no batch": (f"{DIGITS} --batch_size 0", "--batch_size", "0", "from 1"),
    "lr that is not finite": (f"{GREG} --lr_prune nan", "--lr_prune", "nan", "from 0"),
    "λ that does not grow": (f"{GREG} --reg_granularity_prune 0", "--reg_granularity_prune", "0", "above 0"),
    "negative ceiling": (f"{GREG} --reg_upper_limit -1", "--reg_upper_limit", "-1", "from 0"),
    "interval of updates": (f"{GREG} --update_reg_interval 0", "--update_reg_interval", "0", "from 1"),
    "interval of lines": (f"{DIGITS} --print_interval 0", "--print_interval", "0", "from 1"),
    "interval of tests": (f"{DIGITS} --test_interval -5", "--test_interval", "-5", "from 1"),
    "interval of saves": (f"{DIGITS} --save_interval 0m", "--save_interval", "0", "above 0"),
    "interval of saves in hours": (f"{DIGITS} --save_interval 1h", "--save_interval", "1h", "whole number"),
    "all held out": (f"{DIGITS} --val_fraction 1", "--val_fraction", "1", "less than 1"),
    "nothing held out": (f"{DIGITS} --val_fraction 1e-6", "--val_fraction", "1e-06", "1437"),
    "more images than there are": (f"{DIGITS} --train_images 2000", "--train_images", "2000", "1437"),
    "no images": (f"{DIGITS} --train_images 0", "--train_images", "0", "from 1"),
    "λ on groups of channels": (f"{GREG} --wg channel --penalize group", "--penalize group", "channel", "--wg filter"),
    "λ on groups of weights": (f"{GREG} --wg weight --penalize group", "--penalize group", "weight", "--wg filter"),
    # ratios and layers
    "no ratios": (f"{DIGITS} --method L1", "--stage_pr", "L1", "[0,0.5,0.5,0.5,0]"),
    "negative ratio": (f"{DIGITS} --method L1 --stage_pr [0,-0.5,0,0,0]", "--stage_pr", "-0.5", "0 to less than 1"),
    "ratio above 1": (f"{DIGITS} --method L1 --stage_pr [0,1.5,0,0,0]", "--stage_pr", "1.5", "0 to less than 1"),
    "ratio of 1": (f"{DIGITS} --method L1 --allow_untrained --stage_pr [0,1,0,0,0]", "--stage_pr", "1", "less than 1"),
    "ratio that is not finite": (f"{DIGITS} --method L1 --stage_pr [0,nan,0,0,0]", "--stage_pr", "nan", "0 to less than 1"),
    "too few stages": (f"{DIGITS} --method L1 --stage_pr [0,0.5,0]", "--stage_pr", "3 ratios", "5 stages"),
    "too many stages": (f"{DIGITS} --method L1 --stage_pr [0,0,0,0,0,0]", "--stage_pr", "6 ratios", "5 stages"),
    "one ratio": (f"{DIGITS} --method L1 --stage_pr 0.5", "--stage_pr", "'0.5'", "[0,0.5,0.5,0.5,0]"),
    "a lone bracket": (f"{DIGITS} --method L1 --stage_pr 0,0.5,0.5,0.5,0]", "--stage_pr", "'0,0.5,0.5,0.5,0]'", "one pair of brackets"),
    "blanks without brackets": (f"{DIGITS} --method L1 --stage_pr 0, 0.5, 0.5, 0.5, 0", "0.5, 0.5, 0.5, 0", "needs quotes"),
    "ranges with blanks": (f"{VGG} --method L1 --stage_pr 0-4:0.5, 5:0.2", "5:0.2", "needs quotes"),
    "skips with blanks": (f"{PRUNE} --skip_layers 1.0, 2.0", "2.0", "needs quotes"),
    "two commas": (f"{DIGITS} --method L1 --stage_pr 0,0.5,,0.5,0", "--stage_pr", "''", "0 to less than 1"),
    "two commas at the end": (f"{PRUNE} --skip_layers 1.0,,", "--skip_layers", "''", "2.3"),
    "two commas in a schedule": (f"{DIGITS} --lr_ft 0:0.1,,", "--lr_ft", "''", "30:0.001"),
    "ratio of 1 without brackets": (f"{DIGITS} --method L1 --stage_pr 0,1,0,0,0", "--stage_pr", "'1'", "less than 1"),
    "ranges that overlap, without brackets": (f"{VGG} --method L1 --stage_pr 1-4:0.5,3:0.2", "3:0.2", "second time"),
    "ratios by layer for stages": (f"{DIGITS} --method L1 --stage_pr [1-3:0.5]", "--stage_pr", "[1-3:0.5]", "5 ratios"),
    "ratios by stage for layers": (f"{VGG} --method L1 --stage_pr [0,0.5]", "--stage_pr", "[0,0.5]", "[1-15:0.7]"),
    "reversed range": (f"{VGG} --method L1 --stage_pr [4-1:0.5]", "--stage_pr", "4-1:0.5", "1-4"),
    "layer named twice": (f"{VGG} --method L1 --stage_pr [1-4:0.5,3:0.2]", "--stage_pr", "3:0.2", "second time"),
    "layer that is not there": (f"{VGG} --method L1 --stage_pr [20:0.5]", "--stage_pr", "20", "the last is 8"),
    "ratio for the stem": (f"{DIGITS} --method L1 --stage_pr [0.5,0,0,0,0]", "--stage_pr", "conv1", "ratio 0"),
    "ratio for the classifier": (f"{DIGITS} --method L1 --stage_pr [0,0,0,0,0.5]", "--stage_pr", "linear", "ratio 0"),
    "channels of the images": (f"{VGG} --method L1 --wg channel --stage_pr [0:0.5]", "--stage_pr", "channels", "ratio 0"),
    "skip that matches nothing": (f"{PRUNE} --skip_layers [7.7]", "--skip_layers", "7.7", "1.0.0"),
    "skip that is no address": (f"{PRUNE} --skip_layers [conv1]", "--skip_layers", "conv1", "2.3"),
    "skip among single weights": (f"{PRUNE} --wg weight --skip_layers [1.0]", "--skip_layers", "--wg weight", "ratio 0"),
    "speedup missed": (f"{PRUNE} --expect_speedup 3.5", "--expect_speedup", "3.5", "1.99x"),
    "speedup of masks": (f"{PRUNE} --wg weight --expect_speedup 2", "--expect_speedup", "--wg weight", "FLOPs"),
    "batch-norm that is not there to drop": (f"{DIGITS} --not_use_bn", "--not_use_bn", "resnet20", "vgg"),
    "untrained weights": (PRUNE, "--base_model_path", "--allow_untrained"),
    "too many combinations": (f"{DIGITS} --method Oracle --stage_pr [0,0.5,0.5,0.5,0]", "Oracle", "combinations", "20,000"),
    # learning rates
    "schedule without epochs": (f"{DIGITS} --lr_ft 0.1", "--lr_ft", "0.1", "30:0.001"),
    "schedule out of order": (f"{DIGITS} --lr_ft 0:0.1,60:0.001,30:0.01", "--lr_ft", "30:0.01", "in order"),
    "schedule with an epoch twice": (f"{DIGITS} --lr_ft 0:0.1,0:0.01", "--lr_ft", "0:0.01", "second time"),
    "negative learning rate": (f"{DIGITS} --lr_ft 0:-0.1", "--lr_ft", "0:-0.1", "rate from 0"),
    # files
    "no such base": (f"{PRUNE} --base_model_path nowhere/*.pth", "--base_model_path", "nowhere/*.pth", "no file"),
    "two bases from the shell": (f"{PRUNE} --base_model_path a.pth b.pth", "--base_model_path", "a.pth, b.pth", "one"),
    "a pattern for two bases": (f"{PRUNE} --base_model_path {{bad}}/two/*.pth", "--base_model_path", "2 files", "one"),
    "a base of text": (f"{PRUNE} --base_model_path {{bad}}/text.pth", "--base_model_path", "text.pth", "no checkpoint"),
    "a truncated base": (f"{PRUNE} --base_model_path {{bad}}/short.pth", "--base_model_path", "short.pth", "truncated"),
    "a base with a flipped bit": (f"{PRUNE} --base_model_path {{bad}}/flipped.pth", "--base_model_path", "flipped", "sums"),
    "a base that runs code": (f"{PRUNE} --base_model_path {{bad}}/code.pth", "code.pth", "--trust_checkpoint"),
    "a base of a newer version": (f"{PRUNE} --base_model_path {{bad}}/newer.pth", "newer.pth", "format 99", "newer version"),
    "a base of another network": (
        f"{DIGITS} --method none --arch resnet32 --base_model_path {{bad}}/base.pth", "--arch", "resnet20", "resnet32",
    ),
    "a base for other classes": (
        "--dataset npz --data_path {bad}/good --arch resnet20 --method none --base_model_path {bad}/base.pth",
        "--base_model_path", "base.pth", "classes",
    ),
    "two bases": (
        "--dataset imagenet --arch resnet18 --pretrained --base_model_path a.pth", "--pretrained", "--base_model_path", "one",
    ),
    "an evaluation of nothing": (f"{DIGITS} --evaluate", "--evaluate", "--base_model_path"),
    "ratios from a dense network": (
        f"{DIGITS} --method L1 --base_pr_model {{bad}}/base.pth", "--base_pr_model", "base.pth", "no pruned network",
    ),
    "fine-tuning of a dense network": (
        f"{DIGITS} --directly_ft_weights {{bad}}/base.pth", "--directly_ft_weights", "base.pth", "no pruned network",
    ),
    "no settings": (f"{DIGITS} --config nowhere.yaml", "--config", "nowhere.yaml", "No such file"),
    "settings that are a list": (f"{DIGITS} --config {{bad}}/list.yaml", "--config", "list.yaml", "key: value"),
    "settings that are no YAML": (f"{DIGITS} --config {{bad}}/text.pth", "--config", "text.pth", "key: value"),
    "a setting that is not there": (f"{DIGITS} --config {{bad}}/unknown.yaml", "--config", "'epoch'", "'epochs'"),
    # data
    "no npz set": ("--dataset npz --arch resnet20 --data_path nowhere", "--data_path", "nowhere/train.npz", "test.npz"),
    "no npz file": (f"{NPZ}/text", "--data_path", "train.npz", "array 'images'"),
    "an empty set": (f"{NPZ}/empty", "--data_path", "train.npz", "(N, H, W, C)"),
    "images of floats": (f"{NPZ}/floats", "--data_path", "train.npz", "uint8"),
    "images of two sizes": (f"{NPZ}/mixed", "--data_path", "mixed", "alike"),
    "images that are not square": (f"{NPZ}/oblong", "--data_path", "oblong", "square"),
    "too few labels": (f"{NPZ}/few_labels", "--data_path", "train.npz", "one per image"),
    "negative labels": (f"{NPZ}/negative", "--data_path", "train.npz", "from 0"),
    "test labels out of range": (f"{NPZ}/beyond", "--data_path", "test.npz", "label 9"),
    "a damaged set": (f"{NPZ}/damaged", "--data_path", "train.npz", "damaged"),
    "no folder": ("--dataset folder --data_path nowhere", "--data_path", "nowhere/train", "class folders"),
    "a folder without images": ("--dataset folder --data_path {bad}/no_images", "--data_path", "no_images", "class folders"),
    "other classes to test": ("--dataset folder --data_path {bad}/odd_classes --method none", "--data_path", "differ", "dog"),
    # resuming, processes, devices
    "nothing to resume": (f"{DIGITS} --resume_path nowhere", "--resume_path", "no file or directory nowhere"),
    "a directory without a run": (f"{DIGITS} --resume_path {{bad}}/good", "--resume_path", "good", "params.yaml"),
    "resuming from a network": (f"{DIGITS} --resume_path {{bad}}/network.pth", "--resume_path", "network.pth", "state of a run"),
    "several machines": (
        f"{DIGITS} --multiprocessing-distributed --world-size 2 --rank 0 --dist-url tcp://10.0.0.1:2345",
        "--world-size 2", "torchrun --nnodes=2", "10.0.0.1:2345",
    ),
    "a GPU that is not there": (f"{DIGITS} --device cuda", "--device", "cuda", "cpu"),
    "CUDA graphs": (f"{DIGITS} --cuda_graph on", "--cuda_graph", "on", "auto or off"),
    "synchronized batch norm on a CPU": (f"{DIGITS} --device cpu --sync_bn", "--sync_bn", "GPUs", "CUDA"),
    "unknown number format": (f"{DIGITS} --amp fp16", "--amp", "fp16", "'bf16'"),
    "unknown device": (f"{DIGITS} --device gpu", "--device", "gpu", "'cpu'"),
    "a project name that is a path": (f"{DIGITS} --project_name ../x", "--project_name", "../x", "not a name"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Make a folder of files and sets; their names say what is wrong with them."""
    root = tmp_path_factory.mktemp("bad")
    ran = run_program(root / "made", *DIGITS.split(), "--epochs", 0)
    base = ran.weights("checkpoint_best").read_bytes()
    (root / "base.pth").write_bytes(base)
    (root / "short.pth").write_bytes(base[:-1000])
    (root / "flipped.pth").write_bytes(bytes(byte ^ (i == len(base) // 2) for i, byte in enumerate(base)))
    (root / "text.pth").write_text("a text file\n")
    saved = torch.load(root / "base.pth", weights_only=True)
    torch.save(saved | {"version": 99}, root / "newer.pth")
    torch.save(
        {key: saved[key] for key in ("version", "options", "data", "kept", "masks", "model")}, root / "network.pth"
    )
    torch.save(torch.nn.Linear(2, 2), root / "code.pth")
    (root / "two").mkdir()
    for name in ("a.pth", "b.pth"):
        (root / "two" / name).touch()
    (root / "list.yaml").write_text("- epochs\n")
    (root / "unknown.yaml").write_text("epoch: 3\n")
    write_npz_set(root / "good")
    write_bad_sets(root)
    return root


def write_bad_sets(root: Path) -> None:
    images, labels = np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 3
    sets = {
        "empty": (images[:0], labels[:0]),
        "floats": (images.astype(np.float32), labels),
        "oblong": (images[:, :, :4], labels),
        "few_labels": (images, labels[1:]),
        "negative": (images, labels - 1),
    }
    for name, train in {**sets, "mixed": (images, labels), "beyond": (images, labels)}.items():
        (root / name).mkdir()
        test = {"oblong": train, "mixed": (np.zeros((12, 16, 16, 1), np.uint8), labels), "beyond": (images, labels + 7)}
        for split, arrays in (("train", train), ("test", test.get(name, (images, labels)))):
            np.savez(root / name / f"{split}.npz", images=arrays[0], labels=arrays[1])
    write_npz_set(root / "damaged")
    raw = bytearray((root / "damaged" / "train.npz").read_bytes())
    raw[2000] ^= 0xFF
    (root / "damaged" / "train.npz").write_bytes(raw)
    (root / "text").mkdir()
    for split in ("train", "test"):
        (root / "text" / f"{split}.npz").write_text("no arrays\n")
    for split in ("train", "val"):
        (root / "no_images" / split / "cat").mkdir(parents=True)
    write_image_folder(root / "odd_classes")
    (root / "odd_classes" / "val" / "dog").rename(root / "odd_classes" / "val" / "wolf")


def test_there_are_at_least_40_wrong_commands():
    assert len(WRONG) >= 40


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_command_gives_one_line_and_writes_nothing(name, bad, tmp_path):
    command, *parts = WRONG[name]
    began = time.perf_counter()
    ran = run_program(tmp_path, *command.format(bad=bad).split())
    assert time.perf_counter() - began < 10
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("main.py: error: ")
    assert [part for part in parts if part not in line] == [], line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wanted", ["Experiments", "Debug_Dir"])
def test_an_unwritable_folder_of_runs_is_refused(wanted, tmp_path):
    (tmp_path / wanted).write_text("a file where the folder should be")
    words = [*DIGITS.split(), "--epochs", "0", *(["--debug"] if wanted == "Debug_Dir" else [])]
    ran = run_program(tmp_path, *words)
    assert ran.code == 2
    *traceback, line = ran.err.splitlines()
    assert bool(traceback) == (wanted == "Debug_Dir")
    assert f"cannot make the folder of runs {wanted}" in line
    assert [path.name for path in tmp_path.iterdir()] == [wanted]
