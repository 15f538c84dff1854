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

from pruner import NoHooks, Pruner, WeightMasks
from utils.checkpoint.record import FinetuneMetrics, PhaseCounters
from utils.config.cli import parse
from utils.config.types import SaveInterval
from utils.engine import monitor as watch_module
from utils.engine import progress as progress_module
from utils.engine.evaluate import evaluate, reestimated_acc1
from utils.engine.monitor import DivergedError, SaveTimer
from utils.engine.phases import FinetunePhase, PrunePhase
from utils.engine.progress import Progress
from utils.engine.train import train, train_step
from utils.reporting.run_dir import Run


def settings(*words):
    return parse(["--dataset", "digits", "--arch", "resnet20", "--method", "GReg-1", "--seed", "0", *words])[0]


class Recorder(Run):
    """Takes what a run directory takes."""

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


class Looking:
    """Sees steps."""

    def __init__(self):
        self.seen = []

    def observe(self, step):
        self.seen.append(step)


def small_net(classes=3, dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(144, classes)
    )


class Logits(nn.Module):
    """Gives its images back as outputs: what a test sees is what was put into the images."""

    def forward(self, images):
        return images.flatten(1)


class StepsToGo(Pruner):
    """Asks for `growing` steps under one name and `still` under another, and writes down how it finds the model."""

    def __init__(self, model, growing, still=0):
        self.model, self.growing, self.still = model, growing, still
        self.steps, self.modes = [], []

    @property
    def status(self):
        return "growing" if len(self.steps) < self.growing else "stabilizing"

    @property
    def finished(self):
        return len(self.steps) >= self.growing + self.still

    def before_step(self, step):
        self.steps.append(step)
        self.modes += [module.training for module in self.model.modules()]


# tests


def ranked(*best_first, classes):
    """Outputs that rank the classes so."""
    outputs = torch.zeros(classes)
    for place, label in enumerate(best_first):
        outputs[label] = 10 - place
    return outputs


def test_accuracy_counts_the_first_and_the_first_five():
    outputs = torch.stack([
        ranked(0, classes=7),  # right
        ranked(3, 2, classes=7),  # second
        ranked(0, 1, 2, 3, 4, classes=7),  # fifth
        ranked(0, 1, 2, 3, 4, 5, classes=7),  # sixth
    ])  # fmt: skip
    labels = torch.tensor([0, 2, 4, 5])
    found = evaluate(Logits(), [(outputs[:3], labels[:3]), (outputs[3:], labels[3:])])
    assert (found["acc1"], found["acc5"]) == (25.0, 75.0)
    expected = nn.functional.cross_entropy(outputs, labels).item()
    assert found["loss"] == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "has_acc5"), [(2, False), (5, False), (6, True)])
def test_the_first_five_are_counted_only_among_more_than_five(classes, has_acc5):
    found = evaluate(Logits(), [(torch.eye(classes), torch.arange(classes))])
    assert ("acc5" in found) is has_acc5
    assert found["acc1"] == 100


def test_each_image_of_a_last_short_batch_counts_like_any_other(random_images, make_data):
    images, labels = random_images(257, classes=3)
    data = make_data((images, labels), classes=3)
    net = small_net()
    whole = evaluate(net, [(torch.cat([part for part, *_ in data.test_batches()]), labels)])
    assert evaluate(net, data.test_batches()) == pytest.approx(whole)


@pytest.mark.parametrize("training", [True, False])
def test_a_test_leaves_every_module_in_the_mode_it_was_in(training, random_images, make_data):
    net = small_net().train(training)
    before = copy.deepcopy(net.state_dict())
    evaluate(net, make_data(random_images(6, classes=3)).test_batches())
    assert {module.training for module in net.modules()} == {training}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_test_is_made_in_eval_mode():
    seen = []
    net = Logits()
    net.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(net.train(), [(torch.eye(3), torch.arange(3))])
    assert seen == [False]


@pytest.mark.parametrize("training", [True, False])
def test_re_estimated_accuracy_changes_nothing(training, random_images, make_data):
    net = small_net().train(training)
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    reestimated_acc1(net, make_data(random_images(40, classes=3), random_images(10, classes=3)))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert {module.training for module in net.modules()} == {training}
    assert torch.equal(generator, torch.get_rng_state())


