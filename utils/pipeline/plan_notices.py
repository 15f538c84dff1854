"""Refusals and notices of a plan: untrained weights, long prune phases, files that a run would miss."""

from pruner import Plan
from utils.config.options import Options
from utils.config.paths import find_one
from utils.pipeline.plan import Planned
from utils.reporting.format import format_epochs


def refuse_untrained(options: Options, plan: Plan) -> None:
    """Refuse to prune untrained weights unless allowed.

    Raises:
        ValueError: untrained weights would be pruned without --allow_untrained.
    """
    trained = options.base_model_path or options.pretrained or options.directly_ft_weights
    if plan.pruned and not trained and not options.allow_untrained:
        raise ValueError(
            "no trained weights: pass --base_model_path FILE or --pretrained (torchvision's), or --allow_untrained to "
            "prune random weights"
        )


LONG_EPOCHS, SUGGESTED_EPOCHS = 300, 30  # length of the prune phase that gives a notice, and the suggested one
MIN_SUGGESTED_STEPS = 600  # RESULTS.md, part 1: after 626 steps a cut costs at most 2 points up to ratio 0.7


def length_notices(options: Options, planned: Planned) -> list[str]:
    """Return notices on a long prune phase, or one whose length differs from ``--prune_steps``."""
    steps, epochs = planned.values["iterations"]["prune"], planned.values["epochs"]["prune"]
    if steps and options.prune_steps:
        reason = "due to the other flags" if planned.plan.pruned else "since nothing is pruned"
        notice = f"--prune_steps {options.prune_steps}: the prune phase takes {steps} steps, {reason}"
        return [notice] if steps != options.prune_steps else []
    if not planned.plan.pruned or not epochs or epochs <= LONG_EPOCHS:
        return []
    shorter = max(round(SUGGESTED_EPOCHS * steps / epochs), MIN_SUGGESTED_STEPS)
    advice = f"--prune_steps {shorter} makes it {format_epochs(epochs * shorter / steps)}"
    return [f"the prune phase takes {format_epochs(epochs)} of your images; {advice}"] if shorter < steps else []


def plan_notes(options: Options, plan: Plan) -> list[str]:
    """Return notes on errors that would stop a run but not a plan."""
    try:
        refuse_untrained(options, plan)
        if options.base_model_path:
            find_one(options.base_model_path)
    except ValueError as error:
        return [f"a run would stop here: {error}"]
    return []
