"""Class names, fingerprint, summary and notices of a set; and which flag an error about its size names."""

import shutil

import numpy as np
import pytest
import torch
from helpers import one_line_refusal, run_program, write_npz_set
from PIL import Image

from data import DataSource, Shard

CPU = torch.device("cpu")


def load(dataset, path, seed=0, **more):
    return DataSource(dataset, str(path)).load(seed, 0, CPU, **more)


@pytest.fixture
def pets(tmp_path):
    """Three classes, four images each to train on, three to test; every file of a size of its own."""
    for part, n in (("train", 4), ("val", 3)):
        for label, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (8, 8)).save(tmp_path / "pets" / part / name / f"{i}.bmp")
                lengthen(tmp_path / "pets" / part / name / f"{i}.bmp", 10 * label + i)
    return tmp_path / "pets"


def fingerprint(path, dataset="folder", **more):
    return load(dataset, path, **more).fingerprint


def rewrite(file, compressed=False, **changes):
    with np.load(file) as arrays:
        content = dict(arrays)
    content |= {key: change(content[key]) for key, change in changes.items()}
    (np.savez_compressed if compressed else np.savez)(file, **content)


def lengthen(file, n_bytes=1):
    file.write_bytes(file.read_bytes() + bytes(n_bytes))


def swap(one, other):
    kept = one.with_name("kept")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def add_files(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder


SAME = {
    "nothing": lambda pets: pets,
    "moved": lambda pets: pets.rename(pets.with_name("other")),
    "copied": lambda pets: shutil.copytree(pets, pets.with_name("copy")),
    "reached by a link": lambda pets: (pets.with_name("link").symlink_to(pets), pets.with_name("link"))[1],
    "hidden files and notes added": lambda pets: add_files(pets, "train/cat/.x", "train/cat/a.txt"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_fingerprint_of_a_folder_is_unchanged(pets, name):
    before = fingerprint(pets)
    assert fingerprint(SAME[name](pets)) == before
    assert len(before) == 16
    int(before, 16)


def test_the_fingerprint_of_a_folder_is_that_of_its_relative_path(pets, monkeypatch):
    before = fingerprint(pets)
    monkeypatch.chdir(pets)
    assert fingerprint(".") == before
    monkeypatch.chdir(pets.parent)
    assert fingerprint("pets/") == fingerprint("pets") == before


def rename_class(pets):
    for part in ("train", "val"):
        (pets / part / "dog").rename(pets / part / "doge")


OTHER = {
    "a renamed class": rename_class,
    "two classes swapped": lambda pets: [swap(pets / part / "cat", pets / part / "dog") for part in ("train", "val")],
    "another size": lambda pets: lengthen(pets / "train" / "cat" / "0.bmp"),
    "another size in val": lambda pets: lengthen(pets / "val" / "owl" / "2.bmp"),
    "a renamed image": lambda pets: (pets / "train" / "cat" / "0.bmp").rename(pets / "train" / "cat" / "9.bmp"),
    "an image more": lambda pets: shutil.copy(pets / "train" / "cat" / "0.bmp", pets / "train" / "cat" / "9.bmp"),
    "an image less": lambda pets: (pets / "train" / "cat" / "0.bmp").unlink(),
    "an image in another class": lambda pets: (pets / "train/cat/0.bmp").rename(pets / "train/dog/9.bmp"),
    "two images of two classes swapped": lambda pets: swap(pets / "train/cat/0.bmp", pets / "train/dog/0.bmp"),
    "train and val swapped": lambda pets: swap(pets / "train", pets / "val"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_the_fingerprint_of_other_images_is_another(pets, name):
    before = fingerprint(pets)
    OTHER[name](pets)
    assert fingerprint(pets) != before


NPZ_OTHER = {
    "a pixel": {"images": lambda a: a ^ (np.arange(len(a)) == 3).astype(np.uint8)[:, None, None, None]},
    "a label": {"labels": lambda a: np.where(np.arange(len(a)) == 0, 5, a)},
    "another order": {"images": lambda a: a[::-1], "labels": lambda a: a[::-1]},
    "an image less": {"images": lambda a: a[:-1], "labels": lambda a: a[:-1]},
    "labels swapped": {"labels": lambda a: np.where(a < 2, 1 - a, a)},
}


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("name", NPZ_OTHER)
def test_the_fingerprint_of_other_arrays_is_another(npz_set, half, name):
    before = fingerprint(npz_set, "npz")
    rewrite(npz_set / f"{half}.npz", **NPZ_OTHER[name])
    assert fingerprint(npz_set, "npz") != before


def test_the_fingerprint_of_moved_or_compressed_arrays_is_unchanged(npz_set):
    before = fingerprint(npz_set, "npz")
    rewrite(npz_set / "train.npz", compressed=True)
    assert fingerprint(npz_set.rename(npz_set.with_name("other")), "npz") == before


def test_train_and_test_arrays_have_different_fingerprints(tmp_path):
    folder = write_npz_set(tmp_path / "set", train=40, test=30)
    before = fingerprint(folder, "npz")
    swap(folder / "train.npz", folder / "test.npz")
    assert fingerprint(folder, "npz") != before


@pytest.mark.parametrize("more", [{"seed": 5}, {"val_fraction": 0.25}, {"train_images": 10}])
@pytest.mark.parametrize("dataset", ["folder", "npz", "digits"])
def test_the_fingerprint_does_not_depend_on_seed_and_subsets(pets, npz_set, dataset, more):
    path = {"folder": pets, "npz": npz_set, "digits": "."}[dataset]
    assert fingerprint(path, dataset, **more) == fingerprint(path, dataset)


def test_class_names_are_in_label_order(pets, npz_set):
    assert load("folder", pets).class_names == ("cat", "dog", "owl")
    assert load("npz", npz_set).class_names == ()
    assert load("digits", ".").class_names == tuple("0123456789")


# summary and notices


def test_the_summary_counts_the_training_images(pets, npz_set):
    assert load("folder", pets).summary == "images: 12 to train on in 3 classes (4 to 4 each), 9 to test"
    held = load("folder", pets, val_fraction=0.25)
    assert held.summary.startswith("images: 9 to train on in 3 classes (")
    assert held.summary.endswith("each), 3 held out, 9 to test")
    assert load("npz", npz_set).summary == "images: 40 to train on in 6 classes (6 to 7 each), 24 to test"
    assert load("digits", ".").summary == "images: 1,437 to train on in 10 classes (139 to 146 each), 360 to test"


def relabelled(folder, train=None, test=None):
    for half, change in (("train", train), ("test", test)):
        if change:
            rewrite(folder / f"{half}.npz", labels=change)
    return load("npz", folder)


def test_an_unused_label_gives_a_notice_and_keeps_its_output(npz_set):
    data = relabelled(npz_set, lambda a: a + 1, lambda a: a + 1)
    assert data.spec.classes == 7
    assert data.notices == ["no training image has label 0", "no test image has label 0"]
    assert "in 7 classes (0 to 7 each)" in data.summary


def test_labels_without_test_images_are_named(npz_set):
    data = relabelled(npz_set, test=lambda a: a // 3)
    assert data.notices == ["no test image has label 2, 3, 4, 5"]


def test_many_unused_labels_are_ten_and_a_number(npz_set):
    data = relabelled(npz_set, train=lambda a: np.where(a == 5, 30, a))
    assert data.notices[0] == "no training image has label 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, and 15 more"


def test_labels_are_named_by_their_classes(pets):
    data = load("folder", pets, train_images=2)
    assert "(" in data.notices[0]
    assert data.notices[0].startswith("no training image has label ")


def test_complete_data_have_no_notices(pets, npz_set):
    assert [load("folder", pets).notices, load("npz", npz_set).notices, load("digits", ".").notices] == [[], [], []]


def test_a_notice_on_unused_labels_is_on_stderr(npz_set, tmp_path):
    relabelled(npz_set, lambda a: a + 1, lambda a: a + 1)
    words = ("--dataset", "npz", "--data_path", npz_set, "--arch", "resnet20", "--method", "none", "--epochs", 0)
    ran = run_program(tmp_path / "run", *words)
    assert ran.code == 0
    assert "notice: no training image has label 0" in ran.err
    assert ran.log.count("images: 40 to train on in 7 classes (0 to 7 each), 24 to test") == 1


# labels that are no classes

NO_CLASSES = {
    "identifiers": (lambda a: a * 10**8, "np.unique"),
    "identifiers of some thousands": (lambda a: a * 1000, "np.unique"),
    "as many classes as images and one": (lambda a: np.where(a == 5, 40, a), "np.unique"),
    "beyond 32 bits": (lambda a: a.astype(np.uint64) + np.uint64(2**63), "np.unique"),
    "the largest": (lambda a: np.where(a == 5, np.iinfo(np.int64).max, a), "np.unique"),
    "one label": (lambda a: a * 0, "two classes"),
    "one label, not 0": (lambda a: a * 0 + 3, "two classes"),
}


@pytest.mark.parametrize("name", NO_CLASSES)
def test_labels_that_number_no_classes_are_refused(npz_set, name):
    change, message = NO_CLASSES[name]
    for half in ("train", "test"):
        rewrite(npz_set / f"{half}.npz", labels=change)
    assert message in one_line_refusal(DataSource, "npz", str(npz_set))


def test_as_many_classes_as_images_are_taken(npz_set):
    assert relabelled(npz_set, lambda a: np.where(a == 5, 39, a)).spec.classes == 40


# which flag is at fault

AT_FAULT = [
    ({"val_fraction": 0.999}, "0.999 of 40 training images leaves 0 to train on"),
    ({"val_fraction": 0.97}, "0.97 of 40 training images leaves 1 to train on"),
    ({"val_fraction": 0.001}, "0.001 of 40 training images is none"),
    ({"train_images": 41}, "41: "),
    ({"train_images": 1}, "1 is too few"),
    ({"train_images": 10, "val_fraction": 0.95}, "0.95 of 10 training images leaves 0"),
]


@pytest.mark.parametrize(("more", "message"), AT_FAULT)
def test_an_error_names_the_flag_that_is_at_fault(npz_set, more, message):
    assert one_line_refusal(lambda: load("npz", npz_set, **more)).startswith(message)


def test_a_set_that_is_too_small_is_named(tmp_path):
    folder = write_npz_set(tmp_path / "set", train=40, test=24)
    rewrite(folder / "train.npz", images=lambda a: a[:2], labels=lambda a: a[:2])
    rewrite(folder / "test.npz", images=lambda a: a[:2], labels=lambda a: a[:2])
    assert load("npz", folder).sizes == (2, 2)
    line = one_line_refusal(lambda: load("npz", folder, shard=Shard(0, 3)))
    assert line == "set has too few images: 2 to train on, 2 to test, for 3 processes"


def test_many_processes_and_a_small_fraction_name_the_fraction(npz_set):
    line = one_line_refusal(lambda: load("npz", npz_set, val_fraction=0.1, shard=Shard(0, 8)))
    assert line.startswith("0.1 of 40 training images is 4, for 8 processes")
