"""Networks by name."""

from collections.abc import Callable

import torch
import torchvision.models as tv
from torch import nn

from .foreign import build_foreign, is_timm, runs_file
from .lenet import MLP, LeNet
from .resnet import ResNet
from .vgg import VGG

LARGEST_SMALL_IMAGE = 64  # pixels; for larger images a name means torchvision's network

# For small images: name -> builder(num_classes, in_channels, image_size). A new network is one line here.
CIFAR_MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "resnet20": lambda classes, channels, size: ResNet(20, classes, channels),
    "resnet32": lambda classes, channels, size: ResNet(32, classes, channels),
    "resnet44": lambda classes, channels, size: ResNet(44, classes, channels),
    "resnet56": lambda classes, channels, size: ResNet(56, classes, channels),
    "resnet110": lambda classes, channels, size: ResNet(110, classes, channels),
    "vgg11": lambda classes, channels, size: VGG(11, classes, channels),
    "vgg13": lambda classes, channels, size: VGG(13, classes, channels),
    "vgg16": lambda classes, channels, size: VGG(16, classes, channels),
    "vgg19": lambda classes, channels, size: VGG(19, classes, channels),
    "lenet5": lambda classes, channels, size: LeNet((6, 16, 120, 84), classes, channels, size),
    "lenet5_mini": lambda classes, channels, size: LeNet((10, 10, 10, 10), classes, channels, size),
    "mlp_7_linear": lambda classes, channels, size: MLP(channels * size * size, classes),
}
TORCHVISION_MODELS = frozenset(tv.list_models(module=tv))  # torchvision's classification nets
ARCHS = (*CIFAR_MODELS, *sorted(TORCHVISION_MODELS - CIFAR_MODELS.keys()))


WITH_HEADS = ("googlenet", "inception_v3")


def is_auxiliary(key: str) -> bool:
    """Whether a tensor is of an auxiliary head, which runs while the network trains and which files may lack."""
    return key.startswith(("aux1.", "aux2.", "AuxLogits."))


def is_small(arch: str, image_size: int) -> bool:
    """Whether `arch` is the network for small images; where both families have the name, the size decides."""
    return arch in CIFAR_MODELS and (image_size <= LARGEST_SMALL_IMAGE or arch not in TORCHVISION_MODELS)


def build_model(arch: str, num_classes: int, in_channels: int, image_size: int, batch_norm: bool = True) -> nn.Module:
    """Build an initialized network for square images of `image_size` pixels.

    Args:
        batch_norm: False: the form without it, which the VGGs for small images have.

    Raises:
        ValueError: no such network, or it cannot take images of this size.
    """
    if is_timm(arch) or runs_file(arch):
        if not batch_norm:
            raise ValueError(f"{arch} has no variant without batch-norm; vgg* for images up to 64 px have one")
        return build_foreign(arch, num_classes, in_channels)
    if arch not in ARCHS:
        raise ValueError(f"no network '{arch}'; choose from {', '.join(CIFAR_MODELS)} or torchvision's, e.g. resnet50")
    if not batch_norm:
        if not is_small(arch, image_size) or not arch.startswith("vgg"):
            raise ValueError(f"{arch} has no variant without batch-norm; vgg* for images up to 64 px have one")
        return VGG(int(arch.removeprefix("vgg")), num_classes, in_channels, batch_norm=False)
    if is_small(arch, image_size):
        return CIFAR_MODELS[arch](num_classes, in_channels, image_size)
    # transform_input is how the trained weights of these two see their images, which are RGB.
    more = {"init_weights": True, "transform_input": in_channels == 3} if arch in WITH_HEADS else {}
    model = tv.get_model(arch, weights=None, num_classes=num_classes, **more)
    if in_channels != 3:
        _read_channels(model, in_channels)
    return model


def build_on_meta(arch: str, num_classes: int, in_channels: int, image_size: int, batch_norm: bool = True) -> nn.Module:
    """Build a network as ``build_model`` does, on the meta device.

    Networks of ``ARCHS`` take no time; RegNets and timm's are built with weights first.
    """
    arguments = (arch, num_classes, in_channels, image_size, batch_norm)
    if arch in ARCHS and not arch.startswith("regnet"):  # torchvision computes RegNets' widths by tensors
        with torch.device("meta"):
            return build_model(*arguments)
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # else tied parameters part
    try:
        return build_model(*arguments).to("meta")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def _read_channels(model: nn.Module, in_channels: int) -> None:
    """Replace the first conv, which reads RGB, by one that reads `in_channels`."""
    name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    (height, width), (down, right) = conv.kernel_size, conv.stride
    assert not isinstance(conv.padding, str)
    vertical, horizontal = conv.padding
    stem = nn.Conv2d(
        in_channels,
        conv.out_channels,
        (height, width),
        (down, right),
        (vertical, horizontal),
        bias=conv.bias is not None,
    )
    model.set_submodule(name, stem)
