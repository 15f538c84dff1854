import gzip
import hashlib
import io
import pickle
import tarfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import one_line_refusal, write_image_folder, write_jpegs, write_npz_set
from torchvision import datasets

from data import DATASETS, DataSource, registry
from data.registry import _fixed, _read_folder

CPU = torch.device("cpu")


def load(dataset, path, seed=0, workers=0):
    return DataSource(dataset, str(path)).load(seed, workers, CPU)


def pixels(batches, spec):
    """Undo the normalization: (N, channels, size, size), 0 to 255, and the labels."""
    images, labels = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return ((images * std + mean) * 255).round().to(torch.uint8), labels


# CIFAR


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def cifar_batch(rng, n, classes, key):
    return {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), key: rng.integers(0, classes, n).tolist()}


@pytest.fixture
def cifar(request, tmp_path, monkeypatch):
    """A tiny archive in the format of the real one, and torchvision patched to expect it."""
    name = request.param
    cls, key, classes = {
        "cifar10": (datasets.CIFAR10, "labels", 10),
        "cifar100": (datasets.CIFAR100, "fine_labels", 100),
    }[name]
    rng = np.random.default_rng(0)
    parts = {file: cifar_batch(rng, 4, classes, key) for file, _ in cls.train_list + cls.test_list}
    files = parts | {cls.meta["filename"]: {cls.meta["key"]: [f"class {i}" for i in range(classes)]}}
    content = {file: pickle.dumps(value) for file, value in files.items()}
    folder = tmp_path / name
    folder.mkdir()
    archive = folder / cls.filename
    with tarfile.open(archive, "w:gz") as tar:
        for file, raw in content.items():
            info = tarfile.TarInfo(f"{cls.base_folder}/{file}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    monkeypatch.setattr(cls, "tgz_md5", md5(archive.read_bytes()))
    for listed in ("train_list", "test_list"):
        monkeypatch.setattr(cls, listed, [[file, md5(content[file])] for file, _ in getattr(cls, listed)])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(content[cls.meta["filename"]])})
    train = [parts[file] for file, _ in cls.train_list]
    return name, tmp_path, train, parts[cls.test_list[0][0]], key


@pytest.mark.parametrize("cifar", ["cifar10", "cifar100"], indirect=True)
def test_cifar_is_read_from_its_own_archive(cifar):
    name, root, train, test, key = cifar
    data = load(name, root)
    assert (len(data.train), len(data.test)) == (4 * len(train), 4)
    images, labels = pixels(data.test_batches(), data.spec)
    assert labels.tolist() == test[key]
    assert np.array_equal(images.numpy().reshape(4, 3072), test["data"])  # red plane, green plane, blue plane
    assert sorted(torch.cat([part for _, part, _ in data.statistics_batches()]).tolist()) == sorted(
        label for part in train for label in part[key]
    )


@pytest.mark.parametrize("cifar", ["cifar10"], indirect=True)
def test_cifar_training_images_are_cropped_after_padding_four(cifar):
    name, root, *_ = cifar
    assert (DataSource(name, str(root)).spec.pad, DataSource(name, str(root)).spec.flip) == (4, True)
    images, *_ = next(load(name, root).train_batches(20, "prune"))
    assert images.shape == (20, 3, 32, 32)


