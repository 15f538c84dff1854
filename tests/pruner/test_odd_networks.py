"""Networks that return, keep, draw or want unusual things: cut rightly, or refused with the reason."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruner import L1, GReg1

IMAGE = torch.zeros(1, 3, 8, 8)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.c2(F.relu(self.c1(x)))).mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


class CachedGrid(Base):
    """Makes a tensor at its first call, as networks do with positions."""

    def __init__(self):
        super().__init__()
        self.grid, self.scale = None, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        if self.grid is None:
            self.grid = torch.linspace(0, 1, 8)
        return super().forward(x + self.grid * self.scale)


class CachedGridByValue(CachedGrid):
    """The same, in a network that cannot run on the meta device."""

    def forward(self, x):
        return super().forward(-x if x.abs().max() > 1e9 else x)


class Counting(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.losses = []

    def forward(self, x):
        self.seen += 1
        y = super().forward(x)
        self.losses.append(y.sum())
        return y


class IllegalActions(Base):
    """Fills some outputs with a constant."""

    value, illegal = -1e9, (True, False, False, False)

    def forward(self, x):
        return super().forward(x).masked_fill(torch.tensor(self.illegal), self.value)


class InfiniteFill(IllegalActions):
    value = -torch.inf


class Normal(nn.Module):
    """Returns an object of a class that is no container."""

    def forward(self, mean):
        return torch.distributions.Normal(mean, 1.0)


class Distribution(Base):
    def __init__(self):
        super().__init__()
        self.normal = Normal()

    def forward(self, x):
        return self.normal(super().forward(x))


@dataclasses.dataclass
class Output:
    logits: Tensor


class DataclassOutput(Base):
    def forward(self, x):
        return Output(super().forward(x))


class ArrayOutput(Base):
    def forward(self, x):
        return {"logits": super().forward(x).detach().cpu().numpy()}


class Prediction(Base):
    def forward(self, x):
        return super().forward(x).argmax(1)


class BytesToFloat(Base):
    def forward(self, x):
        return super().forward(x.float() / 255)


class WithLabels(Base):
    """Computes its loss while it trains."""

    def forward(self, x, labels=None):
        if self.training and labels is None:
            raise RuntimeError("labels are needed")
        return super().forward(x)


class Noisy(Base):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


class Logarithm(Base):
    def forward(self, x):
        return super().forward(x.log())


class WithIndices(Base):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)

    def forward(self, inputs):
        return self.fc(self.features(inputs["x"]) + self.embedding(inputs["i"]))


class TwoArguments(Base):
    def forward(self, x, y):
        return super().forward(x + y)


class Recurrent(Base):
    """Begins from zeros in float32."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        sequence = F.relu(self.c2(F.relu(self.c1(x)))).flatten(2).transpose(1, 2)
        return self.fc(self.gru(sequence, torch.zeros(1, len(x), 8))[0][:, -1])


class Spectrum(Base):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.ones(8, 5, dtype=torch.complex64))

    def forward(self, x):
        return super().forward(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter))


