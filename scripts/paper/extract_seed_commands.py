#!/usr/bin/env python3
"""The bare command lines of the seed's README, for tests/golden: python scripts/extract_seed_commands.py README.md"""

import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    """Every line that runs ``main.py``, as printed."""
    return [line for line in text.splitlines() if "python main.py" in line and not line.startswith("#")]


if __name__ == "__main__":
    print("\n".join(commands(Path(sys.argv[1]).read_text())))