def test_cifar10_is_normalized_with_imagenet_constants_and_cifar100_with_its_own(tmp_path):
    ten, hundred = (DataSource(name, str(tmp_path)).spec for name in ("cifar10", "cifar100"))
    assert (ten.mean, ten.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (hundred.mean, hundred.std) == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


# MNIST and Fashion-MNIST


def idx(array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


MNIST_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def write_mnist(folder, grays, zipped=False):
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = np.stack([np.full((28, 28), gray, np.uint8) for gray in grays])
        labels = np.arange(len(grays), dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{name}-{kind}-ubyte"
            file.with_suffix(".gz").write_bytes(gzip.compress(idx(array))) if zipped else file.write_bytes(idx(array))


@pytest.mark.parametrize("name", MNIST_FOLDERS)
def test_mnist_files_are_read_where_the_documentation_puts_them(name, tmp_path):
    write_mnist(tmp_path / name / MNIST_FOLDERS[name] / "raw", grays=(0, 100, 255))
    data = load(name, tmp_path)
    images, labels = pixels(data.test_batches(), data.spec)
    assert labels.tolist() == [0, 1, 2]
    assert images.shape == (3, 1, 32, 32)
    assert [image.unique().tolist() for image in images] == [[0], [100], [255]]


def test_mnist_is_normalized_by_hand_worked_constants(tmp_path):
    write_mnist(tmp_path / "mnist" / "MNIST" / "raw", grays=(102, 102))
    ((images, *_),) = load("mnist", tmp_path).test_batches()
    torch.testing.assert_close(images, torch.full((2, 1, 32, 32), (0.4 - 0.1307) / 0.3081))


def test_mnist_is_not_augmented(tmp_path):
    write_mnist(tmp_path / "mnist" / "MNIST" / "raw", grays=(10, 200))
    images, *_ = next(load("mnist", tmp_path).train_batches(2, "prune"))
    assert all(len(image.unique()) == 1 for image in images)


# downloads


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(*_, **__):
        raise URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        pytest.param("mnist", "MNIST/raw/"),
        pytest.param("fashion_mnist", "FashionMNIST/raw/"),
    ],
)
def test_a_failed_download_names_the_file_and_its_place_in_one_line(name, file, tmp_path, no_network):
    line = one_line_refusal(load, name, tmp_path)
    assert file in line
    assert str(tmp_path / name) in line
    assert "no network here" in line


def test_processes_download_a_set_one_after_the_other(tmp_path, monkeypatch):
    """Of several ranks each reads the set; torchvision takes a file that another process is writing for whole."""
    inside = []

    class Downloaded:
        data, targets, classes = np.zeros((3, 28, 28), np.uint8), [0, 1, 2], list("0123456789")

        def __init__(self, root, train, download):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.pop()

    read = registry._torchvision(Downloaded, "FILE")
    spec = DataSource("mnist", str(tmp_path)).spec
    with ThreadPoolExecutor(4) as pool:
        assert len([*pool.map(lambda _: read(tmp_path / "new" / "mnist", spec), range(4))]) == 4
    (tmp_path / "new" / "mnist" / ".lock").unlink()
    (tmp_path / "new" / "mnist" / ".lock").mkdir()  # no file can be opened there
    read(tmp_path / "new" / "mnist", spec)


@pytest.mark.parametrize("name", MNIST_FOLDERS)
def test_a_truncated_mnist_file_is_refused(name, tmp_path, no_network):
    raw = tmp_path / name / MNIST_FOLDERS[name] / "raw"
    write_mnist(raw, grays=(1, 2))
    for file in raw.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert str(tmp_path / name) in one_line_refusal(load, name, tmp_path)


# digits


def test_digits_are_a_fixed_stratified_split_whatever_the_seed(tmp_path):
    one, other = (load("digits", tmp_path, seed) for seed in (0, 123))
    assert (len(one.train), len(one.test)) == (1437, 360)
    for half, n in (("train", 1437), ("test", 360)):
        assert torch.equal(getattr(one, half).images, getattr(other, half).images)
        counts = Counter(getattr(one, half).labels.tolist())
        assert set(counts) == set(range(10))
        assert max(counts.values()) - min(counts.values()) <= 0.02 * n
    assert not list(tmp_path.iterdir())


def test_digits_are_gray_images_of_32_pixels_with_their_own_mean_and_std(tmp_path):
    data = load("digits", tmp_path)
    images = torch.cat([part for part, *_ in data.train_once()])
    assert images.shape[1:] == (1, 32, 32)
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01
    assert not data.spec.flip


def test_no_digit_is_in_both_halves_by_position(tmp_path):
    from sklearn.datasets import load_digits

    data = load("digits", tmp_path)
    labels = torch.cat([data.train.labels, data.test.labels])
    assert Counter(labels.tolist()) == Counter(load_digits().target.tolist())


# npz


@pytest.mark.parametrize(("channels", "pad", "flip"), [(3, 2, True), (1, 2, False)])
def test_an_npz_set_is_its_folder_with_train_and_test(channels, pad, flip, tmp_path):
    folder = write_npz_set(tmp_path / "my_set", train=10, test=7, size=16, channels=channels, classes=4)
    data = load("npz", folder)
    spec = data.spec
    assert (spec.name, spec.classes, spec.channels, spec.size) == ("my_set", 4, channels, 16)
    assert (spec.pad, spec.flip, spec.train_images) == (pad, flip, 10)
    images, labels = pixels(data.test_batches(), spec)
    with np.load(folder / "test.npz") as arrays:
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), arrays["images"])
        assert np.array_equal(labels.numpy(), arrays["labels"])


