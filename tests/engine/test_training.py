import contextlib
import copy
import io
import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from data.sampler import Shard
from pruner import NoHooks, Pruner, WeightMasks
from utils.checkpoint.record import FinetuneMetrics, PhaseCounters
from utils.config.cli import parse
from utils.config.types import SaveInterval
from utils.engine import evaluate as evaluate_module
from utils.engine import monitor as monitor_module
from utils.engine import progress as progress_module
from utils.engine.evaluate import evaluate, reestimated_acc1
from utils.engine.monitor import DivergedError, SaveTimer
from utils.engine.phases import FinetunePhase, PrunePhase
from utils.engine.progress import Progress
from utils.engine.train import train, train_step
from utils.engine.update import Update
from utils.reporting.run_dir import Run


def settings(*words):
    return parse(["--dataset", "digits", "--arch", "resnet20", "--method", "GReg-1", "--seed", "0", *words])[0]


class Recorder(Run):
    """Run that records what is logged and saved."""

    def __init__(self, *words):
        super().__init__(settings(*words))
        self.lines, self.values, self.saved, self.pruned_saved = [], [], [], 0

    def log_line(self, text):
        self.lines.append(text)

    def scalars(self, phase, step, values):
        self.values.append((phase, step, dict(values)))

    def save(self, *names, **content):
        self.saved += [(name, content["phase"], content["step"], content.get("epoch")) for name in names]

    def save_pruned(self, model):
        self.pruned_saved += 1


class StepObserver:
    """Observer that records the steps."""

    def __init__(self):
        self.steps = []

    def observe(self, step):
        self.steps.append(step)


def small_net(classes=3, dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(144, classes)
    )


class Logits(nn.Module):
    """Return the images as outputs."""

    def forward(self, images):
        return images.flatten(1)


class FixedSteps(Pruner):
    """Pruner with `growing` and then `stabilizing` steps; records steps and module modes."""

    def __init__(self, model, growing, stabilizing=0):
        self.model, self.growing, self.stabilizing = model, growing, stabilizing
        self.steps, self.modes = [], []

    @property
    def status(self):
        return "growing" if len(self.steps) < self.growing else "stabilizing"

    @property
    def finished(self):
        return len(self.steps) >= self.growing + self.stabilizing

    def before_step(self, step):
        self.steps.append(step)
        self.modes += [module.training for module in self.model.modules()]


# evaluation


def ranked(*best_first, classes):
    """Return outputs that rank the classes in this order."""
    outputs = torch.zeros(classes)
    for rank, label in enumerate(best_first):
        outputs[label] = 10 - rank
    return outputs


def test_evaluate_counts_top_1_and_top_5():
    outputs = torch.stack([
        ranked(0, classes=7),  # first
        ranked(3, 2, classes=7),  # second
        ranked(0, 1, 2, 3, 4, classes=7),  # fifth
        ranked(0, 1, 2, 3, 4, 5, classes=7),  # sixth
    ])  # fmt: skip
    labels = torch.tensor([0, 2, 4, 5])
    accuracy = evaluate(Logits(), [(outputs[:3], labels[:3]), (outputs[3:], labels[3:])])
    assert (accuracy["acc1"], accuracy["acc5"]) == (25.0, 75.0)
    expected = nn.functional.cross_entropy(outputs, labels).item()
    assert accuracy["loss"] == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "has_acc5"), [(2, False), (5, False), (6, True)])
def test_top_5_is_counted_only_for_more_than_five_classes(classes, has_acc5):
    accuracy = evaluate(Logits(), [(torch.eye(classes), torch.arange(classes))])
    assert ("acc5" in accuracy) is has_acc5
    assert accuracy["acc1"] == 100


def test_images_of_a_short_last_batch_have_equal_weight(random_images, make_data):
    images, labels = random_images(257, classes=3)
    data = make_data((images, labels), classes=3)
    net = small_net()
    whole = evaluate(net, [(torch.cat([part for part, *_ in data.test_batches()]), labels)])
    assert evaluate(net, data.test_batches()) == pytest.approx(whole)


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_restores_the_mode_of_every_module(training, random_images, make_data):
    net = small_net().train(training)
    before = copy.deepcopy(net.state_dict())
    evaluate(net, make_data(random_images(6, classes=3)).test_batches())
    assert {module.training for module in net.modules()} == {training}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_evaluate_runs_in_eval_mode():
    modes = []
    net = Logits()
    net.register_forward_hook(lambda module, *_: modes.append(module.training))
    evaluate(net.train(), [(torch.eye(3), torch.arange(3))])
    assert modes == [False]


