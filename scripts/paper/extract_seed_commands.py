#!/usr/bin/env python3
"""Print the command lines of the seed's README: python scripts/paper/extract_seed_commands.py README.md > FILE"""

import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    """Return every line that runs ``main.py``, unchanged."""
    return [line for line in text.splitlines() if "python main.py" in line and not line.startswith("#")]


if __name__ == "__main__":
    print("\n".join(commands(Path(sys.argv[1]).read_text())))
