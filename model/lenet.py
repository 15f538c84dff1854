"""Tiny nets for small images: LeNet-5, its miniature, and a linear seven-layer perceptron."""

from itertools import pairwise

from torch import Tensor, nn


class LeNet(nn.Module):
    """Three 5×5 convs, the first two followed by a 2×2 max-pool, then two linear layers; 32×32 images.

    After the third conv a map is 1×1, so that each of its filters is one input of the first linear layer.
    """

    def __init__(self, widths: tuple[int, int, int, int], num_classes: int, in_channels: int, image_size: int):
        super().__init__()
        if image_size != 32:
            raise ValueError(f"LeNet takes 32×32 images, not {image_size}×{image_size}")
        first, second, third, hidden = widths
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(second, third, 5), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(third, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class MLP(nn.Sequential):
    """Six hidden layers of 100 and one output layer, with no activation between them: a deep linear net."""

    def __init__(self, num_inputs: int, num_classes: int):
        widths = (num_inputs, *6 * (100,), num_classes)
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        super().__init__(nn.Flatten(), *layers)
