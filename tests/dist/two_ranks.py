"""Run by test_distributed.py under torchrun; each rank writes its results to rank<N>of<M>.pt."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F

from data import Data, DataSpec
from data.in_memory import ArraySplit
from model import build_model
from pruner import PRUNERS, Pruner, PruningContext, make_plan
from pruner.layers import layers_of
from utils.config.cli import parse
from utils.dist import process_group
from utils.dist.consensus import ConsensusError, RankConsensus
from utils.engine.evaluate import evaluate
from utils.engine.phases import PrunePhase
from utils.engine.train import train, train_step
from utils.engine.update import Update
from utils.reporting.run_dir import Run

CPU = torch.device("cpu")
GREG2 = """--dataset digits --arch resnet20 --method GReg-2 --seed 0 --batch_size_prune 8 --lr_prune 0.05
    --update_reg_interval 1 --reg_granularity_pick 0.002 --reg_granularity_prune 0.2 --stabilize_reg_interval 2
    --stage_pr [0,0.5,0.5,0.5,0]"""


def images_of(n: int, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 1, size, size), generator=generator, dtype=torch.uint8), torch.arange(n) % 6


def data_of(n: int, size: int, shard) -> Data:
    spec = DataSpec("made", 6, 1, size, (0.5,), (0.25,), pad=2)
    return Data(spec, *(ArraySplit(*images_of(n, size), spec, CPU) for _ in range(2)), seed=0, shard=shard)


def pruned_by_greg_2(data: Data) -> tuple[torch.nn.Module, Pruner]:
    """Return a network with batch norm and its pruner after GReg-2's prune phase."""
    options, _ = parse(GREG2.split())
    torch.manual_seed(0)
    model = build_model("resnet20", 6, 1, 16)
    plan = make_plan(layers_of(model), options.stage_pr, "", "filter")
    method = PRUNERS["GReg-2"]
    context = PruningContext(model, plan, method.make_schedule(options, plan))
    pruner = method.build(options, context)
    train(model, data, pruner, PrunePhase(options, pruner, pruner.schedule.cut_after_step + 1), Run(options))
    return model, pruner


def gradients_of_a_short_batch(data: Data) -> dict[str, torch.Tensor]:
    """Return gradients of a network without batch norm at the third step of an epoch of 11 images in batches of 4."""
    torch.manual_seed(0)
    model = build_model("lenet5", 6, 1, 32)
    net = process_group.wrap_ddp(model)
    update = Update(torch.optim.SGD(model.parameters(), 0.0), Pruner())
    for step, (images, labels, _) in zip(range(3), data.train_batches(4, "x"), strict=False):
        scale = process_group.loss_scale(min(4, 11 - 4 * step))
        train_step(net, images, labels, update, step, scale)
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def consensus_error() -> str:
    """Return the error raised one step after the ranks' fingerprints differ."""
    consensus = RankConsensus()
    consensus.exchange(0, False, 7)
    consensus.exchange(0, False, 7 + process_group.shard().rank)
    try:
        consensus.exchange(0, False, 7)
    except ConsensusError as error:
        return str(error)
    return "no error"


def exchanged_signals() -> list[tuple[int, bool]]:
    """Return the values received in four steps; rank 1 sends signal 15 at the second step, and a due save at the third."""
    consensus = RankConsensus()
    second = process_group.shard().rank == 1
    received = [consensus.exchange(15 * (second and step == 1), second and step == 2, 1) for step in range(4)]
    return [*received, consensus.close(0)]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    process_group.init_process_group(CPU)
    shard = process_group.shard()
    model, pruner = pruned_by_greg_2(data_of(20, 16, shard))
    torch.manual_seed(0)
    lenet = build_model("lenet5", 6, 1, 32)
    results = {
        "of": shard.world_size,
        "model": model.state_dict(),
        "fingerprint": pruner.fingerprint(),
        "penalties": {layer.name: layer.penalty for layer in pruner.layers},
        "kept": pruner.kept(),
        "gradients": gradients_of_a_short_batch(data_of(11, 32, shard)),
        "accuracy": evaluate(lenet, data_of(11, 32, shard).test_batches()),
        "consensus_error": consensus_error() if shard.world_size > 1 else "",
        "signal": exchanged_signals(),
        "loss": F.cross_entropy(torch.zeros(1, 6), torch.zeros(1).long()).item(),
    }
    torch.save(results, folder / f"rank{shard.rank}of{shard.world_size}.pt")
    process_group.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
