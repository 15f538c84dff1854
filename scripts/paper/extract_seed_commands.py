#!/usr/bin/env python3
"""Print the command lines of the seed's README: python scripts/paper/extract_seed_commands.py README.md > FILE"""

import argparse


def commands(text: str) -> list[str]:
    """Return every line that runs ``main.py``, unchanged."""
    return [line for line in text.splitlines() if "python main.py" in line and not line.startswith("#")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readme", metavar="README.md", type=argparse.FileType(encoding="utf-8"))
    print("\n".join(commands(parser.parse_args().readme.read())))
