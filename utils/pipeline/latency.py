"""Measurement of latency and throughput."""

import statistics
import time

import torch
from torch import nn

BATCHES = (1, 128)
SECONDS = 1.0  # measured per batch size


@torch.no_grad()
def measure_latency(model: nn.Module, channels: int, size: int) -> dict[str, dict[str, float]]:
    """Measure a forward pass in eval mode by batch size: median seconds, and images per second.

    Args:
        channels, size: of the images; size in pixels.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    latency = {}
    for batch in BATCHES:
        images = torch.ones(batch, channels, size, size, device=device)  # no random numbers, on which the run goes on
        times: list[float] = []
        while len(times) < 5 or sum(times) < SECONDS:
            start = time.perf_counter()
            model(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times[1:])  # the first pass allocates memory
        latency[str(batch)] = {"seconds": seconds, "images_per_second": batch / seconds}
    model.train(training)
    return latency
