"""Random networks of operators that keep channels separate and others: layers reported free are cut exactly."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pruner.layers import traced_layers
from pruner.proof import prove
from pruner.ratios import plan_of
from pruner.structure import Structure

EXAMPLE = torch.zeros(1, 3, 4, 4)


def conv(c, out, **more):
    return nn.Conv2d(c, out, 3, padding=1, **more)


def squeeze_and_excitation(c):
    parts = nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), nn.Sigmoid()
    return nn.Sequential(*parts)


def last(module, x):
    return module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Scale(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, c, 1, 1))


# Of one tensor of c channels: its module -> what it computes; channels stay c unless named.
MODULES = {
    "conv": (lambda c: conv(c, 6), lambda m, x: m(x)),
    "conv without bias": (lambda c: conv(c, 8, bias=False), lambda m, x: m(x)),
    "depthwise": (lambda c: conv(c, c, groups=c), lambda m, x: m(x)),
    "grouped": (lambda c: conv(c, 2 * c, groups=2 - c % 2), lambda m, x: m(x)),
    "batch norm": (nn.BatchNorm2d, lambda m, x: m(x)),
    "group norm": (lambda c: nn.GroupNorm(1, c), lambda m, x: m(x)),
    "instance norm": (lambda c: nn.InstanceNorm2d(c, affine=True), lambda m, x: m(x)),
    "layer norm": (nn.LayerNorm, last),
    "linear along the channels": (lambda c: nn.Linear(c, 6), last),
    "squeeze and excitation": (squeeze_and_excitation, lambda m, x: x * m(x)),
    "prelu": (nn.PReLU, lambda m, x: m(x)),
    "parameter": (Scale, lambda m, x: x * m.scale),
    "functional": (lambda c: nn.Linear(c, 4), lambda m, x: torch.einsum("nchw,oc->nohw", x, m.weight)),
}
FUNCTIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "in place": lambda x: x.clone().mul_(2).add_(1).relu_(),
    "pool": lambda x: F.max_pool2d(x, 3, 1, 1),
    "halves": lambda x: torch.mul(*x[:, : x.shape[1] // 2 * 2].chunk(2, 1)) if x.shape[1] > 1 else x,
    "slice": lambda x: x[:, : max(1, x.shape[1] // 2)],
    "expand": lambda x: x.mean((2, 3), keepdim=True).expand(x.shape),
    "expand as": lambda x: x.mean((0, 2, 3)).view(-1, 1, 1).expand_as(x),
    "powers of two": lambda x: 2 ** x.clamp(-2, 2),
    "one over": lambda x: 1 / (1 + x.abs()),
    "moved": lambda x: x.to(x.mean()).contiguous(memory_format=torch.channels_last),
    "shuffle": lambda x: shuffle(x) if x.shape[1] % 2 == 0 else x,
    "mean over the channels": lambda x: x * x.mean(1, keepdim=True),
    "flattened and back": lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, (4, 4)),
    "softmax": lambda x: x.softmax(1),
    "padded": lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)),
    "rolled": lambda x: x.roll(1, 1),
    "joined in space": lambda x: torch.cat([x, x * 2], 3)[:, :, :, :4],
    "constant per channel": lambda x: x + torch.arange(x.shape[1], dtype=x.dtype, device=x.device).view(-1, 1, 1),
}
OF_TWO = {
    "added": lambda x, y: x + y,
    "gated": lambda x, y: x * torch.sigmoid(y),
    "clamped": lambda x, y: torch.clamp(x, min=y),
    "to the power": lambda x, y: (1 + x.abs()) ** y.clamp(-2, 2),
    "larger": torch.maximum,
    "concatenated": lambda x, y: torch.cat([x, y], 1),
}


class RandomNetwork(nn.Module):
    """A random graph of the operators above, and a linear layer on flattened or pooled maps."""

    def __init__(self, seed):
        super().__init__()
        dice, widths = random.Random(seed), [3]
        self.parts, self.program = nn.ModuleList(), []
        with torch.no_grad():
            for _ in range(dice.randint(4, 12)):
                source = dice.randrange(len(widths))
                kind = dice.choice((MODULES, MODULES, FUNCTIONS, OF_TWO))
                name, other = dice.choice(list(kind)), None
                if kind is MODULES:
                    self.parts.append(MODULES[name][0](widths[source]))
                    other = len(self.parts) - 1
                elif kind is OF_TWO:
                    same = [i for i, width in enumerate(widths) if width == widths[source]]
                    other = dice.choice(same if name != "concatenated" else range(len(widths)))
                self.program.append((name, source, other))
                widths.append(self.maps(EXAMPLE)[-1].shape[1])
        self.flat = dice.random() < 0.3
        self.fc = nn.Linear(widths[-1] * (16 if self.flat else 1), 5)

    def maps(self, x):
        made = [x]
        for name, source, other in self.program:
            x = made[source]
            if name in MODULES:
                made.append(MODULES[name][1](self.parts[other], x))
            else:
                made.append(FUNCTIONS[name](x) if name in FUNCTIONS else OF_TWO[name](x, made[other]))
        return made

    def forward(self, x):
        x = self.maps(x)[-1]
        return self.fc(x.flatten(1) if self.flat else x.mean((2, 3)))


@pytest.mark.filterwarnings("ignore:.*groups.*")
def test_layers_reported_free_in_a_random_network_are_proved():
    n_free = 0
    for seed in range(150):
        torch.manual_seed(seed)
        network = RandomNetwork(seed).eval()
        structure = Structure(network, EXAMPLE)
        numbers = {name: layer.units // 2 for name, layer in structure.layers.items() if layer.units > 1}
        n_free += len(numbers)
        try:
            prove(network, plan_of(traced_layers(structure), numbers, "filter"), structure, EXAMPLE)
        except ValueError as error:
            pytest.fail(f"seed {seed}, {network.program}: {error}")
    assert n_free > 60
