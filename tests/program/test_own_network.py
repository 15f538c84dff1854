"""A user's network (FILE.py:FUNCTION) and one of timm: plan, run, resume, evaluate, load."""

import importlib.util

import pytest
import torch
from helpers import run_program, write_image_folder, write_npz_set

from model import load_pruned, preprocessing_of
from utils.reporting.run_dir import how_to_resume

NETWORK = """
import torch
from torch import nn
import helper_of_the_network  # beside the file

def small(num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )

def broken(num_classes):
    return "a network"

answer = 42

class Odd(nn.Module):
    def __init__(self, num_classes, odd):
        super().__init__()
        self.net, self.odd = small(num_classes), odd

    def forward(self, x):
        features = self.net[:7](x)
        return self.odd(self, x, self.net[7](features), features)

def raising(num_classes): raise KeyError("no\\nsuch key")
def of_1000(num_classes): return small(1000)
def of_7(num_classes): return small(7)
def features_too(num_classes): return Odd(num_classes, lambda net, x, y, f: (y, f) if net.training else y)
def tuples(num_classes): return Odd(num_classes, lambda net, x, y, f: (y, y))
def mapping(num_classes): return Odd(num_classes, lambda net, x, y, f: {"logits": y})
def maps(num_classes): return Odd(num_classes, lambda net, x, y, f: y[:, :, None, None])
def failing(num_classes): return Odd(num_classes, lambda net, x, y, f: {}["key"])
def wants_labels(num_classes): return Odd(num_classes, lambda net, x, y, f: net.missing if net.training else y)
def heads(num_classes): return Odd(num_classes, lambda net, x, y, f: (y, 2 * y) if net.training else y)
def by_value(num_classes): return Odd(num_classes, lambda net, x, y, f: -y if x.mean() > 1e6 else y)
def constants(num_classes):
    mean = torch.tensor([0.5])
    return Odd(num_classes, lambda net, x, y, f: y - mean)
def imports(num_classes):
    import helper_of_the_network
    return small(num_classes)
"""
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.fixture
def own(tmp_path):
    """Write a network file, its helper and images; return the folder and the words of a run."""
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "helper_of_the_network.py").write_text("")
    images = write_npz_set(tmp_path / "images", size=16)
    return tmp_path, [
        *("--dataset", "npz", "--data_path", images, "--arch", "nets.py:small", "--method", "GReg-1"),
        *("--ratios", "0:0.5"),
        *("--allow_untrained", "--prune_steps", "10", "--batch_size_prune", "8", "--epochs", "1", "--batch_size", "16"),
        *("--lr_ft", "0:0.01", "--seed", "0", "--workers", "0"),
    ]  # fmt: skip


def test_a_user_network_is_pruned_evaluated_resumed_and_loaded(own, monkeypatch):
    folder, words = own
    ran = run_program(folder, *words)
    assert ran.code == 0, ran.err
    file = ran.weights("pruned_model")
    width = ran.load("pruned_model")["model"]["0.weight"].shape[0]
    assert width < 8

    evaluate = ["--evaluate", "--base_model_path", file, "--data_path", folder / "images"]
    refused = run_program(folder, *evaluate)
    assert refused.code == 2
    assert "--arch nets.py:small is required: it runs code" in refused.err
    assert run_program(folder, *evaluate, "--arch", "nets.py:small").code == 0

    assert how_to_resume(ran.run_dir, "nets.py:small").endswith(" --arch nets.py:small")
    assert run_program(folder, "--resume_path", ran.run_dir, "--epochs", "2").code == 2
    resumed = run_program(folder, "--resume_path", ran.run_dir, "--epochs", "2", "--arch", "nets.py:small")
    assert resumed.code == 0, resumed.err

    with pytest.raises(ValueError, match="build it and call load_pruned"):
        load_pruned(file)
    monkeypatch.syspath_prepend(str(folder))
    dense = importlib.import_module("nets").small(6)
    pruned = load_pruned(file, dense)
    assert pruned is dense
    assert pruned[3].groups == width
    assert pruned(torch.zeros(2, 1, 16, 16)).shape == (2, 6)


