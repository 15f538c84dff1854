"""Piecewise-constant learning rates by epoch. Pure functions."""

import math


def parse_lr_schedule(text: str) -> dict[int, float]:
    """Parse ``0:0.1,100:0.01`` or ``{0:0.1, 100:0.01}``, with or without a trailing comma.

    Returns:
        start epoch -> learning rate, in order.

    Raises:
        ValueError: names the part that cannot be read.
    """
    inner = text.strip()
    if inner[:1] + inner[-1:] == "{}":
        inner = inner[1:-1].strip()
    rates: dict[int, float] = {}
    for entry in inner.removesuffix(",").split(","):
        epoch, _, rate = entry.partition(":")
        try:
            key, value = int(epoch), float(rate)
        except ValueError:
            raise ValueError(f"'{entry.strip()}' is not of the form epoch:rate, such as 30:0.001") from None
        if key < 0 or not math.isfinite(value) or value < 0:
            raise ValueError(f"'{entry.strip()}' needs an epoch and a rate from 0 up")
        if key in rates:
            raise ValueError(f"'{entry.strip()}' names epoch {key} a second time")
        if rates and key < max(rates):
            raise ValueError(f"'{entry.strip()}' comes after epoch {max(rates)}: give the epochs in order")
        rates[key] = value
    return rates


class LrSchedule(str):
    """A schedule as typed, parsed into ``rates`` (start epoch -> learning rate).

    Raises:
        ValueError: names the part that cannot be read.
    """

    rates: dict[int, float]

    def __new__(cls, text: str) -> "LrSchedule":
        schedule = super().__new__(cls, text)
        schedule.rates = parse_lr_schedule(text)
        return schedule


def lr_at(rates: dict[int, float], epoch: int) -> float:
    """Return the rate of the last start up to `epoch`; before the first start, the first rate."""
    begun = [rate for start, rate in rates.items() if start <= epoch]
    return begun[-1] if begun else next(iter(rates.values()))


def learning_rates(options) -> dict[int, float]:
    """Return the rates of fine-tuning: ``--lr_ft``, or the default of the method.

    Plain training divides ``--lr`` by 10 at half and at three quarters of the epochs, rounded up to whole epochs.

    Source: the original's constants (the ImageNet schedule).
    """
    if options.lr_ft:
        return options.lr_ft.rates
    if options.method == "none":
        epochs = max(options.epochs, 1)
        starts = (0, math.ceil(epochs / 2), math.ceil(3 * epochs / 4))
        return {start: options.lr / 10**drop for drop, start in enumerate(starts) if start < epochs}
    return {0: 0.01, 30: 0.001, 60: 0.0001, 75: 0.00001}


def uses_adam(options) -> bool:
    """Whether fine-tuning uses Adam without weight decay. Source: the original's choice for LeNets."""
    return options.arch in ("lenet5", "lenet5_mini")


def schedule_notices(options, after_prune_phase: bool) -> list[str]:
    """Return notices on rates that are never used, and on a rise of the rate after pruning."""
    rates = learning_rates(options)
    notices = []
    late = [epoch for epoch in rates if epoch >= options.epochs > 0]
    if late:
        notices.append(
            f"learning rates from epoch {late[0]} on are never used: training ends after {options.epochs} epochs"
        )
    if after_prune_phase and options.epochs and lr_at(rates, 0) > options.lr_prune:
        notices.append(
            f"the learning rate goes up from {options.lr_prune:g} to {lr_at(rates, 0):g}: accuracy drops at first"
        )
    return notices