@pytest.mark.parametrize("training", [True, False])
def test_reestimated_acc1_changes_no_state(training, random_images, make_data):
    net = small_net().train(training)
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    reestimated_acc1(net, make_data(random_images(40, classes=3), random_images(10, classes=3)))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert {module.training for module in net.modules()} == {training}
    assert torch.equal(generator, torch.get_rng_state())


def test_reestimated_acc1_draws_no_random_numbers_for_dropout(random_images, make_data):
    net, data = small_net(dropout=0.5), make_data(random_images(40, classes=3))
    generator = torch.get_rng_state()
    reestimated_acc1(net, data)
    assert torch.equal(generator, torch.get_rng_state())


def brightness_task():
    """Return dark and bright images, and a net that classifies them by the sign of the normalized brightness."""
    images = torch.cat([torch.full((20, 1, 2, 2), 40), torch.full((20, 1, 2, 2), 200)]).to(torch.uint8)
    norm = nn.BatchNorm2d(1)
    read = nn.Linear(1, 2)
    with torch.no_grad():
        read.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        read.bias.zero_()
    return (images, torch.arange(40) // 20), nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), read)


def test_reestimated_acc1_uses_fresh_statistics(make_data):
    images, net = brightness_task()
    data = make_data(images, classes=2)
    net[0].running_mean.fill_(50.0)  # every image looks dark
    assert evaluate(net, data.test_batches())["acc1"] == 50
    assert reestimated_acc1(net, data) == 100


@pytest.mark.parametrize(
    ("rank", "synchronized", "updates"), [(0, False, 1), (1, False, 0), (0, True, 1), (1, True, 1)]
)
def test_synchronized_statistics_are_reestimated_by_all_ranks(
    rank, synchronized, updates, make_data, random_images, monkeypatch
):
    made = []
    monkeypatch.setattr(evaluate_module, "shard", lambda: Shard(rank, 2))
    monkeypatch.setattr(evaluate_module, "update_bn", lambda *_: made.append(1))
    monkeypatch.setattr(evaluate_module, "broadcast_buffers", lambda _: None)
    norm = nn.SyncBatchNorm(1) if synchronized else nn.BatchNorm2d(1)
    net = nn.Sequential(norm.eval(), nn.Flatten(), nn.LazyLinear(3))
    data = make_data(random_images(8, classes=3), random_images(4, classes=3))
    net(next(iter(data.test_batches()))[0])
    reestimated_acc1(net, data)
    assert len(made) == updates


def test_reestimated_acc1_without_batch_norm_equals_evaluate(random_images, make_data):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    data = make_data(random_images(20, classes=3))
    assert reestimated_acc1(net, data) == evaluate(net, data.test_batches())["acc1"]


# one step


def test_a_step_calls_the_hooks_in_order():
    events = []
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda *_: events.append("forward"))
    net.weight.register_hook(lambda _: events.append("backward"))

    class Recording(Pruner):
        def before_step(self, step):
            events.append(f"before step {step}")

        def after_backward(self):
            events.append(f"after backward, {'with' if net.weight.grad is not None else 'without'} gradient")

        def after_step(self):
            events.append("after step")

    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.register_step_pre_hook(lambda *_: events.append("update"))
    train_step(net, torch.ones(3, 2), torch.zeros(3).long(), Update(optimizer, Recording()), 7)
    assert events == ["before step 7", "forward", "backward", "after backward, with gradient", "update", "after step"]