def test_re_estimated_accuracy_draws_no_random_numbers_from_dropout(random_images, make_data):
    net, data = small_net(dropout=0.5), make_data(random_images(40, classes=3))
    generator = torch.get_rng_state()
    reestimated_acc1(net, data)
    assert torch.equal(generator, torch.get_rng_state())


def brightness_task():
    """Two classes, dark and bright, and a net that tells them by whether the normalised brightness is positive."""
    images = torch.cat([torch.full((20, 1, 2, 2), 40), torch.full((20, 1, 2, 2), 200)]).to(torch.uint8)
    norm = nn.BatchNorm2d(1)
    read = nn.Linear(1, 2)
    with torch.no_grad():
        read.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        read.bias.zero_()
    return (images, torch.arange(40) // 20), nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), read)


def test_re_estimated_accuracy_is_that_of_fresh_statistics(make_data):
    images, net = brightness_task()
    data = make_data(images, classes=2)
    net[0].running_mean.fill_(50.0)  # every image looks dark
    assert evaluate(net, data.test_batches())["acc1"] == 50
    assert reestimated_acc1(net, data) == 100


def test_a_network_without_batch_norm_is_the_same_re_estimated(random_images, make_data):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    data = make_data(random_images(20, classes=3))
    assert reestimated_acc1(net, data) == evaluate(net, data.test_batches())["acc1"]


# one step


def test_a_step_asks_the_pruner_at_its_four_places():
    happened = []
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda *_: happened.append("forward"))
    net.weight.register_hook(lambda _: happened.append("backward"))

    class Watching(Pruner):
        def before_step(self, step):
            happened.append(f"before step {step}")

        def after_backward(self):
            happened.append(f"after backward, {'with' if net.weight.grad is not None else 'without'} gradient")

        def after_step(self):
            happened.append("after step")

    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.register_step_pre_hook(lambda *_: happened.append("update"))
    train_step(net, torch.ones(3, 2), torch.zeros(3).long(), optimizer, Watching(), 7)
    assert happened == ["before step 7", "forward", "backward", "after backward, with gradient", "update", "after step"]


def test_a_step_uses_the_gradient_of_its_own_batch_alone():
    torch.manual_seed(0)
    net, batch, labels = nn.Linear(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    twin = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for step in range(2):
        loss, outputs = train_step(net, batch, labels, optimizer, Pruner(), step)
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


def pruned_for(data, growing, still, *words, observers=()):
    net, run = small_net(), Recorder("--batch_size_prune", "4", *words)
    pruner = StepsToGo(net, growing, still)
    train(net, data, pruner, PrunePhase(run.options, pruner, growing + still, observers), run)
    return net, run, run.record.counters, pruner


def test_the_prune_phase_lasts_until_the_pruner_has_finished_and_counts_steps_across_epochs(data):
    _, _, tally, pruner = pruned_for(data, 5, 2)
    assert pruner.steps == list(range(7))
    assert sum(tally.iterations.values()) == 7
    assert set(tally.iterations) == {"update", "stabilise"}
    assert set(tally.seconds) == {"update", "stabilise"}
    assert tally.images_per_second["prune"] > 0


def test_a_pruner_that_has_finished_before_it_starts_trains_nothing(data):
    net, run = small_net(), Recorder()
    before = copy.deepcopy(net.state_dict())
    pruner = Pruner()
    train(net, data, pruner, PrunePhase(run.options, pruner, 0), run)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not run.record.counters.iterations


def test_batch_norm_is_in_training_mode_at_every_step_though_tests_come_between(data):
    net, run, _, pruner = pruned_for(data, 6, 0, "--test_interval", "2")
    assert all(pruner.modes)
    assert net.training
    assert [step for phase, step, values in run.values if "test_acc1" in values] == [1, 3, 5]
    assert sum("test acc1" in line for line in run.lines) == 3


def test_tests_and_lines_inside_the_prune_phase_do_not_change_its_result(data):
    results = []
    for words in ((), ("--test_interval", "1", "--print_interval", "1", "--save_interval", "1")):
        torch.manual_seed(0)
        results.append(pruned_for(data, 5, 0, *words)[0].state_dict())
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())