UNUSUAL = """
import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, num_classes, *layers, **buffers):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), *layers, nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, num_classes)
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))

class OwnBatchNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("var", torch.ones(n))

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.var, self.scale, self.shift, self.training)

class Ordered(Net):
    def forward(self, x):
        return (super().forward(x) + self.mask.max())[:, self.order]

class Series(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(16, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3), nn.Conv1d(8, 8, 3, groups=8),
            nn.BatchNorm1d(8, affine=False), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, num_classes),
        )

    def forward(self, x):
        return self.layers(x.squeeze(1))

class Tied(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.one = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1, bias=False)
        self.two = nn.Conv2d(8, 8, 1, bias=False)
        self.two.weight = self.one.weight
        self.up, self.down, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3), nn.Linear(8, num_classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + self.two(F.relu(self.one(x)))
        return self.head(self.down(F.relu(self.up(x))).mean((2, 3)))

def no_affine(num_classes): return Net(num_classes, nn.BatchNorm2d(8, affine=False))
def no_statistics(num_classes): return Net(num_classes, nn.BatchNorm2d(8, track_running_stats=False))
def own_norm(num_classes): return Net(num_classes, OwnBatchNorm(8))
def buffers(num_classes):
    mask, bias = torch.tensor([0, -torch.inf]), torch.ones(2, 2).tril().bool()
    return Ordered(num_classes, order=torch.arange(num_classes), mask=mask, bias=bias)
series, tied = Series, Tied
"""


@pytest.mark.parametrize("name", ["no_affine", "no_statistics", "own_norm", "buffers", "series", "tied"])
def test_every_file_of_an_unusual_network_can_be_read(name, own):
    folder, words = own
    (folder / "nets.py").write_text(UNUSUAL)
    arch = ["--arch", f"nets.py:{name}"]
    at = words.index("--ratios")
    words[at : at + 2] = ["--speedup", "1.3"]
    ran = run_program(folder, *words, *arch)
    assert ran.code == 0, ran.err
    evaluate = ["--evaluate", *arch, "--data_path", folder / "images", "--base_model_path", ran.weights("pruned_model")]
    evaluated = run_program(folder, *evaluate)
    assert evaluated.code == 0, evaluated.err
    assert f"{ran.report['acc1_last']:.2f}" in evaluated.out
    assert f"{ran.report['params_after']:,}" in evaluated.out
    resumed = run_program(folder, "--resume_path", ran.run_dir, "--epochs", "2", *arch)
    assert resumed.code == 0, resumed.err
    saved = resumed.load("checkpoint")
    assert len(saved["record"]["tuned"]["acc1"]) == 2
    if name == "tied":
        assert saved["model"]["one.weight"].equal(saved["model"]["two.weight"])


@pytest.mark.parametrize("wrapped", ["", "module.", "_orig_mod.", "model.net."])
def test_weights_of_a_network_whose_layers_are_in_one_submodule_are_found(wrapped, own):
    folder, words = own
    (folder / "nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.ones(1))\n"
        "        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1568, num_classes))\n"
        "    def forward(self, x):\n"
        "        return self.scale * self.body(x)\n"
    )
    state = {
        "scale": torch.full((1,), 3.0), "body.0.weight": torch.ones(8, 1, 3, 3), "body.0.bias": torch.ones(8),
        "body.3.weight": torch.ones(6, 1568), "body.3.bias": torch.ones(6),
    }  # fmt: skip
    torch.save({"net": {f"{wrapped}{name}": value for name, value in state.items()}}, folder / "w.pth")
    more = ["--arch", "nets.py:Net", "--method", "none", "--epochs", "0", "--base_model_path", "w.pth"]
    at = words.index("--ratios")
    ran = run_program(folder, *words[:at], *words[at + 2 :], *more)
    assert ran.code == 0, ran.err
    loaded = ran.load("checkpoint_best")["model"]
    assert all(loaded[name].equal(value) for name, value in state.items())


def test_numbers_and_filters_are_inherited_by_a_network_without_addresses(own):
    folder, words = own
    first = run_program(folder / "first", *words[:5], f"{folder}/nets.py:small", *words[6:])
    assert first.code == 0, first.err
    ratios = words.index("--ratios")
    words[words.index("--arch") + 1] = f"{folder}/nets.py:small"
    rest = [*words[:ratios], *words[ratios + 2 :]]
    file = first.weights("pruned_model")
    second = run_program(folder / "second", *rest, "--base_pr_model", file)
    assert second.code == 0, second.err
    assert second.report["pruned"] == first.report["pruned"] == {"0": 4}
    third = run_program(folder / "third", *rest, "--directly_ft_weights", file)
    assert third.code == 0, third.err
    assert third.report["params_after"] == first.report["params_after"]


