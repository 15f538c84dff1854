#!/usr/bin/env python3
"""One table of finished runs, a column each: python scripts/compare.py Experiments/RUN..."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.tables import results_table


def main(run_dirs: list[str]) -> int:
    if not run_dirs:
        print(__doc__, file=sys.stderr)
        return 2
    reports = []
    for run_dir in run_dirs:
        file = Path(run_dir) / "log" / "report.json"
        if not file.is_file():
            print(f"compare.py: error: no {file}; the run has not finished", file=sys.stderr)
            return 2
        reports.append(json.loads(file.read_text()))
    print(results_table(reports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