def test_a_color_npz_set_has_imagenet_constants(tmp_path):
    spec = DataSource("npz", str(write_npz_set(tmp_path / "color", channels=3))).spec
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_compressed_npz_set_is_read_too(npz_set):
    with np.load(npz_set / "train.npz") as arrays:
        plain = dict(arrays)
    np.savez_compressed(npz_set / "train.npz", **plain)
    assert torch.equal(load("npz", npz_set).train.labels, torch.from_numpy(plain["labels"]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16])
def test_labels_of_any_integer_type_are_accepted(npz_set, dtype):
    rewrite(npz_set / "train.npz", labels=lambda labels: labels.astype(dtype))
    assert load("npz", npz_set).train.labels.dtype == torch.int64


def test_an_npz_set_is_described_without_its_images(npz_set, monkeypatch):
    read = []
    real = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, key: read.append(key) or real(self, key))
    DataSource("npz", str(npz_set))
    assert set(read) == {"labels"}
    load("npz", npz_set)
    assert "images" in read


def rewrite(file, **changes):
    """Save `file` again with its arrays changed; a change to None drops the array."""
    with np.load(file) as arrays:
        content = dict(arrays)
    for key, change in changes.items():
        content[key] = change(content[key])
    np.savez(file, **{key: value for key, value in content.items() if value is not None})


BAD_ARRAYS = {
    "no images": {"images": lambda a: None},
    "no labels": {"labels": lambda a: None},
    "images of floats": {"images": lambda a: a / 255},
    "images without a channel dimension": {"images": lambda a: a[..., 0]},
    "no image at all": {"images": lambda a: a[:0], "labels": lambda a: a[:0]},
    "a label too few": {"labels": lambda a: a[:-1]},
    "labels in a matrix": {"labels": lambda a: np.eye(6, dtype=int)[a]},
    "labels of floats": {"labels": lambda a: a.astype(float)},
    "a negative label": {"labels": lambda a: a - 1},
    "labels of objects": {"labels": lambda a: a.astype(object)},
}


BAD_PARAMS = [pytest.param(change, id=name) for name, change in BAD_ARRAYS.items()]
BAD_PARAMS += [pytest.param({"labels": lambda a: a.astype(object)}, id="labels of objects")]


@pytest.mark.parametrize("change", BAD_PARAMS)
@pytest.mark.parametrize("half", ["train", "test"])
def test_a_wrong_array_is_refused_with_the_name_of_its_file(npz_set, half, change):
    rewrite(npz_set / f"{half}.npz", **change)
    assert str(npz_set / f"{half}.npz") in one_line_refusal(DataSource, "npz", str(npz_set))


@pytest.mark.parametrize(
    "images",
    [lambda a: a[:, 1:], lambda a: a[:, ::2, ::2], lambda a: np.repeat(a, 3, axis=3)],
    ids=["not square", "another size", "another number of channels"],
)
def test_images_that_are_not_square_and_alike_are_refused(npz_set, images):
    rewrite(npz_set / "test.npz", images=images)
    assert str(npz_set) in one_line_refusal(DataSource, "npz", str(npz_set))


