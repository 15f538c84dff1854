"""Weights of other tools: found by content under any wrapper; their values are checked."""

import argparse
import collections
import copy
import datetime
import decimal
import os
import pathlib
import subprocess
import types

import numpy as np
import pytest
import torch
from helpers import one_line_refusal, run_program, write_npz_set
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from data import DataSource
from model import build_model
from utils.checkpoint import files
from utils.checkpoint.state_dicts import conversion_notices, find_weights, rename_head
from utils.config.cli import parse
from utils.pipeline.base_model import load_base_model

SIZE, CLASSES = 32, 4


def network(arch: str = "lenet5_mini", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(arch, CLASSES, 1, SIZE)


def state_of(arch: str = "lenet5_mini", seed: int = 0) -> dict:
    return dict(network(arch, seed).state_dict())


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


def adam_of(model: nn.Module) -> dict:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 1, SIZE, SIZE)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


# keys and prefixes

KEYS = (
    "", "net", "model", "state_dict", "model_state_dict", "state_dict_ema", "model_ema", "weights", "any name",
    "checkpoint.model", "a.b.c", "0",
)  # fmt: skip
PREFIXES = (
    "", "module.", "_orig_mod.", "model.", "net.", "backbone.", "module.module.", "module._orig_mod.",
    "_orig_mod.module.", "model.module._orig_mod.", "any_name.of.mine.",
)  # fmt: skip


def nested(key: str, state: dict) -> dict:
    for part in reversed(key.split(".")) if key else ():
        state = {part: state}
    return state


