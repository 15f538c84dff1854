"""Measured latency and throughput."""

import statistics
import time

import torch
from torch import nn

BATCHES = (1, 128)
SECONDS = 1.0  # of measuring, for each batch size


@torch.no_grad()
def latency_of(model: nn.Module, channels: int, size: int) -> dict[str, dict[str, float]]:
    """Median seconds of a forward pass in eval mode, and images per second, by batch size.

    Args:
        channels, size: of an image, size in pixels.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    found = {}
    for batch in BATCHES:
        images = torch.randn(batch, channels, size, size, device=device)
        times: list[float] = []
        while len(times) < 5 or sum(times) < SECONDS:
            began = time.perf_counter()
            model(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        seconds = statistics.median(times[1:])  # the first allocates
        found[str(batch)] = {"seconds": seconds, "images_per_second": batch / seconds}
    model.train(training)
    return found
