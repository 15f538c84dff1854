"""Learning rates by epoch. Pure."""

import math


def parse_lr_schedule(text: str) -> dict[int, float]:
    """``0:0.1,100:0.01`` or ``{0:0.1, 100:0.01}`` -> epoch -> learning rate from then on, in order.

    A comma may end it.

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
            raise ValueError(f"'{entry.strip()}' is not an epoch and a rate from 0")
        if key in rates:
            raise ValueError(f"'{entry.strip()}' names epoch {key} a second time")
        if rates and key < max(rates):
            raise ValueError(f"'{entry.strip()}' comes after epoch {max(rates)}: give the epochs in order")
        rates[key] = value
    return rates


class LrSchedule(str):
    """A schedule as typed; ``rates`` is what it means.

    Raises:
        ValueError: names the part that cannot be read.
    """

    rates: dict[int, float]

    def __new__(cls, text: str) -> "LrSchedule":
        schedule = super().__new__(cls, text)
        schedule.rates = parse_lr_schedule(text)
        return schedule


def lr_at(rates: dict[int, float], epoch: int) -> float:
    """The rate of the last key up to `epoch`; before the first key, the first rate."""
    begun = [rate for start, rate in rates.items() if start <= epoch]
    return begun[-1] if begun else next(iter(rates.values()))


def learning_rates(options) -> dict[int, float]:
    """Of fine-tuning: ``--lr_ft``, or the default of the method and the network.

    Plain training divides ``--lr`` by 10 at half and at three quarters of the epochs, as far as they begin an epoch:
    of one, two and three epochs the last is the only one that may have another rate.

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
    """Whether fine-tuning is by Adam, without weight decay: the original's choice for LeNets."""
    return options.arch.startswith("lenet")


def schedule_notices(options, after_prune_phase: bool) -> list[str]:
    """What may surprise a reader of the log when fine-tuning begins."""
    rates = learning_rates(options)
    notices = []
    late = [epoch for epoch in rates if epoch >= options.epochs > 0]
    if late:
        notices.append(f"learning rates from epoch {late[0]} on are never reached in {options.epochs} epochs")
    if after_prune_phase and options.epochs and lr_at(rates, 0) > options.lr_prune:
        notices.append(
            f"the learning rate goes up from {options.lr_prune:g} to {lr_at(rates, 0):g}: accuracy drops at first"
        )
    return notices