@pytest.mark.parametrize("arch", ["lenet5_mini", "resnet20", "mlp_7_linear", "vgg11"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_weights_are_found_under_any_key_and_prefix(prefix, arch):
    state = state_of(arch)
    optimizer = adam_of(network("lenet5_mini"))
    for key in KEYS:
        content = nested(key, prefixed(state, prefix))
        beside = {} if not key else {"epoch": 3, "optimizer_state_dict": optimizer, "rng": torch.get_rng_state()}
        found_state, notices = find_weights(content | beside, "x.pth")
        assert same(found_state, state), key
        assert len(notices) == bool(key or prefix)
        assert all(part in notices[0] for part in (key, prefix) if part)


@pytest.mark.parametrize("arch", ["lenet5", "resnet110", "vgg19", "mlp_7_linear", "resnet50", "vgg16_bn", "alexnet",
                                  "densenet121", "mobilenet_v3_small", "efficientnet_b0", "swin_t", "vit_b_16",
                                  "convnext_tiny", "squeezenet1_1", "googlenet", "inception_v3"])  # fmt: skip
def test_no_prefix_of_a_network_is_mistaken_for_a_wrapper(arch):
    with torch.device("meta"):
        own = build_model(arch, 10, 3, 32 if arch.startswith("lenet") else 299 if arch == "inception_v3" else 224)
    state, notices = find_weights(dict(own.state_dict()), "x.pth")
    assert state.keys() == own.state_dict().keys()
    assert not notices


def test_wrappers_around_a_submodule_are_removed():
    state = state_of("vgg11")
    for wrapper in ("module.", "_orig_mod.", "_orig_mod.module."):
        wrapped = {key.replace("features.", f"features.{wrapper}"): value for key, value in state.items()}
        unwrapped, (notice,) = find_weights({"state_dict": wrapped}, "x.pth")
        assert same(unwrapped, state)
        assert wrapper in notice


def test_the_wrappers_of_torch_itself_are_removed():
    model = network("resnet20")
    for wrapped in (
        nn.DataParallel(model),
        torch.optim.swa_utils.AveragedModel(model),
        torch.optim.swa_utils.AveragedModel(nn.DataParallel(model)),
        torch.compile(model),
        torch.compile(nn.DataParallel(model)),
    ):
        unwrapped, (notice,) = find_weights({"any": wrapped.state_dict()}, "x.pth")
        assert same(unwrapped, dict(model.state_dict()))
        assert ("n_averaged" in notice) == isinstance(wrapped, torch.optim.swa_utils.AveragedModel)


def test_tensors_outside_of_the_wrapper_are_dropped_with_a_notice():
    state = state_of("resnet20")
    beside = {"criterion.weight": torch.ones(4), "train_acc.total": torch.tensor(5)}
    unwrapped, (notice,) = find_weights({"state_dict": prefixed(state, "model.") | beside, "epoch": 1}, "x.pth")
    assert same(unwrapped, state)
    assert all(name in notice for name in beside)


def with_self(content: dict) -> dict:
    content["self"] = [content]
    return content


NOT_WEIGHTS = {
    "nothing": {},
    "numbers": {"a": 1, "b": [2.0, {"c": "d"}]},
    "a counter": {"state_dict": {"epoch": 3, "n_averaged": torch.tensor(5)}},
    "an optimizer": {"optimizer": adam_of(network())},
    "random states": {"rng": {"torch": torch.get_rng_state(), "cuda": [torch.get_rng_state()]}},
    "itself": with_self({"a": torch.ones(2, 2)}),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_other_tensors_are_not_mistaken_for_weights(name):
    assert "holds no weights" in one_line_refusal(find_weights, NOT_WEIGHTS[name], "x.pth")
    state = state_of()
    weights, _ = find_weights({"net": state, "other": NOT_WEIGHTS[name]}, "x.pth")
    assert same(weights, state)


@pytest.mark.parametrize(
    "beside",
    [
        {"criterion": {"weight": torch.ones(4)}},
        {"optimizer": {"state": {"features.0.weight": {"exp_avg": torch.ones(3, 3)}}}},
        {"scaler": {"scale": torch.tensor(2.0), "_growth_tracker": torch.tensor(0)}},
        {"metrics": {"confusion": torch.ones(4, 4)}},
        {"swa": {"n_averaged": torch.tensor(5)}},
    ],
)
def test_losses_optimizers_and_metrics_are_ignored(beside):
    state = state_of()
    assert same(find_weights({"net": state, **beside}, "x.pth")[0], state)


# several state dicts

SEVERAL = {
    "average beside raw": ({"state_dict": 1, "state_dict_ema": 2}, ("state_dict", "state_dict_ema")),
    "three": ({"net": 1, "ema": 2, "swa": 3}, ("net", "ema", "swa")),
    "deeper": ({"a": {"model": 1, "ema": 2}}, ("a.model", "a.ema")),
    "in a list": ({"models": [1, 2]}, ("models.0", "models.1")),
}


def filled(content):
    """Replace the seeds in `content` by state dicts of networks."""
    if isinstance(content, dict):
        return {key: filled(value) for key, value in content.items()}
    if isinstance(content, list):
        return [filled(value) for value in content]
    return prefixed(state_of("resnet20", content), "module." if content > 1 else "")


@pytest.mark.parametrize("name", SEVERAL)
def test_several_state_dicts_are_named_and_a_key_chooses_one(name):
    content, keys = SEVERAL[name]
    line = one_line_refusal(find_weights, filled(content), "x.pth")
    assert all(key in line for key in keys)
    assert "--weights_key" in line
    for seed, key in enumerate(keys, 1):
        weights, notices = find_weights(filled(content), "x.pth", key)
        assert same(weights, state_of("resnet20", seed))
        assert key in notices[0]
    line = one_line_refusal(find_weights, filled(content), "x.pth", "nowhere")
    assert line.startswith("--weights_key nowhere: ")
    assert all(key in line for key in keys)


def test_a_key_chooses_the_top_level_or_a_prefix():
    raw, average = state_of(seed=1), state_of(seed=2)
    both = {**raw, "ema": average}
    assert ". (the top level), ema" in one_line_refusal(find_weights, both, "x.pth")
    assert same(find_weights(both, "x.pth", ".")[0], raw)
    assert same(find_weights(both, "x.pth", "ema")[0], average)
    flat = {"initted": torch.tensor(True)} | prefixed(raw, "online_model.") | prefixed(average, "ema_model.")
    assert same(find_weights({"ema": flat}, "x.pth", "ema.online_model")[0], raw)
    assert same(find_weights(flat, "x.pth", "ema_model")[0], average)


def test_copies_of_the_same_weights_count_once():
    state = state_of()
    copied = {f"module.{key}": value.clone() for key, value in state.items()}
    assert same(find_weights({"model": state, "state_dict": copied}, "x.pth")[0], state)


def test_a_network_and_its_wrapped_copy_in_one_dict_do_not_overwrite_each_other():
    both = state_of(seed=1) | prefixed(state_of(seed=2), "module.")
    assert find_weights(both, "x.pth")[0].keys() == both.keys()


# the head


@pytest.mark.parametrize("theirs", ["fc", "classifier", "head", "heads.head", "last_linear", "module.fc"])
@pytest.mark.parametrize("arch", ["resnet20", "lenet5_mini", "vgg11", "mlp_7_linear"])
def test_a_classifier_of_another_name_is_renamed_with_a_notice(theirs, arch):
    own = state_of(arch)
    head = list(own)[-1].removesuffix(".bias")
    renamed = {key.replace(f"{head}.", f"{theirs}."): value for key, value in own.items()}
    state, notices = rename_head(renamed, own, "x.pth")
    assert same(state, own)
    if theirs != head:
        (notice,) = notices
        assert theirs in notice
        assert head in notice


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {k: v for k, v in state.items() if not k.startswith("linear")},
        lambda state: {k.replace("linear.bias", "fc.bias"): v for k, v in state.items()},
        lambda state: {k.replace("linear", "fc").replace("bn1", "norm1"): v for k, v in state.items()},
        lambda state: {k.replace("conv1", "stem"): v for k, v in state.items()},
        lambda state: {k.replace("linear", "fc"): v[:2] if k.startswith("linear") else v for k, v in state.items()},
        lambda state: {k.replace("linear", "fc"): v for k, v in state.items()} | {"neck.weight": torch.ones(2, 2)},
    ],
)
def test_nothing_is_renamed_if_more_than_the_classifier_differs(change):
    own = state_of("resnet20")
    state, notices = rename_head(change(own), own, "x.pth")
    assert same(state, change(own))
    assert not notices
    assert "does not fit the network" in one_line_refusal(files.load_weights, network("resnet20"), state, "x.pth")


# weights that cannot be loaded


def pruned(model):
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(module, "weight", 0.5)
    return model


def through(utility):
    def change(model):
        utility(model.features[0])
        return model

    return change


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (pruned, "torch.nn.utils.prune.remove"),
        (through(lambda conv: prune.random_unstructured(conv, "bias", 0.5)), "torch.nn.utils.prune.remove"),
        (through(weight_norm), "remove_weight_norm"),
        (through(spectral_norm), "remove_spectral_norm"),
        (through(parametrizations.weight_norm), "remove_parametrizations"),
        (through(parametrizations.orthogonal), "remove_parametrizations"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_under_a_torch_utility_are_refused_with_the_call_that_removes_it(change, advice):
    state = change(network()).state_dict()
    for content in (state, {"net": prefixed(state, "module.")}):
        assert advice in one_line_refusal(find_weights, content, "x.pth")


VALUES = {
    "nan": (lambda value: torch.full_like(value, torch.nan), "not finite"),
    "one inf": (lambda value: torch.where(torch.arange(value.shape[-1]) > 0, value, torch.inf), "not finite"),
    "float64 beyond float32": (lambda value: torch.full_like(value, 1e300, dtype=torch.float64), "not finite"),
    "int8": (lambda value: value.to(torch.int8), "int8"),
    "int64": (lambda value: value.long(), "int64"),
    "uint8": (lambda value: value.to(torch.uint8), "uint8"),
    "bool": (lambda value: value > 0, "bool"),
    "complex": (lambda value: value.to(torch.complex64), "complex"),
    "float8": (lambda value: value.to(torch.float8_e4m3fn), "float8"),
    "sparse": (lambda value: value.to_sparse(), "sparse"),
    "quantized": (lambda value: quantized(value), "quantized"),
    "meta": (lambda value: value.to("meta"), "no values"),
    "empty": (lambda value: value.flatten()[:0], "of another shape"),
    "scalar": (lambda value: value.flatten()[0], "of another shape"),
    "other shape": (lambda value: value[None], "of another shape"),
}  # fmt: skip


def quantized(value):
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("key", ["conv1.weight", "layer2.0.bn1.bias", "bn1.running_mean", "bn1.running_var",
                                 "layer3.1.bn2.running_var", "linear.weight", "linear.bias"])  # fmt: skip
def test_an_invalid_tensor_is_refused_by_name(key, name):
    change, message = VALUES[name]
    model, state = network("resnet20"), state_of("resnet20", seed=1)
    line = one_line_refusal(files.load_weights, model, state | {key: change(state[key])}, "x.pth")
    assert line.startswith("x.pth")
    assert key in line
    assert message in line
    assert same(dict(model.state_dict()), state_of("resnet20"))


def test_a_negative_variance_is_refused_by_name():
    state = state_of("resnet20")
    state["layer1.0.bn2.running_var"][3] = -0.5
    line = one_line_refusal(files.load_weights, network("resnet20"), state, "x.pth")
    assert "layer1.0.bn2.running_var" in line
    assert "-0.5" in line


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_converted_with_a_notice(dtype):
    model, state = network("resnet20"), state_of("resnet20", seed=1)
    converted = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    files.load_weights(model, converted, "x.pth")
    assert model.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(model.conv1.weight.data, state["conv1.weight"], rtol=1e-2, atol=1e-2)
    (notice,) = conversion_notices(converted, "x.pth")
    assert str(dtype).removeprefix("torch.") in notice
    assert not conversion_notices(state, "x.pth")


# files


BESIDE = {
    "numbers of numpy": [np.float64(91.2), np.float32(1), np.int64(3), np.bool_(True), np.str_("x"), np.float16(1)],
    "arrays of numpy": [np.arange(3.0), np.zeros((2, 2), np.int8), np.array(["a", None], object),
                        np.random.get_state()],
    "settings": [argparse.Namespace(lr=0.1, inner=argparse.Namespace(x=[1])), types.SimpleNamespace(a=1)],
    "paths": [pathlib.Path("a/b"), pathlib.PurePosixPath("/c"), pathlib.PureWindowsPath("d:/e")],
    "times": [datetime.datetime(2026, 1, 1), datetime.timedelta(3), datetime.date(2026, 1, 1)],
    "containers": [collections.defaultdict(list, a=[1]), collections.OrderedDict(b=2), collections.Counter("abc"),
                   collections.defaultdict(float), {1, 2}, frozenset([3]), range(4), (5,)],
    "torch": [torch.float32, torch.Size([1, 2]), torch.device("cpu"), torch.get_rng_state(),
              nn.Parameter(torch.ones(2))],
    "other": [decimal.Decimal("0.1"), 1 + 2j, b"bytes", bytearray(b"x"), None, True, 2**70],
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_plain_values_beside_weights_are_read_without_trust(name, tmp_path):
    state = state_of()
    for value in BESIDE[name]:
        for content in ({"net": state, "extra": value}, {"net": state, "args": {"deep": [value]}}):
            torch.save(content, tmp_path / "x.pth")
            assert same(files.read(tmp_path / "x.pth").model, state), value


def test_weights_in_a_defaultdict_are_read(tmp_path):
    torch.save(collections.defaultdict(dict, net=collections.defaultdict(list, state_of())), tmp_path / "x.pth")
    assert same(files.read(tmp_path / "x.pth").model, state_of())


def test_every_file_format_is_unwrapped_alike(tmp_path):
    state = prefixed(state_of("resnet20"), "module._orig_mod.") | {"n_averaged": torch.tensor(3)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for file in tmp_path.iterdir():
        saved = files.read(file)
        assert same(saved.model, state_of("resnet20")), file
        assert "n_averaged" in saved.notices[0]


ACTIONS = {
    "system": lambda mark: (os.system, (f"touch {mark}",)),
    "mkdir": lambda mark: (os.mkdir, (str(mark),)),
    "touch": lambda mark: (pathlib.Path.touch, (pathlib.Path(mark),)),
    "open": lambda mark: (open, (str(mark), "w")),
    "eval": lambda mark: (eval, (f"open({str(mark)!r}, 'w')",)),
    "exec": lambda mark: (exec, (f"open({str(mark)!r}, 'w')",)),
    "Popen": lambda mark: (subprocess.Popen, (["touch", str(mark)],)),
    "getattr": lambda mark: (getattr, (pathlib.Path(mark), "touch")),
    "fromfile": lambda mark: (np.save, (str(mark), 1)),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "hide",
    [
        lambda evil: {"net": evil},
        lambda evil: {"net": state_of(), "args": argparse.Namespace(x=evil)},
        lambda evil: {"net": state_of(), "acc": np.array([evil], object)},
        lambda evil: collections.defaultdict(list, net=state_of(), evil=evil),
    ],
    ids=["alone", "in settings", "in an array", "in a defaultdict"],
)
def test_code_in_a_file_is_refused_and_does_not_run(action, hide, tmp_path):
    mark = tmp_path / "was_run"

    class Evil:
        def __reduce__(self):
            return ACTIONS[action](mark)

    torch.save(hide(Evil()), tmp_path / "x.pth")
    before = set(torch.serialization.get_safe_globals())
    line = one_line_refusal(files.read, tmp_path / "x.pth")
    assert "--trust_checkpoint" in line
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith("x.pth")] == []
    assert set(torch.serialization.get_safe_globals()) == before


def test_code_under_a_harmless_type_reaches_only_a_stand_in(tmp_path):
    class Evil:
        def __reduce__(self):
            return np.dtype, (f"__import__('os').mkdir({str(tmp_path / 'was_run')!r})",), ("state",)

    torch.save({"net": state_of(), "evil": Evil()}, tmp_path / "x.pth")
    assert same(files.read(tmp_path / "x.pth").model, state_of())
    assert not (tmp_path / "was_run").exists()


# the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign")
    write_npz_set(root / "set", train=12, test=8, size=SIZE, classes=CLASSES)
    return root


def evaluation(place, content, *more, arch="resnet20", name="x.pth"):
    torch.save(content, place / name)
    return command(place, "--evaluate", "--base_model_path", place / name, *more, arch=arch)


def command(place, *words, arch="resnet20"):
    cwd = place / "cwd"
    return run_program(cwd, "--dataset", "npz", "--data_path", place / "set", "--arch", arch, *words)


READ = {
    "net": lambda s: {"net": s, "acc": 91.2},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "epoch": 3},
    "compiled and wrapped": lambda s: {"model": prefixed(s, "module._orig_mod.")},
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "epoch": 1},
    "average": lambda s: {"model_ema": {"n_averaged": torch.tensor(5), **prefixed(s, "module.")}},
    "numpy": lambda s: {"state_dict": s, "best": np.float64(91.2)},
    "settings": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)},
    "fc": lambda s: {key.replace("linear.", "fc."): value for key, value in s.items()},
    "half": lambda s: {key: value.half() if value.is_floating_point() else value for key, value in s.items()},
    "deep": lambda s: {"checkpoint": {"model": s}},
}


