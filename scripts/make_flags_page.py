#!/usr/bin/env python3
"""Write docs/flags.md from the options: python scripts/make_flags_page.py"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.config.cli import build_parser

PAGE = Path(__file__).resolve().parent.parent / "docs" / "flags.md"
HEAD = """# Flags

The same as `python main.py --help`; `python scripts/make_flags_page.py` writes this page.
"""


def flags_page() -> str:
    """Return the page: a table per section of ``--help``."""
    parser = build_parser()
    parts = [HEAD]
    for group in parser._action_groups[1:]:  # the first is for positional arguments, of which there are none
        rows = [row(action) for action in group._group_actions if action.help != argparse.SUPPRESS]
        title = (group.title or "").capitalize() if group.title == "options" else group.title
        parts.append("\n".join([f"## {title}\n", "| flag | meaning |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def row(action: argparse.Action) -> str:
    """Return one flag as a row of the table."""
    metavar = f" {action.metavar}" if isinstance(action.metavar, str) else ""
    if action.nargs == "?":
        metavar = f" [{metavar.strip()}]"
    flags = ", ".join(f"`{name}`" for name in action.option_strings[:-1])
    last = f"`{action.option_strings[-1]}{metavar}`".replace("|", "\\|")
    help_text = (action.help or "").replace("%%", "%").replace("|", "\\|").replace("*", "\\*")
    return f"| {flags}{', ' if flags else ''}{last} | {help_text} |"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(flags_page(), encoding="utf-8")
