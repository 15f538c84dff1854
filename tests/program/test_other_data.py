"""A network on data other than those that it was trained on, and plans of data that cannot be trained on."""

import pytest
import torch
from helpers import run_program, write_image_folder, write_npz_set

WORDS = ("--arch", "lenet5", "--workers", "0", "--seed", "0")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A base network of cats and dogs: its file, and the folder of the images."""
    folder = tmp_path_factory.mktemp("pets")
    images = write_image_folder(folder / "images")
    words = ["--dataset", "folder", "--data_path", images, "--arch", "resnet18", "--method", "none", "--workers", "0"]
    ran = run_program(folder, *words, "--epochs", "1", "--batch_size", "4", "--lr_ft", "0:0.01")
    assert ran.code == 0, ran.err
    return ran.weights("checkpoint_best"), folder


USES = {
    "evaluate": ["--evaluate", "--base_model_path"],
    "a base": ["--method", "L1", "--speedup", "1.2", "--epochs", "0", "--base_model_path"],
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("classes", "code"), [(("cat", "dog"), 0), (("dog", "zcat"), 2), (("cat", "eel"), 2)])
def test_other_classes_are_refused_by_name(pets, tmp_path, use, classes, code):
    base, _ = pets
    images = write_image_folder(tmp_path / "images", classes)
    words = ("--dataset", "folder", "--data_path", images, "--arch", "resnet18", "--workers", "0")
    ran = run_program(tmp_path, *words, *USES[use], base)
    assert ran.code == code, ran.err
    if code:
        (line,) = ran.err.splitlines()
        assert "was trained on other classes: class" in line
        assert repr(classes[0 if classes[0] != "cat" else 1]) in line
        assert not (tmp_path / "Experiments").exists()


def test_another_mean_is_noticed(tmp_path):
    images = write_npz_set(tmp_path / "images", size=32)
    words = ("--dataset", "npz", *WORDS, "--data_path", images)
    base = run_program(tmp_path, *words, "--method", "none", "--epochs", "1").weights("checkpoint_best")
    evaluate = ("--evaluate", *words, "--base_model_path", base)
    assert "was trained on images of" not in run_program(tmp_path, *evaluate).err
    content = torch.load(base, weights_only=True)
    content["data"] |= {"mean": (0.25,)}
    torch.save(content, base)
    ran = run_program(tmp_path, *evaluate)
    assert ran.code == 0
    assert "was trained on images of mean (0.25,); these are normalized by (0.5,)" in ran.err


PLANS = {
    "more images than there are": ("--train_images 999999", "--train_images: 999999: digits has 1437"),
    "one image": ("--train_images 1", "--train_images: 1 is too few"),
    "none to train on": ("--val_fraction 0.9999", "--val_fraction: 0.9999 of 1437 training images leaves 0"),
    "none held out": ("--val_fraction 0.0001", "--val_fraction: 0.0001 of 1437 training images is none"),
    "a batch of one": ("--arch resnet18 --dataset cifar10 --batch_size 1", "1 at a time"),
    "heads that pool to nothing": ("--arch inception_v3 --dataset cifar10", "Inception3 cannot take images of 32 px"),
}


@pytest.mark.parametrize(("words", "message"), PLANS.values(), ids=PLANS)
def test_a_plan_refuses_what_a_run_would(tmp_path, words, message):
    ran = run_program(tmp_path, "--dataset", "digits", "--method", "none", "--epochs", "2", "--plan", *words.split())
    assert ran.code == 2
    (line,) = ran.err.splitlines()
    assert message in line


def test_a_single_image_that_an_epoch_leaves_over_stops_no_run(tmp_path):
    images = write_npz_set(tmp_path / "images", train=17, size=32, channels=3, classes=4)
    words = ("--dataset", "npz", "--data_path", images, "--arch", "resnet18", "--method", "none", "--workers", "0")
    ran = run_program(tmp_path, *words, "--epochs", "1", "--batch_size", "16")
    assert ran.code == 0, ran.err
    assert ran.report["iterations"]["finetune"] == 1


def test_evaluation_notes_flags_without_effect_and_refuses_two_networks(tmp_path):
    images = write_npz_set(tmp_path / "images", size=32)
    words = ("--dataset", "npz", "--data_path", images, *WORDS)
    base = run_program(tmp_path, *words, "--method", "none", "--epochs", "1").weights("checkpoint_best")
    ran = run_program(tmp_path, "--evaluate", *words, "--base_model_path", base, "--speedup", "3", "--report_latency")
    assert ran.code == 0
    assert "no effect under --evaluate: --speedup, --report_latency" in ran.err
    for more in (("--directly_ft_weights", base), ("--pretrained",)):
        both = run_program(tmp_path, "--evaluate", *words, "--base_model_path", base, *more)
        assert both.code == 2
        assert f"tests the network of --base_model_path FILE: remove {more[0]}" in both.err