def test_a_step_uses_only_the_gradient_of_its_own_batch():
    torch.manual_seed(0)
    net, batch, labels = nn.Linear(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    twin = copy.deepcopy(net)
    update = Update(torch.optim.SGD(net.parameters(), 0.5), Pruner())
    for step in range(2):
        loss, outputs = train_step(net, batch, labels, update, step)
        expected = twin(batch)
        expected_loss = nn.functional.cross_entropy(expected, labels)
        gradients = torch.autograd.grad(expected_loss, list(twin.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient
        torch.testing.assert_close(loss, expected_loss.detach())
        torch.testing.assert_close(outputs, expected.detach())
    torch.testing.assert_close(net.weight, twin.weight)


# the prune phase


@pytest.fixture
def data(make_data, random_images):
    return make_data(random_images(10, classes=3), random_images(5, classes=3))


def run_prune_phase(data, growing, stabilizing, *words, observers=()):
    net, run = small_net(), Recorder("--batch_size_prune", "4", *words)
    pruner = FixedSteps(net, growing, stabilizing)
    train(net, data, pruner, PrunePhase(run.options, pruner, growing + stabilizing, observers), run)
    return net, run, run.record.counters, pruner


def test_the_prune_phase_ends_with_the_pruner_and_counts_steps_across_epochs(data):
    _, _, counters, pruner = run_prune_phase(data, 5, 2)
    assert pruner.steps == list(range(7))
    assert sum(counters.iterations.values()) == 7
    assert set(counters.iterations) == {"update", "stabilise"}
    assert set(counters.seconds) == {"update", "stabilise"}
    assert counters.images_per_second["prune"] > 0


def test_a_finished_pruner_trains_no_step(data):
    net, run = small_net(), Recorder()
    before = copy.deepcopy(net.state_dict())
    pruner = Pruner()
    train(net, data, pruner, PrunePhase(run.options, pruner, 0), run)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not run.record.counters.iterations


def test_batch_norm_is_in_training_mode_at_every_step_despite_tests(data):
    net, run, _, pruner = run_prune_phase(data, 6, 0, "--test_interval", "2")
    assert all(pruner.modes)
    assert net.training
    assert [step for phase, step, values in run.values if "test_acc1" in values] == [1, 3, 5]
    assert sum("test acc1" in line for line in run.lines) == 3


def test_tests_lines_and_checkpoints_do_not_change_the_result(data):
    results = []
    for words in ((), ("--test_interval", "1", "--print_interval", "1", "--save_interval", "1")):
        torch.manual_seed(0)
        results.append(run_prune_phase(data, 5, 0, *words)[0].state_dict())
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())


def test_checkpoints_are_written_by_interval_and_where_the_status_changes(data):
    _, run, _, _ = run_prune_phase(data, 3, 2, "--save_interval", "2")
    assert [(name, step) for name, phase, step, _ in run.saved if name == "checkpoint"] == [
        ("checkpoint", 2),
        ("checkpoint", 4),
        ("checkpoint", 5),  # before the cut
    ]
    assert [name for name, *_ in run.saved].count("checkpoint_just_finished_update_reg") == 1


def test_observers_are_called_before_every_step(data):
    observer = StepObserver()
    _, _, _, pruner = run_prune_phase(data, 4, 0, observers=[observer])
    assert observer.steps == pruner.steps


def test_progress_lines_follow_print_interval(data):
    _, run, _, _ = run_prune_phase(data, 5, 0, "--print_interval", "2")
    steps = [re.search(r"step (\d+)/5", line)[1] for line in run.lines]
    assert steps == ["1", "2", "4"]
    assert [values["lr"] for _, _, values in run.values] == 3 * [0.001]


def test_non_finite_loss_stops_the_prune_phase(data):
    with pytest.raises(DivergedError, match="step"):
        run_prune_phase(data, 50, 0, "--lr_prune", "1e30", "--print_interval", "1")


# fine-tuning


def finetune(data, *words, net=None, hooks=None):
    torch.manual_seed(0)
    net, run = net or small_net(), Recorder("--batch_size", "4", *words)
    phase = FinetunePhase(run.options, data, run.record.finetuning, "train", torch.device("cpu"))
    train(net, data, hooks or NoHooks(), phase, run)
    return run.record.finetuning, net, run, run.record.counters


def test_every_epoch_trains_on_every_image_once_and_ends_with_a_test(data):
    batches = []
    net = small_net()
    net.register_forward_pre_hook(lambda module, args: batches.append((module.training, len(args[0]))))
    done, _, _, counters = finetune(data, "--epochs", "2", net=net)
    assert batches == 2 * [(True, 4), (True, 4), (True, 2), (False, 5)]
    assert counters.iterations == {"finetune": 6}
    assert len(done.acc1) == 2


def test_the_learning_rate_changes_at_its_epochs(data):
    rates = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    with contextlib.closing(SimpleNamespace(close=hook.remove)):
        finetune(data, "--epochs", "4", "--lr_ft", "0:0.1,1:0.01,3:0.001")
    assert rates == 3 * [0.1] + 6 * [0.01] + 3 * [0.001]


class Scripted(nn.Module):
    """Network without learning whose tests on four images give scripted numbers of correct ones."""

    def __init__(self, n_correct):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.script = iter(n_correct)

    def forward(self, images):
        outputs = torch.zeros(len(images), 2) + self.weight
        if not self.training:
            outputs = outputs + torch.tensor([0.0, 1.0])  # class 1
            outputs[: next(self.script)] = torch.tensor([1.0, 0.0])
        return outputs


@pytest.fixture
def four_images(make_data, random_images):
    images, _ = random_images(4)
    return make_data((images, torch.zeros(4).long()), classes=2)


@pytest.mark.parametrize(
    ("n_correct", "best_epoch", "best", "kept"),
    [
        ([1, 3, 2, 3], 1, 75.0, [1, 2]),
        ([4, 4, 4], 0, 100.0, [1]),
        ([0, 0], 0, 0.0, [1]),
        ([1, 2, 3], 2, 75.0, [1, 2, 3]),
    ],
)
def test_the_best_epoch_is_the_first_with_the_highest_accuracy(n_correct, best_epoch, best, kept, four_images):
    epochs = str(len(n_correct))
    done, _, run, _ = finetune(four_images, "--epochs", epochs, "--lr_ft", "0:0.1", net=Scripted(n_correct))
    assert (done.best_epoch, done.best) == (best_epoch, best)
    assert done.acc1 == [25.0 * right for right in n_correct]
    assert done.last == 25.0 * n_correct[-1]
    assert [epoch for name, _, _, epoch in run.saved if name == "checkpoint_best"] == kept
    assert [epoch for name, _, _, epoch in run.saved if name == "checkpoint"] == list(range(1, len(n_correct) + 1))
    assert run.pruned_saved == len(kept)


def test_with_held_out_images_they_choose_the_best_epoch_and_its_test_accuracy_is_reported():
    done = FinetuneMetrics()
    best = [done.add({"acc1": test}, {"acc1": val}) for test, val in ((50, 30), (90, 20), (60, 40), (95, 40))]
    assert best == [True, False, True, False]
    assert (done.best_epoch, done.best, done.last) == (2, 60, 95)


def test_last_epochs_averages_at_most_all_epochs():
    done = FinetuneMetrics(acc1=[10.0, 70.0, 90.0], best_epoch=2)
    assert done.last_epochs(2) == (80.0, 10.0)
    assert done.last_epochs(1) == (90.0, 0.0)
    assert done.last_epochs(5)[0] == pytest.approx(170 / 3)


def test_without_epochs_there_is_no_best_and_no_last(data):
    done, *_, counters = finetune(data, "--epochs", "0")
    assert (done.best, done.best_epoch, done.last, done.last_epochs(5)) == (None, None, None, None)
    assert not counters.iterations["finetune"]


def test_non_finite_loss_stops_finetuning(data):
    with pytest.raises(DivergedError, match="learning rate"):
        finetune(data, "--epochs", "4", "--lr_ft", "0:1e30", "--print_freq", "1")


def test_non_finite_loss_stops_finetuning_even_if_no_line_is_due(data):
    with pytest.raises(DivergedError):
        finetune(data, "--epochs", "4", "--lr_ft", "0:1e30", "--print_freq", "100000")


def test_masked_weights_are_zero_after_every_step(data):
    net = small_net()
    mask = torch.rand_like(net[0].weight) < 0.5
    largest = []

    class Recording(WeightMasks):
        def after_step(self):
            super().after_step()
            largest.append(net[0].weight[~mask].abs().max().item())

    finetune(data, "--epochs", "2", net=net, hooks=Recording(net, {"0": mask}))
    assert set(largest) == {0.0}
    assert len(largest) >= 6
    assert net[0].weight[mask].abs().min() > 0


def test_sgd_decays_every_parameter_and_lenets_use_adam_without_decay(data, monkeypatch):
    made = []
    for name in ("SGD", "Adam"):
        kind = getattr(torch.optim, name)
        original = kind.__init__

        def init(self, *args, original=original, **kwargs):
            original(self, *args, **kwargs)
            made.append(self)

        monkeypatch.setattr(kind, "__init__", init)
    _, net, _, _ = finetune(data, "--epochs", "1", "--wd", "0.25", "--momentum", "0.5", "--lr_ft", "0:0.125")
    finetune(data, "--epochs", "1", "--arch", "lenet5", "--wd", "0.25", "--lr", "0.0625")
    sgd, adam = made
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"], sgd.defaults["lr"]) == (0.5, 0.25, 0.125)
    (group,) = sgd.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters()}
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["weight_decay"]) == (0.01, 0)


