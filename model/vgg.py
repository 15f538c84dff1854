"""VGG for small images: 3×3 convs with batch-norm (or without), max-pools, global average, one linear layer."""

from torch import Tensor, nn

from .init import initialize

# Filters per conv; "M" is a 2×2 max-pool (Simonyan and Zisserman 2015, table 1).
WIDTHS: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    13: (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512),
    19: (64, 64, "M", 128, 128, "M") + 4 * (256,) + ("M",) + 4 * (512,) + ("M",) + 4 * (512,),
}


class VGG(nn.Module):
    def __init__(self, depth: int, num_classes: int, in_channels: int, batch_norm: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        for width in WIDTHS[depth]:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
            else:
                conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [conv, nn.ReLU()]
                in_channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_channels, num_classes)
        initialize(self)  # by fan-in, the classifier too, zero biases: the original's start

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))
