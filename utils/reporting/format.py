"""Format numbers and tables as text."""


def format_accuracy(accuracy: dict[str, float]) -> str:
    """Format accuracies as ``acc1 93.20  acc5 99.10``."""
    return "  ".join(f"{key} {accuracy[key]:.2f}" for key in ("acc1", "acc5") if key in accuracy)


def format_epochs(epochs: float) -> str:
    """Format as ``2,368 epochs``, ``1.6 epochs`` or ``1 epoch``."""
    number = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return f"{number} epoch{'' if number == '1' else 's'}"


def align_columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Pad cells to columns: the first left-aligned, the others right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
