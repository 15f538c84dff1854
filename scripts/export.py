#!/usr/bin/env python3
"""Export a pruned network to ONNX or torch.export, and check it: python scripts/export.py PRUNED.pth OUT.onnx

python scripts/export.py pruned_model.pth pruned.onnx --data_path my_images --latency
python scripts/export.py pruned_model.pth pruned.pt2
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

from data import DataSource
from model import build_model, load_pruned, preprocessing_of, runs_file
from scripts.evidence.command_line import Parser
from utils.reporting.errors import one_line

EXTRA = "pip install -r requirements-export.txt"
N_IMAGES = 16  # that the exported network is checked on
CLOSE = 1e-4  # of the largest output
Run = Callable[[Tensor], Tensor]


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pruned", metavar="PRUNED.pth", help="pruned_model.pth of a run, or a checkpoint")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write: .onnx or .pt2")
    parser.add_argument("--data_path", help="images to check on (default: those of digits, else random ones)")
    parser.add_argument(
        "--latency", action="store_true", help="measure one-thread times of the dense and the pruned network"
    )
    args = parser.parse_args(argv)
    try:
        export(args.pruned, args.out, args.data_path, args.latency)
    except Exception as error:  # exporters raise errors of many libraries
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        print(f"export.py: error: {kind}{one_line(str(error))}", file=sys.stderr)
        return 2
    return 0


def export(pruned: str, out: Path, data_path: str | None, latency: bool) -> None:
    """Export, check and measure. A file of that name is replaced when the new one has been checked.

    Raises:
        ValueError: the format is unknown, a package lacks, or the exported network computes something else.
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"{out} is neither .onnx nor .pt2")
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent} for {out.name}")
    network, saved = load_pruned(pruned), torch.load(pruned, map_location="cpu", weights_only=True)
    network = network.to(memory_format=torch.contiguous_format)  # a run may have had channels_last
    images, source = _images(saved, data_path)
    unchecked = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        exported = write_exported(network, images, unchecked)
        with torch.no_grad():
            expected = network(images)
        apart = ((exported(images) - expected).abs().max() / expected.abs().max()).item()
        if not apart <= CLOSE:
            raise ValueError(f"{out} would not compute what {pruned} does: outputs differ by {apart:.1e}")
        os.replace(unchecked, out)
    finally:
        unchecked.unlink(missing_ok=True)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB ({Path(pruned).name}: {os.path.getsize(pruned) / 1e6:.2f} MB)")
    print(f"largest difference from PyTorch on {len(images)} {source}: {apart:.1e} of the largest output")
    if latency:
        _print_latency(network, exported, saved, images[:1], out)


def _images(saved: dict, data_path: str | None) -> tuple[Tensor, str]:
    """Return normalized images, of an odd number to check the dynamic batch, and what they are."""
    data, options = saved["data"], saved["options"]
    name = options["dataset"]
    if data_path is not None or name == "digits":
        wanted = preprocessing_of(options["arch"])
        mean_std = (tuple(data["mean"]), tuple(data["std"]))
        source = DataSource(name, data_path or options["data_path"], wanted.size if wanted else None, mean_std)
        if (source.spec.channels, source.spec.size) != (data["channels"], data["size"]):
            raise ValueError(
                f"--data_path: the images have {source.spec.channels} channels and {source.spec.size} px, the network "
                f"takes {data['channels']} and {data['size']}"
            )
        batches = source.load(0, 0, torch.device("cpu")).test_batches()
        images = next(iter(batches)).images[: N_IMAGES - 1]
        images = images if len(images) > 1 else images.repeat(2, 1, 1, 1)  # of one the exporter makes a constant
        return images, f"images of {source.spec.name}"
    generator = torch.Generator().manual_seed(0)
    shape = (N_IMAGES - 1, data["channels"], data["size"], data["size"])
    return torch.randn(shape, generator=generator), "random images (--data_path gives real ones)"


def write_exported(network: nn.Module, images: Tensor, out: Path) -> Run:
    """Write the file, with a batch of any size. Returns what runs it."""
    batch = {0: torch.export.Dim("batch", min=1)}
    if out.suffix == ".pt2":
        torch.export.save(torch.export.export(network, (images,), dynamic_shapes=(batch,)), out)
        return torch.export.load(out).module()
    runtime = _onnxruntime()
    torch.onnx.export(
        network, (images,), out, dynamo=True, dynamic_shapes=(batch,), external_data=False, verbose=False,
        input_names=["images"], output_names=["outputs"],
    )  # fmt: skip
    return _onnx_run(runtime, out)


def _onnxruntime():
    try:
        import onnx  # noqa: F401 - torch.onnx needs them
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: {EXTRA}") from None
    return onnxruntime


def _onnx_run(runtime, file: Path) -> Run:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _print_latency(network: nn.Module, exported: Run, saved: dict, image: Tensor, out: Path) -> None:
    options, data = saved["options"], saved["data"]
    if runs_file(options["arch"]):
        raise ValueError("--latency needs the dense network, which a network of a file of your own does not name")
    torch.set_num_threads(1)
    dense = build_model(
        options["arch"], data["classes"], data["channels"], data["size"], not options["not_use_bn"]
    ).eval()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        rows: dict[str, tuple[Run, Run]] = {"PyTorch": (dense, network)}
        of_dense = write_exported(dense, image.repeat(2, 1, 1, 1), Path(folder) / f"dense{out.suffix}")
        rows["onnxruntime" if out.suffix == ".onnx" else "torch.export"] = (of_dense, exported)
        for name, (before, after) in rows.items():
            times = [_seconds(run, image) * 1000 for run in (before, after)]
            print(f"{name}, one image, one thread: {times[0]:.2f} -> {times[1]:.2f} ms ({times[0] / times[1]:.2f}x)")


def _seconds(run: Run, image: Tensor) -> float:
    for _ in range(5):
        run(image)
    times = []
    for _ in range(30):
        began = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())