# save intervals


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_save_interval_in_steps():
    timer = SaveTimer(SaveInterval("3"))
    assert [step for step in range(1, 10) if timer.by_steps(step)] == [3, 6, 9]
    assert not timer.by_clock()


def test_save_interval_in_minutes(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(monitor_module, "time", SimpleNamespace(monotonic=clock))
    timer = SaveTimer(SaveInterval("0.5m"))
    answers = []
    for seconds in (10, 15, 10, 10, 19, 5):  # 10, 25, 35: due, then 10, 29, 34 since: due
        clock.now += seconds
        answers.append(timer.by_clock())
        if answers[-1]:
            timer.saved()
    assert not timer.by_steps(1)
    assert answers == [False, False, True, False, False, True]


# progress


def test_progress_without_a_terminal_is_lines_with_rate_and_remaining_time(monkeypatch):
    clock, lines = Clock(), []
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=clock))
    with contextlib.closing(Progress("prune", 10, 2, lines.append, PhaseCounters(), "prune")) as progress:
        for _ in range(4):
            clock.now += 1
            progress.count(5, {"loss": 1.25, "lambda": 0.0003} if progress.due() else None)
    assert lines == [
        "prune  step 1/10  loss 1.25  lambda 0.0003  5 img/s  00:09 left",
        "prune  step 2/10  loss 1.25  lambda 0.0003  5 img/s  00:08 left",
        "prune  step 4/10  loss 1.25  lambda 0.0003  5 img/s  00:06 left",
    ]


