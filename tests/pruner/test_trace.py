"""Free filters of hand-made networks that are hard to trace, and of torchvision's networks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.cost import cost_of
from pruner.cut import cut
from pruner.layers import traced_layers
from pruner.proof import ProofError, masked_outputs, prove
from pruner.ratios import plan_of
from pruner.structure import COUPLED, FIXED, FREE, Structure

IMAGE = torch.zeros(1, 3, 16, 16)


def conv(n_in, n_out, **more):
    return nn.Conv2d(n_in, n_out, 3, padding=1, **more)


class Network(nn.Module):
    """A stem `a`, the form under test, and a classifier on pooled maps."""

    width = 8

    def __init__(self, **modules):
        super().__init__()
        self.a, self.b, self.fc = conv(3, 8), conv(8, 8), nn.Linear(self.width, 5)
        for name, module in modules.items():
            setattr(self, name, module)

    def form(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.form(F.relu(self.a(x))).mean((2, 3)))


class Plain(Network):
    """a and b are free; the classifier is the output."""

    def form(self, x):
        return F.relu(self.b(x))


class Addition(Network):
    """A residual sum couples its summands."""

    def form(self, x):
        return x + self.b(x)


class Bottleneck(Network):
    """Inside a residual block, filters are free."""

    def __init__(self):
        super().__init__(inner=conv(8, 6), norm=nn.BatchNorm2d(6), back=conv(6, 8))

    def form(self, x):
        return x + self.back(F.gelu(self.norm(self.inner(x))))


class Depthwise(Network):
    """A depthwise conv follows its input."""

    def __init__(self):
        super().__init__(depthwise=conv(8, 8, groups=8), norm=nn.BatchNorm2d(8))

    def form(self, x):
        return F.relu(self.b(F.hardswish(self.norm(self.depthwise(x)))))


class Grouped(Network):
    """A grouped conv takes whole groups: four units of two filters."""

    def __init__(self):
        super().__init__(grouped=conv(8, 12, groups=4), last=conv(12, 8))

    def form(self, x):
        return F.relu(self.last(self.grouped(x)))


class Squeeze(Network):
    """A squeeze-and-excitation gate follows the layer that it multiplies."""

    def __init__(self):
        super().__init__(squeeze=nn.Conv2d(8, 4, 1), gate=nn.Conv2d(4, 8, 1))

    def form(self, x):
        gate = torch.sigmoid(self.gate(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return F.relu(self.b(x * gate))


class Gated(Network):
    """Two factors (SwiGLU) are pruned together only."""

    def __init__(self):
        super().__init__(other=conv(8, 8))

    def form(self, x):
        return F.silu(self.b(x)) * self.other(x)


class Concatenation(Network):
    """Layers that read a concatenation lose the columns of each branch."""

    width = 16

    def __init__(self):
        super().__init__(other=conv(8, 8))

    def form(self, x):
        return torch.cat([self.b(x), F.max_pool2d(self.other(x), 3, 1, 1)], 1)


class Split(Network):
    """A split may have hard-coded sizes: its channels are fixed."""

    width = 4

    def form(self, x):
        first, second = self.b(x).split(4, 1)
        return first + second


class OwnParameter(Network):
    """A per-channel parameter of no known layer would keep its size."""

    def __init__(self):
        super().__init__(scale=nn.Parameter(torch.full((8, 1, 1), 1e-6)))

    def form(self, x):
        return self.scale * self.b(x)


class NormOverChannels(Network):
    """Statistics over the channels would change."""

    def __init__(self):
        super().__init__(norm=nn.LayerNorm(8))

    def form(self, x):
        return self.norm(self.b(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm(NormOverChannels):
    """Likewise for groups of channels."""

    def __init__(self):
        Network.__init__(self, norm=nn.GroupNorm(2, 8))

    def form(self, x):
        return self.norm(self.b(x))


class Shuffle(Network):
    """A channel shuffle passes through five dimensions."""

    def form(self, x):
        x = self.b(x)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class SharedTwice(Network):
    """A module called twice in a row: its filters are also its own columns."""

    def form(self, x):
        return F.relu(self.b(F.relu(self.b(x))))


class SharedReader(Network):
    """A module that reads two layers couples their filters."""

    def __init__(self):
        super().__init__(one=conv(8, 8), two=conv(8, 8), reader=conv(8, 8))

    def form(self, x):
        return self.reader(self.one(x)) + self.reader(self.two(x))


class Bounded(Network):
    """Bounds and exponents may be tensors of channels, too."""

    def __init__(self):
        super().__init__(low=conv(8, 8), exponent=conv(8, 8))

    def form(self, x):
        x = torch.clamp(x, min=self.low(x))
        return self.b(x).abs().add(1) ** self.exponent(x)


class OfOneTensor(Network):
    """A number may come first, an average be spread over an image, and a tensor take another's type."""

    def form(self, x):
        x = 2 ** self.b(x).to(x) / 8
        return x.mean((0, 2, 3)).view(-1, 1, 1).expand_as(x) + 1 / (1 + x.abs())


