"""Test accuracy, with current or re-estimated batch-norm statistics."""

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from data import Batch, Data
from utils.dist.process_group import all_reduce_sum, broadcast_buffers, shard

Accuracy = dict[str, float]  # ``acc1`` and ``acc5``, percent, and ``loss``


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch | tuple[Tensor, Tensor]]) -> Accuracy:
    """Compute accuracy in percent, ``acc1`` and, with more than 5 classes, ``acc5``, and mean ``loss``.

    The train or eval mode of the model is restored. With several processes, each passes its share of the images and all
    get the same result.

    Args:
        batches: images (batch, channels, size, size) and labels (batch,).
    """
    training = model.training
    model.eval()
    sums: Tensor | None = None  # (4,): top-1 correct, top-5 correct, loss, images
    n_classes = 0
    for images, labels, *_ in batches:
        outputs = model(images)
        n_classes = outputs.shape[1]
        top5 = outputs.topk(min(5, n_classes)).indices == labels[:, None]  # (batch, 5)
        loss = F.cross_entropy(outputs, labels, reduction="sum")
        batch_sums = torch.stack([top5[:, 0].sum(), top5.sum(), loss, loss.new_tensor(len(labels))]).double()
        sums = batch_sums if sums is None else sums + batch_sums
    model.train(training)
    if sums is None:
        raise ValueError("no test images")
    top1, top5_correct, total_loss, n_images = all_reduce_sum(sums).tolist()
    accuracy = {"acc1": 100 * top1 / n_images}
    if n_classes > 5:
        accuracy["acc5"] = 100 * top5_correct / n_images
    return accuracy | {"loss": total_loss / n_images}


def reestimated_acc1(model: nn.Module, data: Data) -> float:
    """Compute test accuracy with batch-norm statistics re-estimated over the training images, on a copy.

    Source: ours; under a growing penalty running statistics lag behind the weights, and after a cut they
    still contain the constant outputs of the pruned channels.
    """
    clone = copy.deepcopy(model)
    device = next(model.parameters()).device
    # Rank 0's are broadcast below; synchronized batch norm needs all ranks, which see the same images.
    if shard().rank == 0 or any(isinstance(module, nn.SyncBatchNorm) for module in clone.modules()):
        # Dropout must not draw from the run's generator.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            update_bn((images for images, *_ in data.statistics_batches()), clone)
    broadcast_buffers(clone)
    return evaluate(clone, data.test_batches())["acc1"]
