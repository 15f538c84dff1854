"""Typed content of a checkpoint."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

VERSION = 2  # version 1 had no record and cannot be resumed


@dataclass
class Checkpoint:
    """A network and, if it has a phase, the state of a run. The fields are the keys of the file.

    Attributes:
        options: stored settings of the run, plain values.
        data: spec of its images: a ``DataSpec`` as plain values, and ``class_names``.
        kept: after the cut, layer name -> bool (groups,); empty before it and for single weights.
        masks: for pruned single weights, layer name -> bool of the weight's shape.
        model: the network's state dict.
        phase: ``prune`` or ``finetune``; None: a network without a run's state.
        step, epoch: steps and whole epochs made in `phase`.
        optimizer, pruner: their state dicts, or empty.
        rng: random state of each process, by rank.
        best: test accuracy and index of the best epoch.
        record: state of the run's ``Record``.
        identity: ``run_id``, ``fingerprint`` of the data and ``class_names``; None: written by an older version.
        observers: type name -> state of the prune phase's observers.
    """

    options: dict[str, Any]
    data: dict[str, Any]
    kept: dict[str, Tensor]
    masks: dict[str, Tensor]
    model: dict[str, Tensor]
    phase: str | None = None
    step: int = 0
    epoch: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    rng: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] | None = None
    observers: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def from_file(cls, content: dict[str, Any]) -> "Checkpoint":
        """Build from the validated content of a file; drop keys of later versions."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})

    def to_file(self) -> dict[str, Any]:
        """Return the content of the file; without a phase, only the network."""
        network = ("version", "options", "data", "kept", "masks", "model")
        names = network if self.phase is None else (f.name for f in fields(self))
        return {name: getattr(self, name) for name in names}

    @property
    def is_pruned(self) -> bool:
        return bool(self.kept or self.masks)

    def kept_groups(self) -> dict[str, Tensor]:
        """Return layer name -> bool (groups,) of the pruned layers: as cut or, before the cut, as selected by L1."""
        if self.is_pruned:
            return self.kept or {name: mask.flatten() for name, mask in self.masks.items()}
        return self.pruner.get("l1_picks", {})


@dataclass(frozen=True)
class ExternalWeights:
    """Weights of another tool's file.

    Attributes:
        model: a state dict.
        notices: on changes made to recognize it.
    """

    model: dict[str, Tensor]
    notices: list[str]


def random_state() -> dict[str, Any]:
    """Return the state of torch's global generators in this process."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the generators' state from ``random_state``."""
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)