def test_a_checkpoint_is_written_every_so_many_steps_and_where_the_phase_changes(data):
    _, run, _, _ = pruned_for(data, 3, 2, "--save_interval", "2")
    assert [(name, step) for name, phase, step, _ in run.saved if name == "checkpoint"] == [
        ("checkpoint", 2),
        ("checkpoint", 4),
        ("checkpoint", 5),  # before the cut
    ]
    assert [name for name, *_ in run.saved].count("checkpoint_just_finished_update_reg") == 1


def test_observers_see_every_step_before_it_is_made(data):
    looking = Looking()
    _, _, _, pruner = pruned_for(data, 4, 0, observers=[looking])
    assert looking.seen == pruner.steps


def test_lines_of_progress_come_every_so_many_steps(data):
    _, run, _, _ = pruned_for(data, 5, 0, "--print_interval", "2")
    steps = [re.search(r"step (\d+)/5", line)[1] for line in run.lines]
    assert steps == ["1", "2", "4"]
    assert [values["lr"] for _, _, values in run.values] == 3 * [0.001]


def test_a_prune_phase_whose_loss_is_no_number_is_given_up(data):
    with pytest.raises(DivergedError, match="step"):
        pruned_for(data, 50, 0, "--lr_prune", "1e30", "--print_interval", "1")


# fine-tuning


def tuned(data, *words, net=None, hooks=None):
    torch.manual_seed(0)
    net, run = net or small_net(), Recorder("--batch_size", "4", *words)
    phase = FinetunePhase(run.options, data, run.record.finetuning, "train", torch.device("cpu"))
    train(net, data, hooks or NoHooks(), phase, run)
    return run.record.finetuning, net, run, run.record.counters


def test_every_epoch_shows_every_image_once_and_ends_with_a_test(data):
    batches = []
    net = small_net()
    net.register_forward_pre_hook(lambda module, args: batches.append((module.training, len(args[0]))))
    done, _, _, tally = tuned(data, "--epochs", "2", net=net)
    assert batches == 2 * [(True, 4), (True, 4), (True, 2), (False, 5)]
    assert tally.iterations == {"finetune": 6}
    assert len(done.acc1) == 2


def test_the_learning_rate_changes_at_its_epochs_and_the_last_one_is_reached(data):
    rates = []
    watch = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    with contextlib.closing(SimpleNamespace(close=watch.remove)):
        tuned(data, "--epochs", "4", "--lr_ft", "0:0.1,1:0.01,3:0.001")
    assert rates == 3 * [0.1] + 6 * [0.01] + 3 * [0.001]


class Scripted(nn.Module):
    """Learns nothing; its tests on four images come out as they are told to, one after the other."""

    def __init__(self, right_of_four):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.script = iter(right_of_four)

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
    ("right_of_four", "best_epoch", "best", "kept"),
    [
        ([1, 3, 2, 3], 1, 75.0, [1, 2]),
        ([4, 4, 4], 0, 100.0, [1]),
        ([0, 0], 0, 0.0, [1]),
        ([1, 2, 3], 2, 75.0, [1, 2, 3]),
    ],
)
def test_the_best_epoch_is_the_first_with_the_highest_accuracy(right_of_four, best_epoch, best, kept, four_images):
    epochs = str(len(right_of_four))
    done, _, run, _ = tuned(four_images, "--epochs", epochs, "--lr_ft", "0:0.1", net=Scripted(right_of_four))
    assert (done.best_epoch, done.best) == (best_epoch, best)
    assert done.acc1 == [25.0 * right for right in right_of_four]
    assert done.last == 25.0 * right_of_four[-1]
    assert [epoch for name, _, _, epoch in run.saved if name == "checkpoint_best"] == kept
    assert [epoch for name, _, _, epoch in run.saved if name == "checkpoint"] == list(range(1, len(right_of_four) + 1))
    assert run.pruned_saved == len(kept)


def test_with_images_held_out_the_best_epoch_is_theirs_and_its_test_accuracy_is_reported():
    done = FinetuneMetrics()
    best = [done.add({"acc1": test}, {"acc1": val}) for test, val in ((50, 30), (90, 20), (60, 40), (95, 40))]
    assert best == [True, False, True, False]
    assert (done.best_epoch, done.best, done.last) == (2, 60, 95)


