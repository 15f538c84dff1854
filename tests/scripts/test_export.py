"""scripts/export.py: a file that computes what the pruned network does."""

import importlib.util

import pytest
import torch
from helpers import run_program, write_image_folder, write_npz_set

from scripts.export import EXTRA, main

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx, onnxscript and onnxruntime are not installed")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A pruned resnet20, and the folder of its images."""
    root = tmp_path_factory.mktemp("export")
    images = write_npz_set(root / "images", size=16)
    words = ["--dataset", "npz", "--data_path", images, "--arch", "resnet20", "--method", "L1", "--allow_untrained"]
    ran = run_program(
        root / "run", *words, "--ratios", "*:0.5", "--epochs", "1", "--batch_size", "16", "--workers", "0"
    )
    assert ran.code == 0, ran.err
    return ran.weights("pruned_model"), images


@pytest.mark.filterwarnings("ignore")  # of the exporters, about their own parts
@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_onnx)])
def test_the_exported_network_computes_what_the_pruned_one_does(pruned, suffix, tmp_path, capsys):
    file, images = pruned
    out = tmp_path / f"net{suffix}"
    assert main([str(file), str(out), "--data_path", str(images), "--latency"]) == 0
    text = capsys.readouterr().out
    assert "on 15 images of images" in text
    assert text.count(" ms (") == 2
    assert out.stat().st_size < 2e6
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.skipif(HAS_ONNX, reason="needs a machine without onnx")
def test_a_missing_package_is_named(pruned, tmp_path, capsys):
    assert main([str(pruned[0]), str(tmp_path / "net.onnx")]) == 2
    assert EXTRA in capsys.readouterr().err


def test_a_folder_that_is_not_there_and_images_that_do_not_fit_are_refused(pruned, tmp_path, capsys):
    assert main([str(pruned[0]), str(tmp_path / "none" / "net.pt2")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    for more in ({"channels": 2}, {"size": 20}):
        images = write_npz_set(tmp_path / "".join(more), **more)
        assert main([str(pruned[0]), str(tmp_path / "net.pt2"), "--data_path", str(images)]) == 2
        assert "--data_path: the images have" in capsys.readouterr().err
    assert not (tmp_path / "net.pt2").exists()


def test_another_format_is_refused(pruned, tmp_path, capsys):
    assert main([str(pruned[0]), str(tmp_path / "net.tflite")]) == 2
    assert "neither .onnx nor .pt2" in capsys.readouterr().err


def test_a_pruned_file_names_classes_mean_and_std(tmp_path):
    write_image_folder(tmp_path / "pets")
    words = ["--dataset", "folder", "--data_path", tmp_path / "pets", "--arch", "resnet18", "--method", "L1"]
    more = ["--speedup", "1.5", "--allow_untrained", "--epochs", "0", "--workers", "0"]
    ran = run_program(tmp_path / "run", *words, *more)
    assert ran.code == 0, ran.err
    data = torch.load(ran.weights("pruned_model"), weights_only=True)["data"]
    assert (data["class_names"], data["mean"], len(data["std"])) == (["cat", "dog"], (0.485, 0.456, 0.406), 3)


def test_a_failed_export_leaves_the_old_file(pruned, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.pt2"
    out.write_bytes(b"old")

    def fail(*_, **__):
        raise RuntimeError("the exporter\nhas failed")

    monkeypatch.setattr(torch.export, "export", fail)
    assert main([str(pruned[0]), str(out)]) == 2
    assert capsys.readouterr().err == "export.py: error: RuntimeError: the exporter has failed\n"
    assert out.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [out]
    folder = tmp_path / "x.onnx"
    folder.mkdir()
    assert main([str(pruned[0]), str(folder)]) == 2
    assert capsys.readouterr().err == f"export.py: error: {folder} is a folder\n"
