"""Selection of image files in a folder: hidden files, links, special files, other formats; and their notices."""

import contextlib
import os
import socket
import time
from collections import Counter

import pytest
import torch
from helpers import one_line_refusal, run_program, write_image_folder
from PIL import Image
from torchvision.datasets import ImageFolder

from data import DataSource
from data.tree import find_images

CPU = torch.device("cpu")
NONE = ("--arch", "resnet18", "--method", "none", "--epochs", 0, "--workers", 0)


def load(folder, dataset="folder", **more):
    return DataSource(dataset, str(folder)).load(0, 0, CPU, **more)


@pytest.fixture
def pets(tmp_path):
    """Two classes with three images to train on and two to test, tiny."""
    for part, n in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (8, 8), (90 * label + i, 0, 0)).save(tmp_path / "pets" / part / name / f"{i}.png")
    return tmp_path / "pets"


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def fifo(path):
    os.mkfifo(path)


def a_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # a socket's path must be short
        made.bind(path.name)


# An addition to train/cat -> the skipped files in the summary; the number of images is unchanged.
PASSED_OVER = {
    ".gif": (lambda cat: (cat / "a.gif").touch(), "1 file (.gif 1)"),
    "extensions in any case": (lambda cat: [(cat / f"a.{e}").touch() for e in ("GIF", "gif")], "2 files (.gif 2)"),
    ".jfif, .heic, .txt": (
        lambda cat: [(cat / name).touch() for name in ("a.jfif", "b.jfif", "a.heic", "a.txt")],
        "4 files (.jfif 2, .heic 1, .txt 1)",
    ),
    "no extension": (lambda cat: (cat / "README").touch(), "1 file (other 1)"),
    "an extension of two lines": (lambda cat: (cat / "a.b\nc").touch(), "1 file (other 1)"),
    "an undecodable name": (lambda cat: (cat / os.fsdecode(b"\xff.\xfe")).touch(), "1 file (other 1)"),
    "AppleDouble": (lambda cat: (cat / "._0.png").write_bytes(b"\0\5\x16\7"), "1 hidden"),
    ".DS_Store": (lambda cat: (cat / ".DS_Store").touch(), "1 hidden"),
    "a hidden folder": (lambda cat: copy(cat / "0.png", cat / ".thumbs" / "0.png"), "1 hidden"),
    "Jupyter's folder": (lambda cat: copy(cat / "0.png", cat.parent / ".ipynb_checkpoints" / "0.png"), "1 hidden"),
    "a folder of macOS": (lambda cat: copy(cat / "0.png", cat.parent / "__MACOSX" / "0.png"), "1 hidden"),
    "a hidden link to nothing": (lambda cat: (cat / ".#lock.png").symlink_to("nowhere"), "1 hidden"),
    "a link to its own folder": (lambda cat: (cat / "again").symlink_to("."), "1 linked again"),
    "a link to train/": (lambda cat: (cat / "up").symlink_to(".."), "1 linked again"),
    "a link to the set": (lambda cat: (cat / "up").symlink_to("../.."), "1 linked again"),
    "a link to everything": (lambda cat: (cat / "root").symlink_to("/"), "1 linked again"),
    "a link to another class": (lambda cat: (cat / "dogs").symlink_to("../dog"), "1 linked again"),
    "train/ as a class of itself": (lambda cat: (cat.parent / "all").symlink_to("."), "1 linked again"),
    "the set as a class of itself": (lambda cat: (cat.parent / "all").symlink_to("../.."), "1 linked again"),
    "a FIFO": (lambda cat: fifo(cat / "x.png"), "1 not a regular file"),
    "a socket": (lambda cat: a_socket(cat / "x.png"), "1 not a regular file"),
    "a device": (lambda cat: (cat / "x.png").symlink_to("/dev/zero"), "1 not a regular file"),
    "a link to a FIFO": (
        lambda cat: [fifo(cat / ".f"), (cat / "x.png").symlink_to(".f")], "1 hidden, 1 not a regular file",
    ),
    "a folder named as an image": (lambda cat: (cat / "x.png").mkdir(), ""),
    "an image outside the classes": (lambda cat: copy(cat / "0.png", cat.parent / "0.png"), "1 outside class folders"),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED_OVER)