class Unused(Network):
    """A branch that is not called."""

    def __init__(self):
        super().__init__(unused=conv(8, 8))

    def form(self, x):
        return self.b(x)


class FunctionalLinear(Network):
    """A weight without a module, as attention's qkv."""

    def __init__(self):
        super().__init__(qkv=nn.Parameter(torch.randn(6, 8)), back=nn.Linear(6, 8))

    def form(self, x):
        x = self.b(x).flatten(2).transpose(1, 2)
        return self.back(F.linear(x, self.qkv)).transpose(1, 2).unflatten(2, (16, 16))


class Standardized(nn.Conv2d):
    """A conv with a gain, whose weight is computed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=1)


class ComputedWeight(Network):
    """Neither the conv with a computed weight nor what it reads can be cut."""

    def __init__(self):
        super().__init__(standardized=Standardized(8, 8, 3))

    def form(self, x):
        return F.relu(self.b(self.standardized(x)))


class Flattened(Network):
    """A flattened map has several columns per filter."""

    def __init__(self):
        super().__init__(wide=nn.Linear(8 * 256, 6), narrow=nn.Linear(6, 8))

    def form(self, x):
        return self.narrow(F.relu(self.wide(torch.flatten(self.b(x), 1))))[:, :, None, None]


class Attention(Network):
    """Queries, keys and values are fixed; the MLP beside them is free."""

    def __init__(self):
        super().__init__(
            norm=nn.LayerNorm(8), attention=nn.MultiheadAttention(8, 2, batch_first=True), up=nn.Linear(8, 12),
            down=nn.Linear(12, 8),
        )  # fmt: skip

    def form(self, x):
        x = x.flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return (x + self.down(F.gelu(self.up(x)))).transpose(1, 2).unflatten(2, (16, 16))


class InPlace(Network):
    """In-place operators keep channels separate."""

    def form(self, x):
        return F.relu_(self.b(x).mul_(2).add_(1))


class TwoOutputs(Network):
    """Outputs of the network are fixed."""

    def forward(self, x):
        x = self.a(x)
        y = self.b(x)
        return {"features": y, "classes": self.fc(y.mean((2, 3)))}


FORMS = {
    Plain: {"a": FREE, "b": FREE, "fc": FIXED},
    Addition: {"a": COUPLED, "b": COUPLED},
    Bottleneck: {"a": COUPLED, "inner": FREE, "back": COUPLED},
    Depthwise: {"a": FREE, "depthwise": FIXED, "b": FREE},
    Grouped: {"a": FREE, "grouped": FIXED, "last": FREE},
    Squeeze: {"a": FREE, "squeeze": FREE, "gate": FIXED, "b": FREE},
    Gated: {"a": FREE, "b": COUPLED, "other": COUPLED},
    Concatenation: {"a": FREE, "b": FREE, "other": FREE},
    Split: {"a": FREE, "b": FIXED},
    OwnParameter: {"a": FREE, "b": FIXED},
    NormOverChannels: {"a": FREE, "b": FIXED},
    GroupNorm: {"a": FREE, "b": FIXED},
    Shuffle: {"a": FREE, "b": FIXED},
    SharedTwice: {"a": COUPLED, "b": COUPLED},
    SharedReader: {"a": FREE, "one": COUPLED, "two": COUPLED, "reader": FREE},
    Bounded: {"a": FIXED, "low": FIXED, "b": FIXED, "exponent": FIXED},
    OfOneTensor: {"a": FREE, "b": FREE},
    Unused: {"a": FREE, "b": FREE, "unused": FIXED},
    FunctionalLinear: {"a": FREE, "b": FIXED, "back": FREE},
    ComputedWeight: {"a": FIXED, "standardized": FIXED, "b": FREE},
    Flattened: {"a": FREE, "b": FREE, "wide": FREE},
    Attention: {"a": FIXED, "up": FREE, "down": FIXED},
    InPlace: {"a": FREE, "b": FREE},
    TwoOutputs: {"a": FREE, "b": FIXED},
}


def half_of_all(structure: Structure):
    numbers = {name: layer.units // 2 for name, layer in structure.layers.items() if layer.units}
    return plan_of(traced_layers(structure), numbers, "filter")


@pytest.mark.parametrize(("form", "expected"), FORMS.items(), ids=[form.__name__ for form in FORMS])
def test_every_layer_is_free_and_exact_or_fixed_with_a_reason(form, expected):
    torch.manual_seed(0)
    network = form()
    structure = Structure(network, IMAGE)
    found = {name: layer.status for name, layer in structure.layers.items()}
    assert found | expected == found
    for name, layer in structure.layers.items():
        assert bool(layer.reason) == (layer.status != FREE), name
    for name, layer in structure.layers.items():
        assert layer.units == (4 if (form, name) == (Grouped, "a") else layer.shape[0] if layer.status == FREE else 0)
    prove(network, half_of_all(structure), structure, IMAGE)


@pytest.mark.parametrize("form", [Plain, Squeeze, Grouped, Depthwise], ids=lambda form: form.__name__)
def test_tracing_does_not_change_the_network(form):
    network = form().train()
    network.b.eval()
    before = copy.deepcopy(network.state_dict())
    Structure(network, IMAGE)
    assert (network.training, network.a.training, network.b.training) == (True, True, False)
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())
    assert all(type(parameter) is nn.Parameter and not parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize("tensor", ["b.weight", "depthwise.weight", "norm.running_var"])
def test_a_structure_that_misses_something_is_not_proved(tensor):
    """The proof does not rely on the tracer."""
    network = Depthwise()
    structure = Structure(network, IMAGE)
    for key in [key for key in structure._trace.uses if key[0] == tensor]:
        structure._trace.uses.pop(key)
    with pytest.raises(ProofError, match="pruning a cannot be proved right"):
        prove(network, plan_of(traced_layers(structure), {"a": 4}, "filter"), structure, IMAGE)


def test_the_cut_keeps_parameters_and_momentum():
    torch.manual_seed(0)
    network = Depthwise()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(2, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    parameters = list(network.parameters())
    momentum = optimizer.state[network.depthwise.weight]["momentum_buffer"].clone()
    structure = Structure(network, IMAGE)
    kept = {"a": torch.arange(8) % 2 == 0}
    images = torch.randn(4, 3, 16, 16)
    network.eval()
    expected = masked_outputs(network, kept, "filter", structure, images)
    cut(network, kept, "filter", structure, optimizer)
    torch.testing.assert_close(network(images), expected)
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    assert optimizer.state[network.depthwise.weight]["momentum_buffer"].equal(momentum[::2])
    assert (network.depthwise.groups, network.depthwise.in_channels, network.norm.num_features) == (4, 4, 4)
    assert network.a.weight.grad.shape == network.a.weight.shape
    network.train()(images).sum().backward()
    optimizer.step()


def test_a_fixed_layer_is_not_cut():
    structure = Structure(Split(), IMAGE)
    with pytest.raises(ValueError, match="filters of b cannot be removed: fixed, split"):
        cut(Split(), {"b": torch.arange(8) < 4}, "filter", structure)


def test_flops_by_arithmetic_are_those_of_the_cut_network():
    for form in list(FORMS)[:-1]:
        network = form()
        structure = Structure(network, IMAGE)
        plan = half_of_all(structure)
        smaller = copy.deepcopy(network)
        cut(
            smaller,
            {p.layer.name: torch.arange(p.groups) >= p.pruned for p in plan.layers if p.pruned},
            "filter",
            structure,
        )
        saved = cost_of(network, 3, 16).flops - cost_of(smaller, 3, 16).flops
        assert structure.flops({}) - structure.flops(plan.pruned) == saved, form.__name__


class Transposed(Network):
    """An encoder and a decoder with a grouped transposed conv."""

    def __init__(self):
        super().__init__(down=conv(8, 8, stride=2), up=nn.ConvTranspose2d(8, 8, 2, 2, groups=2))

    def form(self, x):
        return self.up(self.down(self.b(x)))


class TokenMixing(Network):
    """A linear layer over positions instead of channels."""

    def __init__(self):
        super().__init__(mix=nn.Linear(256, 256))

    def form(self, x):
        return self.mix(self.b(x).flatten(2)).unflatten(2, (16, 16))


class TwoUses(Network):
    """A layer that is called along the channels, then over positions."""

    def __init__(self):
        super().__init__(mix=nn.Linear(8, 8))

    def form(self, x):
        y = self.mix(F.relu(self.b(x)).permute(0, 2, 3, 1))
        return self.mix(F.relu(y).flatten(1, 2)[:, :8].transpose(1, 2)).unsqueeze(3)


FIXED_CALLS = {Transposed: {"down": "transposed"}, TokenMixing: {"mix": "another dimension"}, TwoUses: {"mix": "slice"}}


@pytest.mark.parametrize("form", [*FORMS, *FIXED_CALLS], ids=lambda form: form.__name__)
def test_flops_of_the_uncut_network_include_calls_that_must_stay(form):
    network = form()
    assert Structure(network, IMAGE).flops({}) == cost_of(network, 3, 16).flops


@pytest.mark.parametrize("form", FIXED_CALLS, ids=lambda form: form.__name__)
def test_a_layer_that_was_called_is_not_said_to_be_uncalled(form):
    structure = Structure(form(), IMAGE)
    for name, reason in FIXED_CALLS[form].items():
        assert structure.layers[name].status == FIXED
        assert reason in structure.layers[name].reason
    prove(form(), half_of_all(structure), structure, IMAGE)