@pytest.mark.parametrize("name", ["heads", "by_value", "constants", "imports"])
@pytest.mark.parametrize("layer", ["net.0", None])
def test_a_network_that_cannot_run_without_values_is_trained(own, name, layer):
    folder, words = own
    words[words.index("--arch") + 1] = f"nets.py:{name}"
    at = words.index("--ratios")
    words[at : at + 2] = ["--ratios", "0:0.5" if name == "imports" else "net.0:0.5"] if layer else ["--method", "none"]
    ran = run_program(folder, *words)
    assert ran.code == 0, ran.err


WRONG = {
    "no such file": ("none.py:small", "no file none.py"),
    "no such function": ("nets.py:large", "nets.py has no function large"),
    "a value": ("nets.py:answer", "nets.py has no function answer"),
    "no network": ("nets.py:broken", "returns a str, not an nn.Module"),
    "an error of its own": ("nets.py:raising", "cannot be called with num_classes=6 (KeyError: 'no"),
    "a fixed number of classes": ("nets.py:of_1000", "returns (2, 1000) in eval mode for 2 images; a run needs (2, 6)"),
    "too few classes for the labels": ("nets.py:of_7", "returns (2, 7) in eval mode"),
    "features while it trains": ("nets.py:features_too", "returns a tuple of (2, 6), (2, 8) in training mode"),
    "a tuple in eval mode": ("nets.py:tuples", "returns a tuple of (2, 6), (2, 6) in eval mode"),
    "a mapping": ("nets.py:mapping", "returns a dict in eval mode"),
    "maps": ("nets.py:maps", "returns (2, 6, 1, 1) in eval mode"),
    "an error in its pass": ("nets.py:failing", "cannot take images of 16 px in eval mode, 2 at a time (KeyError"),
    "an error while it trains": (
        "nets.py:wants_labels",
        "cannot take images of 16 px in training mode, 2 at a time (AttributeError",
    ),
    "another network's layer": ("nets.py:small --ratios 9:0.5", "no conv or linear layer is called 9"),
    "the output": ("nets.py:small --ratios 7:0.5", "reaches the network's output"),
    "an odd speedup": ("nets.py:small --speedup 30", "cannot be reached: at most"),
    "two sources": ("nets.py:small --stage_pr [0-1:0.5]", "--ratios and --stage_pr exclude each other"),
    "channels": ("nets.py:small --wg channel", "use --wg filter"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_network_is_refused_in_one_line(own, words, message):
    folder, given = own
    arch, *more = words.split()
    given[given.index("--arch") + 1] = arch
    if "--ratios" in more or "--speedup" in more:
        at = given.index("--ratios")
        del given[at : at + 2]
    ran = run_program(folder, *given, *more)
    assert ran.code == 2
    (line,) = ran.err.splitlines()
    assert message in line
    assert not (folder / "Experiments").exists()


@needs_timm
@pytest.mark.filterwarnings("ignore")
def test_a_network_of_timm_has_its_own_size_mean_and_std(tmp_path):
    write_image_folder(tmp_path / "pets")
    words = ["--dataset", "folder", "--data_path", tmp_path / "pets", "--arch", "timm/mobilevit_xxs", "--method", "L1"]
    ran = run_program(tmp_path, *words, "--speedup", "1.3", "--allow_untrained", "--epochs", "0", "--workers", "0")
    assert ran.code == 0, ran.err
    data, wanted = ran.load("pruned_model")["data"], preprocessing_of("timm/mobilevit_xxs")
    assert (data["size"], data["mean"], data["std"]) == (wanted.size, wanted.mean, wanted.std) != (224, None, None)
    assert load_pruned(ran.weights("pruned_model"))(torch.zeros(1, 3, 256, 256)).shape == (1, 2)


@pytest.mark.parametrize("name", ["resnet18_of_mine", "resnet18.of_mine"])
def test_missing_timm_and_unknown_timm_networks_are_refused(name, tmp_path):
    ran = run_program(tmp_path, "--dataset", "imagenet", "--arch", f"timm/{name}", "--method", "none", "--plan")
    assert ran.code == 2
    assert "pip install timm" in ran.err or "timm has no network" in ran.err or "Invalid pretrained tag" in ran.err