def test_files_that_are_no_images_are_skipped_and_counted(pets, name):
    add, skipped = PASSED_OVER[name]
    add(pets / "train" / "cat")
    began = time.perf_counter()
    data = load(pets)
    assert time.perf_counter() - began < 5
    assert data.class_names == ("cat", "dog")
    assert Counter(label for _, label in data.train.samples) == {0: 3, 1: 3}
    line = "images: 6 to train on in 2 classes (3 to 3 each), 4 to test"
    assert data.summary == line + (f"; passed over: {skipped}" if skipped else "")
    assert DataSource("folder", str(pets)).spec.train_images == 6


# An addition to train/cat -> how many cats there are then.
TAKEN = {
    "an image in a folder": (lambda cat: copy(cat / "0.png", cat / "more" / "deep" / "0.png"), 4),
    "a capital extension": (lambda cat: copy(cat / "0.png", cat / "9.PNG"), 4),
    "a link to an image": (lambda cat: (cat / "9.png").symlink_to("0.png"), 4),
    "a link to a folder elsewhere": (
        lambda cat: [
            copy(cat / "0.png", cat.parents[1] / "elsewhere" / "0.png"),
            (cat / "more").symlink_to("../../elsewhere"),
        ],
        4,
    ),
    "two links to one folder": (
        lambda cat: [
            copy(cat / "0.png", cat.parents[1] / "elsewhere" / "0.png"),
            *((cat / name).symlink_to("../../elsewhere") for name in ("a", "b")),
        ],
        4,
    ),
    "a folder and an earlier link to it": (
        lambda cat: [copy(cat / "0.png", cat / "z" / "0.png"), (cat / "a").symlink_to("z")],
        4,
    ),
    "two folders that link to each other": (
        lambda cat: [
            *(copy(cat / "0.png", cat / name / "0.png") for name in "ab"),
            (cat / "a" / "b").symlink_to("../b"),
            (cat / "b" / "a").symlink_to("../a"),
        ],
        5,
    ),
    "an undecodable name": (lambda cat: copy(cat / "0.png", cat / os.fsdecode(b"\xff\xfe.png")), 4),
    "a name of two lines": (lambda cat: copy(cat / "0.png", cat / "a\nb.png"), 4),
}


@pytest.mark.parametrize("name", TAKEN)
def test_each_image_is_used_once(pets, name):
    add, n_cats = TAKEN[name]
    add(pets / "train" / "cat")
    data = load(pets)
    assert Counter(label for _, label in data.train.samples) == {0: n_cats, 1: 3}
    assert sum(len(labels) for _, labels, _ in data.train_once()) == n_cats + 3
    assert f"({3} to {n_cats} each)" in data.summary
    assert len(data.fingerprint) == 16


def test_a_class_folder_may_be_a_link(pets):
    (pets / "train" / "cat").rename(pets / "cats")
    (pets / "train" / "cat").symlink_to("../cats")
    assert load(pets).class_names == ("cat", "dog")


def test_one_folder_as_two_classes_is_refused(pets):
    (pets / "train" / "tom").symlink_to("cat")
    line = one_line_refusal(load, pets)
    assert "train/tom" in line
    assert "train/cat" in line


@pytest.mark.parametrize("where", ["train/cat/9.png", "train/cat/more", "train/owl", "val/dog/9.png"])
@pytest.mark.parametrize("target", ["nowhere", "9.png", "more", "owl"])
def test_a_link_to_nothing_is_named(pets, where, target):
    (pets / where).symlink_to(target)  # to a name that is not there, or to itself
    line = one_line_refusal(DataSource, "folder", str(pets))
    assert str(pets / where) in line


def test_samples_are_in_the_order_of_image_folder(pets):
    cat = pets / "train" / "cat"
    for name in ("b/1.png", "a/2.png", "a-b/1.png", "a.b/0.PNG", "10.png", "B/0.png"):
        copy(cat / "0.png", cat / name)
    tree, theirs = find_images(pets / "train"), ImageFolder(str(pets / "train"))
    assert tree.samples == theirs.samples
    assert tree.classes == theirs.classes


def test_skipped_files_are_counted_in_train_and_val(pets):
    for part in ("train", "val"):
        (pets / part / "cat" / "a.gif").touch()
        (pets / part / "dog" / ".hidden").touch()
    assert load(pets).summary.endswith("; passed over: 2 files (.gif 2), 2 hidden")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_without_images_is_named_with_its_skipped_files(pets, part):
    for file in (pets / part / "cat").iterdir():
        file.rename(file.with_suffix(".gif"))
    line = one_line_refusal(DataSource, "folder", str(pets))
    assert f"{pets / part}" in line
    assert "cat" in line
    assert ".gif" in line