@pytest.mark.parametrize("name", READ)
def test_wrapped_weights_are_evaluated_with_a_notice(name, place):
    state = state_of("resnet20")
    plain = evaluation(place, state)
    assert (plain.code, plain.err) == (0, "")
    ran = evaluation(place, READ[name](state))
    assert ran.code == 0, ran.err
    assert ran.err.startswith("notice: ")
    if name != "half":
        assert ran.out == plain.out


def replaced(key, change):
    return lambda s: s | {key: change(s[key])}


REFUSED = {
    "nan": (replaced("bn1.running_var", lambda v: v * torch.nan), "bn1.running_var", "not finite"),
    "integers": (lambda s: {k: (v * 10).int() for k, v in s.items()}, "conv1.weight", "int32"),
    "variance": (replaced("bn1.running_var", lambda v: -v), "bn1.running_var", "negative"),
    "empty": (replaced("linear.bias", lambda v: v[:0]), "linear.bias (0,)", "does not fit"),
    "quantized": (replaced("linear.weight", quantized), "linear.weight", "quantized"),
    "sparse": (replaced("linear.weight", lambda v: v.to_sparse_csr()), "linear.weight", "sparse_csr"),
    "complex": (replaced("conv1.weight", lambda v: v.cfloat()), "conv1.weight", "complex64"),
    "no weights": (lambda s: {"state_dict": {"epoch": 3}}, "x.pth", "holds no weights"),
    "several": (lambda s: {"raw": s, "ema": {k: v + 1 for k, v in s.items()}}, "raw, ema", "--weights_key"),
    "masks": (
        lambda s: {k.replace("conv1.weight", "conv1.weight_orig"): v for k, v in s.items()}
        | {"conv1.weight_mask": torch.ones(16, 1, 3, 3)},
        "conv1.weight_mask", "torch.nn.utils.prune.remove",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(quantize|Sparse):UserWarning")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    "more",
    [("--evaluate",), ("--method", "none"), ("--method", "L1", "--stage_pr", "[0,0.5,0.5,0.5,0]")],
    ids=["evaluate", "train", "prune"],
)
def test_unusable_weights_are_refused_in_one_line(name, more, place):
    change, *parts = REFUSED[name]
    torch.save(change(state_of("resnet20")), place / "x.pth")
    ran = command(place, "--base_model_path", place / "x.pth", "--epochs", 0, *more)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("main.py: error: --base_model_path: ")
    assert [part for part in parts if part not in line] == [], line
    assert not list(ran.cwd.iterdir())


def test_weights_key_chooses_a_state_dict(place):
    raw, average = state_of("resnet20"), state_of("resnet20", seed=1)
    both = {"state_dict": raw, "state_dict_ema": prefixed(average, "module.")}
    assert evaluation(place, both, "--weights_key", "state_dict").out == evaluation(place, raw).out
    ran = evaluation(place, both, "--weights_key", "state_dict_ema")
    assert ran.out == evaluation(place, average).out
    for wrong in ("ema", ""):
        ran = evaluation(place, both, "--weights_key", wrong)
        assert ran.code == 2
        (line,) = ran.err.splitlines()
        assert line.startswith(f"main.py: error: --weights_key {wrong}: ")
        assert "state_dict, state_dict_ema" in line


def test_weights_key_without_effect_is_a_notice(place, tmp_path):
    (line,) = command(place, "--weights_key", "ema", "--plan").err.splitlines()
    assert line == "notice: no effect without --base_model_path: --weights_key"
    words = ("--dataset", "npz", "--data_path", place / "set", "--arch", "lenet5_mini")
    checkpoint = run_program(tmp_path, *words, "--epochs", 0).weights("checkpoint_best")
    ran = run_program(tmp_path, *words, "--evaluate", "--base_model_path", checkpoint, "--weights_key", "ema")
    assert ran.code == 0
    assert "no effect" in ran.err
    assert "--weights_key" in ran.err


def test_a_vgg_without_batch_norm_is_read_with_and_without_conv_biases(place):
    torch.manual_seed(0)
    plain = build_model("vgg11", CLASSES, 1, SIZE, batch_norm=False)
    older = copy.deepcopy(plain)
    for module in older.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.randn(module.out_channels))
    words = ["--dataset", "npz", "--data_path", str(place / "set"), "--arch", "vgg11", "--not_use_bn"]
    options, _ = parse([*words, "--base_model_path", str(place / "vgg.pth")])
    images = torch.randn(2, 1, SIZE, SIZE)
    for model in (plain, older):
        torch.save(model.state_dict(), place / "vgg.pth")
        start = load_base_model(options, DataSource("npz", str(place / "set")).spec)
        assert not start.pruned
        assert torch.equal(start.model.eval()(images), model.eval()(images))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ".ckpt"])
@pytest.mark.parametrize("form", ["torch", "safetensors", "legacy"])
def test_a_file_is_recognized_by_its_content(tmp_path, form, suffix):
    file, state = tmp_path / f"x{suffix}", {"a.weight": torch.ones(2, 2)}
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "torch")
    content = files.read(file)
    assert content.model.keys() == state.keys()
    assert content.model["a.weight"].equal(state["a.weight"])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_file_of_another_kind_is_named_and_never_asked_to_run(tmp_path):
    script, arrays, report = (tmp_path / name for name in ("script.pth", "arrays.pth", "report.json"))
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), script)
    with arrays.open("wb") as file:
        np.savez(file, weight=np.ones(2))
    report.write_text('{"method": "L1", "acc1_best": 90.0}')
    for file, text in ((script, "TorchScript"), (arrays, "NumPy"), (report, "truncated, damaged or no checkpoint")):
        with pytest.raises(ValueError, match=text) as refused:
            files.read(file)
        assert "trust_checkpoint" not in str(refused.value)
