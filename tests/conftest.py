import pytest
import torch
from helpers import write_image_folder, write_npz_set
from hypothesis import settings

from data import Data, DataSpec
from data.in_memory import ArraySplit

# Deterministic examples without deadline and database.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # fastest for small networks


@pytest.fixture(scope="session", autouse=True)
def own_cpu_settings():
    """Keep runs in this process from setting its arithmetic: Hypothesis refuses to work with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.pipeline.prepare.set_up_cpu", lambda: None)
        yield


@pytest.fixture
def npz_set(tmp_path):
    return write_npz_set(tmp_path / "tiny_set")


@pytest.fixture
def image_folder(tmp_path):
    return write_image_folder(tmp_path / "pets")


@pytest.fixture
def make_data():
    """Return a function that makes Data from arrays; `train` and `test` are (images uint8, labels)."""

    def make(train, test=None, seed=0, *, classes=10, pad=0, flip=False, mean=0.5, std=0.25) -> Data:
        channels, size = train[0].shape[1:3]
        spec = DataSpec("made", classes, channels, size, (mean,) * channels, (std,) * channels, pad, flip)
        cpu = torch.device("cpu")
        return Data(spec, *(ArraySplit(*split, spec, cpu) for split in (train, test or train)), seed)

    return make


@pytest.fixture
def random_images():
    """Return a function that makes images (n, channels, size, size) uint8 and labels: i % classes, or i."""

    def make(n: int, channels: int = 1, size: int = 8, classes: int | None = None):
        generator = torch.Generator().manual_seed(n)
        images = torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)
        return images, torch.arange(n) % (classes or n)

    return make