CUT = {
    CachedGrid: IMAGE, CachedGridByValue: IMAGE, Counting: IMAGE, IllegalActions: IMAGE, InfiniteFill: IMAGE,
    Distribution: IMAGE, DataclassOutput: IMAGE, ArrayOutput: IMAGE, Prediction: IMAGE, BytesToFloat: IMAGE,
    WithLabels: IMAGE, Noisy: IMAGE, Logarithm: torch.rand(2, 3, 8, 8) + 0.1, Recurrent: IMAGE, Spectrum: IMAGE,
    WithIndices: {"x": IMAGE, "i": torch.ones(1, dtype=torch.long)}, TwoArguments: (IMAGE, IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("form", CUT, ids=lambda form: form.__name__)
def test_an_unusual_network_is_cut_and_left_as_it_was_until_then(form):
    network, example = form(), CUT[form]
    before = copy.deepcopy(vars(network)), copy.deepcopy(network.state_dict())
    random = torch.random.get_rng_state()
    pruner = L1(network, example, ratios="c1:0.5")
    assert str(before[0]) == str(vars(network))
    assert all(torch.equal(before[1][name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())
    pruner.cut()
    assert (network.c1.out_channels, network.c2.in_channels) == (4, 4)
    arguments = example if isinstance(example, tuple) else (example,)
    with torch.enable_grad():
        output = network.eval()(*arguments)
    if isinstance(output, Tensor) and output.requires_grad:
        output.sum().backward()


def reads_width(value, illegal):
    """Makes networks whose outputs depend on the number of filters, beside outputs filled with a constant."""

    class ReadsWidth(IllegalActions):
        def features(self, x):
            x = F.relu(self.c1(x))
            return F.relu(self.c2(x * x.shape[1] ** -0.5)).mean((2, 3))

    ReadsWidth.value, ReadsWidth.illegal = value, illegal
    return ReadsWidth()


@pytest.mark.parametrize("value", [0.0, -1e4, -1e9, torch.finfo(torch.float32).min, -torch.inf, torch.inf])
@pytest.mark.parametrize("n_illegal", [0, 1, 2, 3])
def test_a_wrong_cut_is_refused_whatever_stands_beside_the_outputs_that_it_changes(value, n_illegal):
    network = reads_width(value, tuple(i < n_illegal for i in range(4)))
    with pytest.raises(ValueError, match="cannot be proved right: the cut network's outputs differ"):
        L1(network, IMAGE, ratios="c1:0.75")


class Returns(Base):
    """Returns its features, too, in the modes in which `when` is true."""

    def __init__(self, pack, when=lambda training: True):
        super().__init__()
        self.pack, self.when = pack, when

    def forward(self, x):
        features = self.features(x)
        return self.pack(self.fc(features), features) if self.when(self.training) else self.fc(features)


PACKS = {
    "tuple": lambda y, features: (y, features),
    "dict": lambda y, features: {"out": y, "features": [features]},
    "namespace": lambda y, features: (y, SimpleNamespace(features=features)),
    "dataclass": lambda y, features: (y, Output(features)),
    "distribution": lambda y, features: (y, torch.distributions.Normal(features, 1.0)),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("modes", ["both", "training", "eval"])
@pytest.mark.parametrize("pack", PACKS)
def test_filters_that_reach_an_output_stay_whatever_it_is_packed_in(pack, modes, wrapped):
    when = {"both": lambda training: True, "training": lambda training: training, "eval": lambda training: not training}
    network = Returns(PACKS[pack], when[modes])
    network = nn.Sequential(network) if wrapped else network
    with pytest.raises(ValueError, match=r"c2: fixed, (reaches the network's output|eq)"):
        L1(network, IMAGE, ratios="*c2:0.5")
    L1(network, IMAGE, ratios="*c1:0.5").cut()


class Fails(Base):
    def forward(self, x):
        raise KeyError("no such\nkey")


class Nothing(Base):
    def forward(self, x):
        super().forward(x)


class Hidden(Base):
    def forward(self, x):
        return super().forward, iter([super().forward(x)])


class Keeps(Base):
    """Keeps its maps, as networks do for a picture of them."""

    def forward(self, x):
        self.kept = {"maps": [F.relu(self.c1(x))]}
        return self.fc(F.relu(self.c2(self.kept["maps"][0])).mean((2, 3)))


class NormalizedWeight(Base):
    """Its classifier's weight is computed before each pass."""

    def __init__(self):
        super().__init__()
        self.fc = nn.utils.weight_norm(self.fc)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("form", [Keeps, NormalizedWeight])
def test_a_network_that_keeps_tensors_of_its_last_pass_is_cut(form):
    network = form()
    network(IMAGE).sum().backward()
    L1(network, IMAGE, ratios="c1:0.5").cut()
    assert network(IMAGE).shape == (1, 4)


class Detections(Base):
    """As many outputs as are above 0."""

    def forward(self, x):
        scores = super().forward(x)
        return scores[scores > 0]


def test_a_network_whose_number_of_outputs_changes_by_the_cut_is_cut(caplog):
    torch.manual_seed(0)
    network = Detections()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    GReg1(network, torch.zeros(64, 3, 8, 8), ratios="c1:0.5", steps=10).attach(optimizer).cut()
    assert network.c1.out_channels == 4
    assert "have not decayed" in caplog.text


def test_a_network_that_returns_a_class_beside_its_outputs_is_cut():
    class WithClass(Base):
        def forward(self, x):
            return SimpleNamespace(logits=super().forward(x), layer_class=nn.Linear)

    L1(WithClass(), IMAGE, ratios="c1:0.5").cut()


@pytest.mark.gpu
def test_noise_is_the_same_on_a_gpu():
    L1(Noisy().cuda(), IMAGE.cuda(), ratios="c1:0.5").cut()


REFUSED = {Fails: "no such", Nothing: "returns no tensors", Hidden: "whose tensors cannot be found", Logarithm: "nan"}


@pytest.mark.parametrize("form", REFUSED, ids=lambda form: form.__name__)
def test_a_network_that_cannot_be_compared_is_refused_in_one_line(form):
    with pytest.raises(ValueError, match=REFUSED[form]) as refused:
        L1(form(), IMAGE, ratios="c1:0.5")
    assert "\n" not in str(refused.value)
