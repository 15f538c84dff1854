"""Damaged and hostile .npz files are read or refused in one line, without waiting and without much memory."""

import io
import os
import random
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from helpers import one_line_refusal, write_npz_set

from data import DataSource

SOUND = {"images": np.zeros((40, 16, 16, 1), np.uint8), "labels": np.arange(40) % 4}
N_MUTATIONS = 400


def load(folder):
    return DataSource("npz", str(folder)).load(0, 0, torch.device("cpu"))


def npy(array=None, descr="<i8", fortran=False, shape=(40,), body=bytes(320), version=(1, 0), header=None) -> bytes:
    """An .npy file whose header need not fit its body."""
    if array is not None:
        content = io.BytesIO()
        np.lib.format.write_array(content, array)
        return content.getvalue()
    text = header or f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    raw = text.encode() + b" " * (-(11 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", len(raw)) + raw + body


def write(file, compression=zipfile.ZIP_STORED, **members: bytes):
    members = {name: npy(array) for name, array in SOUND.items()} | members
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(f"{name}.npy", content)


HOSTILE = {
    "labels that claim 10^12": {"labels": npy(shape=(10**12,))},
    "images that claim 10^12": {"images": npy(descr="|u1", shape=(10**12, 16, 16, 1))},
    "a shape beyond 64 bits": {"images": npy(descr="|u1", shape=(10**30, 16, 16, 1))},
    "negative lengths": {"images": npy(descr="|u1", shape=(-40, -16, 16, 1), body=bytes(10240))},
    "a negative number of labels": {"labels": npy(shape=(-40,))},
    "no dimension": {"labels": npy(shape=(), body=bytes(8))},
    "a shape of words": {"labels": npy(shape=("a",))},
    "a shape that is no tuple": {"labels": npy(shape=40)},
    "labels of objects": {"labels": npy(descr="|O")},
    "a record type": {"labels": npy(descr=[("a", "<i4"), ("b", "<i4")])},
    "an unknown type": {"labels": npy(descr="<x9")},
    "text": {"labels": npy(descr="<U2")},
    "strings without length": {"labels": npy(descr="<U0")},
    "booleans": {"labels": npy(descr="|b1", body=bytes(40))},
    "complex numbers": {"labels": npy(descr="<c8")},
    "dates": {"labels": npy(descr="<M8[s]")},
    "a body cut short": {"labels": npy(body=bytes(100))},
    "an empty member": {"labels": b""},
    "no magic": {"labels": bytes(400)},
    "a version of the future": {"labels": npy(version=(9, 0))},
    "a header that is no dictionary": {"labels": npy(header="[1, 2]")},
    "a header that calls": {"labels": npy(header="__import__('os').system('true')")},
    "a deep header": {"labels": npy(header="(" * 5000 + ")" * 5000)},
    "a long header": {"labels": npy(header="{'descr': '" + "x" * 60_000 + "'}", version=(2, 0))},
    "headers without keys": {"labels": npy(header="{}")},
    "other names": {"images": None, "x_train": npy(SOUND["images"])},
}


@pytest.fixture
def folder(tmp_path):
    return write_npz_set(tmp_path / "set", train=40, test=40, size=16, classes=4)


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_array_is_refused_with_the_name_of_its_file(folder, half, name):
    write(folder / f"{half}.npz", **HOSTILE[name])
    assert f"{half}.npz" in one_line_refusal(load, folder)


def test_wrong_array_names_are_refused_with_the_names_in_the_file(folder):
    write(folder / "train.npz", images=None, x_train=npy(SOUND["images"]))
    line = one_line_refusal(load, folder)
    assert "array 'images'" in line
    assert "x_train" in line


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_numpy_does_not_write_is_refused(folder, compression):
    write(folder / "train.npz", compression)
    assert "np.savez_compressed" in one_line_refusal(load, folder)


@pytest.mark.parametrize(
    ("field", "message"),
    [((6, struct.pack("<H", 1)), "encrypted"), ((8, struct.pack("<H", 99)), "compression")],
    ids=["encrypted", "an unknown compression"],
)
def test_a_member_that_cannot_be_unpacked_is_refused(folder, field, message):
    """The fields in both headers of each member: local (PK 3 4) and in the directory (PK 1 2), two bytes further."""
    raw = bytearray((folder / "train.npz").read_bytes())
    at, value = field
    for magic, offset in ((b"PK\x03\x04", at), (b"PK\x01\x02", at + 2)):
        begin = raw.find(magic)
        while begin >= 0:
            raw[begin + offset : begin + offset + 2] = value
            begin = raw.find(magic, begin + 4)
    (folder / "train.npz").write_bytes(raw)
    line = one_line_refusal(load, folder)
    assert "train.npz" in line
    assert message in line


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link", "link to itself", "device"])
@pytest.mark.parametrize("half", ["train", "test"])
def test_a_file_that_is_not_regular_is_refused_at_once(folder, half, kind):
    file = folder / f"{half}.npz"
    file.unlink()
    {
        "fifo": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "dangling link": lambda: file.symlink_to("nowhere"),
        "link to itself": lambda: file.symlink_to(file),
        "device": lambda: file.symlink_to("/dev/zero"),
    }[kind]()
    began = time.perf_counter()
    assert str(file) in one_line_refusal(load, folder)
    assert time.perf_counter() - began < 1


LABELS = SOUND["labels"]
IMAGES = np.arange(40 * 256).reshape(40, 16, 16, 1).astype(np.uint8)
READ = {
    "Fortran order": {"images": npy(np.asfortranarray(IMAGES))},
    "header version 2": {"labels": npy(version=(2, 0), body=LABELS.astype("<i8").tobytes())},
    "big-endian labels": {"labels": npy(LABELS.astype(">i4"))},
    "big-endian unsigned labels": {"labels": npy(LABELS.astype(">u8"))},
    "bytes as labels": {"labels": npy(LABELS.astype(np.uint8))},
    "big-endian bytes": {"images": npy(descr=">u1", shape=(40, 16, 16, 1), body=IMAGES.tobytes())},
    "an array of objects beside them": {"extra": npy(descr="|O", shape=(1,), body=b"x")},
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unusual_but_valid_arrays_are_read(folder, name, compression):
    write(folder / "train.npz", compression, **({"images": npy(IMAGES)} | READ[name]))
    data = load(folder)
    assert torch.equal(data.train.images, torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert data.train.labels.tolist() == LABELS.tolist()


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """One to four changes: a byte, a run of bytes removed or doubled, a cut, or one of the fields that hold lengths."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.choice([rng.randrange(len(raw)), max(len(raw) - rng.randrange(1, 300), 0), rng.randrange(300)])
        at = min(at, len(raw) - 1)
        change = rng.randrange(6)
        if change < 2:
            raw[at] = rng.randrange(256)
        elif change == 2:
            del raw[at : at + rng.randrange(1, 40)]
        elif change == 3:
            raw[at:at] = raw[at : at + rng.randrange(1, 40)]
        elif change == 4:
            raw[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"9999"])
        elif rng.random() < 0.3:
            del raw[at:]
        raw = raw or bytearray(b"P")
    return bytes(raw)


@pytest.mark.parametrize("compressed", [False, True])
def test_mutations_of_a_valid_file_are_read_or_refused_in_one_line(folder, compressed):
    write(folder / "train.npz", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    sound = (folder / "train.npz").read_bytes()
    rng = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    tracemalloc.start()
    began = time.perf_counter()
    try:
        for _ in range(N_MUTATIONS):
            (folder / "train.npz").write_bytes(mutated(sound, rng))
            try:
                data = load(folder)
            except ValueError as error:
                outcomes["refused"] += len(str(error).splitlines()) == 1
            else:
                assert data.train.images.shape[1:] == (1, 16, 16)
                outcomes["read"] += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(outcomes.values()) == N_MUTATIONS
    assert min(outcomes.values()) > 0, outcomes
    assert peak < 100e6
    assert time.perf_counter() - began < 60