@pytest.mark.parametrize("seconds_per_step", [0.01, 1, 7, 14.9, 25, 100])
@pytest.mark.parametrize("done", [0, 500])
def test_the_first_step_has_a_line_and_later_lines_are_at_most_30_s_apart(seconds_per_step, done, monkeypatch):
    clock, at, lines = Clock(), [], []
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=clock))
    with contextlib.closing(Progress("prune", 10**6, 10**6, lines.append, PhaseCounters(), "prune", done)) as progress:
        for _ in range(max(int(200 / seconds_per_step), 5)):
            clock.now += seconds_per_step
            due = progress.due()
            progress.count(5, {"loss": 1.25} if due else None)
            at += [clock.now] * due
    assert f"step {done + 1}/" in lines[0]
    assert len(at) == len(lines)
    assert max(later - at for at, later in itertools.pairwise(at)) <= max(30, seconds_per_step)
    assert len(lines) <= 1 + 200 / 15 or seconds_per_step > 15
    assert all("img/s" in line and line.endswith(" left") for line in lines)


def test_paused_time_is_not_counted(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=clock))
    with contextlib.closing(Progress("prune", 2, 1, lambda line: None, PhaseCounters(), "prune")) as progress:
        clock.now += 2
        progress.count(10)
        with progress.paused():
            clock.now += 1000
        clock.now += 2
        progress.count(10)
    assert progress.images_per_second == 5


def test_progress_on_a_terminal_is_a_bar_without_lines(monkeypatch):
    terminal, lines = io.StringIO(), []
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with contextlib.closing(Progress("prune", 4, 1, lines.append, PhaseCounters(), "prune")) as progress:
        for _ in range(4):
            progress.count(5, {"loss": 1.25})
    assert not lines
    assert "prune" in terminal.getvalue()


def test_seconds_are_counted_by_phase():
    counters = PhaseCounters()
    for _ in range(2):
        with counters.timed("cut"):
            pass
    assert list(counters.seconds) == ["cut"]
    assert counters.seconds["cut"] > 0