def test_the_last_epochs_are_averaged_over_no_more_than_there_were():
    done = FinetuneMetrics(acc1=[10.0, 70.0, 90.0], best_epoch=2)
    assert done.last_epochs(2) == (80.0, 10.0)
    assert done.last_epochs(1) == (90.0, 0.0)
    assert done.last_epochs(5)[0] == pytest.approx(170 / 3)


def test_no_epoch_leaves_no_best_and_no_last(data):
    done, *_, tally = tuned(data, "--epochs", "0")
    assert (done.best, done.best_epoch, done.last, done.last_epochs(5)) == (None, None, None, None)
    assert not tally.iterations["finetune"]


def test_a_loss_that_is_no_number_ends_fine_tuning(data):
    with pytest.raises(DivergedError, match="learning rate"):
        tuned(data, "--epochs", "4", "--lr_ft", "0:1e30", "--print_freq", "1")


def test_a_loss_that_is_no_number_ends_fine_tuning_though_no_line_was_due(data):
    with pytest.raises(DivergedError):
        tuned(data, "--epochs", "4", "--lr_ft", "0:1e30", "--print_freq", "100000")


def test_masked_weights_are_zero_after_every_step(data):
    net = small_net()
    mask = torch.rand_like(net[0].weight) < 0.5
    seen = []

    class Watching(WeightMasks):
        def after_step(self):
            super().after_step()
            seen.append(net[0].weight[~mask].abs().max().item())

    tuned(data, "--epochs", "2", net=net, hooks=Watching(net, {"0": mask}))
    assert set(seen) == {0.0}
    assert len(seen) >= 6
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
    _, net, _, _ = tuned(data, "--epochs", "1", "--wd", "0.25", "--momentum", "0.5", "--lr_ft", "0:0.125")
    tuned(data, "--epochs", "1", "--arch", "lenet5", "--wd", "0.25", "--lr", "0.0625")
    sgd, adam = made
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"], sgd.defaults["lr"]) == (0.5, 0.25, 0.125)
    (group,) = sgd.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters()}
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["weight_decay"]) == (0.01, 0)


# when to save


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_save_is_due_every_so_many_steps():
    due = SaveTimer(SaveInterval("3"))
    assert [step for step in range(1, 10) if due.by_steps(step)] == [3, 6, 9]
    assert not due.by_clock()


def test_a_save_is_due_every_so_many_minutes(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=clock))
    due = SaveTimer(SaveInterval("0.5m"))
    answers = []
    for seconds in (10, 15, 10, 10, 19, 5):  # 10, 25, 35: due, then 10, 29, 34 since: due
        clock.now += seconds
        answers.append(due.by_clock())
        if answers[-1]:
            due.saved()
    assert not due.by_steps(1)
    assert answers == [False, False, True, False, False, True]


# progress


def test_progress_off_a_terminal_is_lines_with_rate_and_remaining_time(monkeypatch):
    clock, lines = Clock(), []
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=clock))
    with Progress("prune", 10, 2, lines.append, PhaseCounters(), "prune") as progress:
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
def test_the_first_step_is_shown_and_then_no_half_minute_passes_without_a_line(seconds_per_step, done, monkeypatch):
    clock, at, lines = Clock(), [], []
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=clock))
    with Progress("prune", 10**6, 10**6, lines.append, PhaseCounters(), "prune", done) as progress:
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


def test_time_spent_in_tests_is_not_counted_as_training(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=clock))
    with Progress("prune", 2, 1, lambda line: None, PhaseCounters(), "prune") as progress:
        clock.now += 2
        progress.count(10)
        with progress.paused():
            clock.now += 1000
        clock.now += 2
        progress.count(10)
    assert progress.images_per_second == 5


def test_progress_on_a_terminal_is_a_bar_and_no_lines(monkeypatch):
    terminal, lines = io.StringIO(), []
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("prune", 4, 1, lines.append, PhaseCounters(), "prune") as progress:
        for _ in range(4):
            progress.count(5, {"loss": 1.25})
    assert not lines
    assert "prune" in terminal.getvalue()


def test_seconds_are_tallied_by_phase():
    tally = PhaseCounters()
    for _ in range(2):
        with tally.timed("cut"):
            pass
    assert list(tally.seconds) == ["cut"]
    assert tally.seconds["cut"] > 0