def test_images_that_are_not_square_in_both_files_are_refused(npz_set):
    for half in ("train", "test"):
        rewrite(npz_set / f"{half}.npz", images=lambda a: a[:, 1:])
    assert "square" in one_line_refusal(DataSource, "npz", str(npz_set))


@pytest.mark.parametrize("half", ["train", "test"])
def test_a_missing_npz_file_is_named(npz_set, half):
    (npz_set / f"{half}.npz").unlink()
    assert str(npz_set / f"{half}.npz") in one_line_refusal(DataSource, "npz", str(npz_set))


def test_a_missing_npz_folder_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in one_line_refusal(DataSource, "npz", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz_is_refused(npz_set, content):
    (npz_set / "train.npz").write_bytes(content)
    assert str(npz_set / "train.npz") in one_line_refusal(DataSource, "npz", str(npz_set))


def test_a_file_in_place_of_the_npz_folder_is_refused(npz_set):
    assert str(npz_set / "train.npz") in one_line_refusal(DataSource, "npz", str(npz_set / "train.npz"))


def test_a_folder_in_place_of_an_npz_file_is_refused(npz_set):
    (npz_set / "train.npz").unlink()
    (npz_set / "train.npz").mkdir()
    assert str(npz_set / "train.npz") in one_line_refusal(DataSource, "npz", str(npz_set))


def test_damaged_pixels_are_refused_with_the_name_of_the_file(npz_set):
    raw = bytearray((npz_set / "train.npz").read_bytes())
    raw[2000] ^= 0xFF  # among the pixels: header and labels are whole, the check sum is not
    (npz_set / "train.npz").write_bytes(raw)
    assert str(npz_set / "train.npz") in one_line_refusal(load, "npz", npz_set)


# folders


def test_an_image_folder_is_read_at_224_pixels(image_folder):
    data = load("folder", image_folder)
    spec = data.spec
    assert (spec.name, spec.classes, spec.channels, spec.size, spec.train_images) == ("pets", 2, 3, 224, 6)
    images, labels, _ = next(data.train_batches(6, "prune"))
    assert images.shape == (6, 3, 224, 224)
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]
    ((images, labels, _),) = data.test_batches()
    assert images.shape == (4, 3, 224, 224)
    assert labels.tolist() == [0, 0, 1, 1]


def test_test_images_are_the_center_of_256_pixels(image_folder):
    from PIL import Image

    data = load("folder", image_folder)
    shown, _ = pixels(data.test_batches(), data.spec)
    with Image.open(image_folder / "val" / "cat" / "img0.JPEG") as image:
        resized = torch.from_numpy(np.array(image.resize((256, 256), Image.BILINEAR))).permute(2, 0, 1)
    difference = shown[0].int() - resized[:, 16:240, 16:240].int()
    assert difference.abs().max() <= 1


def test_a_folder_is_described_without_opening_an_image(image_folder):
    for file in image_folder.rglob("*.JPEG"):
        file.write_bytes(b"")
    assert DataSource("folder", str(image_folder)).spec.train_images == 6


def test_classes_that_differ_between_train_and_val_are_named(image_folder):
    (image_folder / "val" / "dog").rename(image_folder / "val" / "wolf")
    line = one_line_refusal(load, "folder", image_folder)
    assert "dog" in line
    assert "wolf" in line


@pytest.mark.parametrize("half", ["train", "val"])
def test_a_missing_half_of_a_folder_is_named(image_folder, half):
    (image_folder / half).rename(image_folder / "elsewhere")
    assert str(image_folder / half) in one_line_refusal(DataSource, "folder", str(image_folder))


def test_a_class_without_images_is_refused(image_folder):
    (image_folder / "train" / "empty").mkdir()
    assert "empty" in one_line_refusal(DataSource, "folder", str(image_folder))


def test_a_file_in_place_of_an_image_folder_is_refused(image_folder):
    (image_folder / "a.txt").touch()
    assert str(image_folder / "a.txt") in one_line_refusal(DataSource, "folder", str(image_folder / "a.txt"))


