"""Commands that print a result and write nothing: ``--plan`` and ``--evaluate``."""

import json
import logging

import torch

from data import DataSource
from model import cost_of
from utils.config.options import Options
from utils.engine.evaluate import evaluate
from utils.pipeline.base_model import load_base_model, log_notices
from utils.pipeline.plan import Planned
from utils.pipeline.run_data import check_trained_on, load_data
from utils.reporting.console import show
from utils.reporting.tables import evaluation_table, plan_table

log = logging.getLogger("pruning")


def print_plan(options: Options, planned: Planned, notes: list[str]) -> None:
    """Print ``--plan`` as text or JSON, with `notes` on errors that would stop a run."""
    if options.plan == "text":
        show(plan_table(planned.values, notes))
        return
    show(json.dumps(planned.values))
    for note in notes:
        log.warning("note: %s", note)


def print_evaluation(options: Options, source: DataSource, device: torch.device) -> None:
    """Print ``--evaluate``: accuracy and costs of a network. All ranks call this together.

    Raises:
        ValueError: the weights or classes do not fit the data.
    """
    base = load_base_model(options, source.spec)
    model, data = base.model.to(device), load_data(source, options, device)
    log_notices(base.notices + check_trained_on(base, data))
    accuracy = evaluate(model, data.test_batches())
    cost = cost_of(model, source.spec.channels, source.spec.size)
    show(evaluation_table(str(base.source), source.spec.name, accuracy, cost, base.masks))
