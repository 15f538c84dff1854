#!/usr/bin/env python3
"""Write one shell script per row of the paper's tables, from paper_rows.yaml and the commands in the seed's README.

Run it after a change of either; a test compares the committed scripts with its output.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
SEED_COMMANDS = HERE.parents[1] / "tests" / "golden" / "seed_commands.txt"
PRUNE_PHASE_FLAGS = ("--batch_size_prune", "--update_reg_interval", "--stabilize")


def seed_flags() -> dict[str, dict[str, str | None]]:
    """Return ``--project`` of each command of the seed -> its flags, in order; None for a flag without a value."""
    commands: dict[str, dict[str, str | None]] = {}
    for line in SEED_COMMANDS.read_text().splitlines():
        words = shlex.split(line)
        words = words[words.index("main.py") + 1 :]
        flags: dict[str, str | None] = {}
        for word in words:
            if word.startswith("-"):
                flags[word] = None
            else:
                flags[next(reversed(flags))] = word
        commands[str(flags["--project"])] = flags
    return commands


def rows() -> list[dict[str, Any]]:
    """Return the name, title, published figures and flags of each script."""
    seed, scripts = seed_flags(), []
    for entry in yaml.safe_load((HERE / "paper_rows.yaml").read_text()):
        flags = seed[entry["seed"]]
        if "rows" not in entry:
            if entry.get("own_base"):
                flags = {k: v for k, v in flags.items() if k != "--pretrained"}
                flags["--base_model_path"] = "${BASE:?a ResNet50 of about 75.40 %; the authors published none}"
            scripts.append(entry | {"flags": flags})
            continue
        for row in entry["rows"]:
            for method in ("L1", "GReg-1"):
                changed = dict(flags) | {
                    "--method": method,
                    "--stage_pr": entry["stage_pr"].format(pr=row["pr"]),
                    "--project": f"{method}__{flags.get('-a')}__{flags['--dataset']}__pr{row['pr']}",
                }
                if method == "L1":
                    changed = {k: v for k, v in changed.items() if k not in PRUNE_PHASE_FLAGS}
                scripts.append({
                    "name": f"{entry['name']}_pr{row['pr']}_{method}",
                    "title": f"{entry['title']}, ratio {row['pr']}, {method}",
                    "published": f"base {entry['base']}, pruned {row[method]} (3 runs), speedup {row['speedup']}x, "
                    f"sparsity {row['sparsity']} %",
                    "flags": changed,
                })  # fmt: skip
    return scripts


def script(row: dict[str, Any]) -> str:
    words = []
    for name, value in row["flags"].items():
        words.append(name if value is None else f"{name} {_quoted(value)}")
    return f"""#!/usr/bin/env bash
# {row["title"]}.
# Published: {row["published"]}.
# Written by make_paper_scripts.py; flags given to this script are added to the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
python main.py {" ".join(words)} "$@"
"""


def _quoted(value: str) -> str:
    return f'"{value}"' if value.startswith("${") else shlex.quote(value)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for row in rows():
        path = HERE / f"{row['name']}.sh"
        path.write_text(script(row))
        path.chmod(0o755)


if __name__ == "__main__":
    main()