def test_class_folders_one_level_too_deep_are_named(pets):
    for part in ("train", "val"):
        (pets / part).rename(pets / "images")
        (pets / part).mkdir()
        (pets / "images").rename(pets / part / "images")
    line = one_line_refusal(DataSource, "folder", str(pets))
    assert "one class only, 'images'" in line
    assert f"one level deeper, in {pets / 'train' / 'images'}" in line


def test_a_single_class_is_refused(pets):
    for part in ("train", "val"):
        for file in (pets / part / "dog").iterdir():
            file.unlink()
        (pets / part / "dog").rmdir()
    line = one_line_refusal(DataSource, "folder", str(pets))
    assert "one class only, 'cat'" in line
    assert "deeper" not in line


def test_the_set_below_the_folder_that_was_given_is_named(pets):
    assert "take that folder" in one_line_refusal(DataSource, "folder", str(pets.parent))


def test_an_unreadable_folder_is_named(pets, monkeypatch):
    real = os.scandir

    def refusing(path):
        if str(path).endswith("train/cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    line = one_line_refusal(load, pets)
    assert str(pets / "train" / "cat") in line
    assert "Permission denied" in line


def test_the_data_are_described_once_in_the_log_of_a_run(tmp_path):
    folder = write_image_folder(tmp_path / "pets")
    (folder / "train" / "cat" / "a.gif").touch()
    ran = run_program(tmp_path / "run", "--dataset", "folder", "--data_path", folder, *NONE)
    line = "images: 6 to train on in 2 classes (3 to 3 each), 4 to test; passed over: 1 file (.gif 1)"
    assert ran.code == 0
    assert ran.out.splitlines().count(line) == 1
    assert ran.log.count(line) == 1


# annotations of Tiny-ImageNet


@pytest.fixture
def annotated(pets):
    (pets / "val").rename(pets / "old")
    (pets / "val" / "images").mkdir(parents=True)
    for i in range(2):
        copy(pets / "old" / "cat" / f"{i}.png", pets / "val" / "images" / f"{i}.png")
    (pets / "val" / "val_annotations.txt").write_text("0.png\tcat\t0\t0\n1.png\tdog\t0\t0\n")
    return pets


def test_an_annotated_val_is_read(annotated):
    assert [label for _, label in load(annotated).test.samples] == [0, 1]


def test_files_without_a_line_of_the_annotations_are_counted(annotated):
    (annotated / "val" / "val_annotations.txt").write_text("0.png\tcat\n1.png\tdog\n")
    for name in ("2.png", "3.png"):
        copy(annotated / "val" / "images" / "0.png", annotated / "val" / "images" / name)
    data = load(annotated)
    assert (len(data.test), "2 files (not in val_annotations.txt 2)" in data.summary) == (2, True), data.summary


def test_an_undecodable_name_in_the_annotations_is_read(annotated):
    name = b"\xff\xfe.png"
    copy(annotated / "val" / "images" / "0.png", annotated / "val" / "images" / os.fsdecode(name))
    (annotated / "val" / "val_annotations.txt").write_bytes(name + b"\tdog\r\n0.png\tcat\r\n")
    assert [label for _, label in load(annotated).test.samples] == [1, 0]


BAD_ANNOTATIONS = {
    "a class that is not there": b"0.png\towl\n",
    "no class": b"0.png\n",
    "undecodable bytes": b"\xff\xfe\x00\n",
    "a null byte": b"0\x00.png\tcat\n",
    "a file that is not there": b"9.png\tcat\n",
    "a folder": b".\tcat\n",
    "a file elsewhere": b"../../train/cat/0.png\tcat\n",
    "an absolute path": b"/etc/passwd\tcat\n",
    "no line": b"",
    "a file named twice": b"0.png\tcat\n1.png\tdog\n0.png\tdog\n",
    "a name beyond the file system": b"x" * 5000 + b"\tcat\n",
}


@pytest.mark.parametrize("name", BAD_ANNOTATIONS)
def test_wrong_annotations_are_refused(annotated, name):
    (annotated / "val" / "val_annotations.txt").write_bytes(BAD_ANNOTATIONS[name])
    one_line_refusal(load, annotated)


@pytest.mark.parametrize("kind", ["missing", "fifo", "folder", "link to nothing"])
def test_annotations_that_are_no_file_are_refused(annotated, kind):
    file = annotated / "val" / "val_annotations.txt"
    file.unlink()
    {
        "missing": lambda: None,
        "fifo": lambda: fifo(file),
        "folder": file.mkdir,
        "link to nothing": lambda: file.symlink_to("nowhere"),
    }[kind]()
    assert "val_annotations.txt" in one_line_refusal(load, annotated)