def test_imagenet_of_another_number_of_classes_is_refused(tmp_path):
    write_image_folder(tmp_path / "imagenet")
    line = one_line_refusal(load, "imagenet", tmp_path)
    assert "2 classes" in line
    assert "1000" in line


def test_imagenet_lies_in_its_own_folder_below_the_data_path(tmp_path, monkeypatch):
    use_classes(monkeypatch, "imagenet", 2)
    write_image_folder(tmp_path / "imagenet")
    assert len(load("imagenet", tmp_path).train) == 6


def use_classes(monkeypatch, name, classes):
    spec = replace(DataSource(name, "").spec, classes=classes)
    monkeypatch.setitem(DATASETS, name, _fixed(spec, _read_folder))


@pytest.fixture
def tiny_imagenet(tmp_path, monkeypatch):
    """The official layout, three classes instead of 200; the annotations are not in the order of the classes."""
    use_classes(monkeypatch, "tiny_imagenet", 3)
    root = tmp_path / "tiny_imagenet"
    for i, wnid in enumerate(("n01", "n02", "n03")):
        write_jpegs(root / "train" / wnid / "images", 2, 64, seed=i)
    write_jpegs(root / "val" / "images", 4, 64, seed=9)
    rows = [f"img{i}.JPEG\t{wnid}\t0\t0\t63\t63" for i, wnid in ((2, "n01"), (0, "n03"), (1, "n02"), (3, "n03"))]
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_tiny_imagenet_is_read_in_its_official_layout(tiny_imagenet):
    data = load("tiny_imagenet", tiny_imagenet)
    images, labels, _ = next(data.train_batches(6, "prune"))
    assert images.shape == (6, 3, 64, 64)
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert (data.spec.pad, data.spec.flip) == (8, True)
    (_, labels, _), *_ = data.test_batches()
    by_file = {path.rsplit("/", 1)[1]: label for path, label in data.test.samples}
    assert by_file == {"img0.JPEG": 2, "img1.JPEG": 1, "img2.JPEG": 0, "img3.JPEG": 2}
    assert sorted(labels.tolist()) == [0, 1, 2, 2]


def test_tiny_imagenet_test_images_are_not_cropped(tiny_imagenet):
    from PIL import Image

    data = load("tiny_imagenet", tiny_imagenet)
    shown, _ = pixels(data.test_batches(), data.spec)
    with Image.open(data.test.samples[0][0]) as image:
        whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert (shown[0].int() - whole.int()).abs().max() <= 1


@pytest.mark.parametrize("rows", ["img0.JPEG\tn99\t0\t0\t1\t1", "img0.JPEG"], ids=["unknown class", "no class"])
def test_wrong_annotations_of_tiny_imagenet_are_refused(tiny_imagenet, rows):
    (tiny_imagenet / "tiny_imagenet" / "val" / "val_annotations.txt").write_text(rows)
    assert "val_annotations.txt" in one_line_refusal(load, "tiny_imagenet", tiny_imagenet)


# the registry


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_describes_itself_without_a_download(name, tmp_path, npz_set, image_folder, no_network):
    spec = DataSource(name, str({"npz": npz_set, "folder": image_folder}.get(name, tmp_path / "nothing"))).spec
    assert len(spec.mean) == len(spec.std) == spec.channels
    assert spec.classes > 1
    assert spec.size > 0
    assert all(value > 0 for value in spec.std)
    assert not (tmp_path / "nothing").exists()


def test_an_unknown_set_is_refused_with_the_choices(tmp_path):
    line = one_line_refusal(DataSource, "cifar11", str(tmp_path))
    assert "cifar11" in line
    assert "cifar10," in line


@pytest.mark.parametrize("name", ["npz", "folder"])
def test_a_relative_folder_gives_the_set_its_name(name, npz_set, image_folder, monkeypatch):
    folder = {"npz": npz_set, "folder": image_folder}[name]
    monkeypatch.chdir(folder)
    assert DataSource(name, ".").spec.name == folder.name
