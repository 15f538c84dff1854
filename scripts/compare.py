#!/usr/bin/env python3
"""Print a table of finished runs, one column per run; the columns are titled by what differs between them.

python scripts/compare.py Experiments/my_*
python scripts/compare.py --mean --csv Experiments/my_* > my_results.csv
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.evidence.command_line import Parser, print_out
from utils.checkpoint.validation import read_report
from utils.reporting.comparison import columns_of, comparison_csv, comparison_table, same_seeds


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="directory of a run, or its report.json")
    parser.add_argument(
        "--mean", action="store_true", help="mean ± standard deviation over runs that differ only in their seed"
    )
    parser.add_argument("--csv", action="store_true", help="print CSV: one row per run (or mean), in full precision")
    args = parser.parse_args(argv)
    reports = []
    try:
        for path in args.runs:
            file = path if path.is_file() else path / "log" / "report.json"
            if not path.exists():
                raise ValueError(f"{path} does not exist: give the directory of a run, or its report.json")
            if file.exists():
                reports.append(read_report(file))
            else:
                print(f"notice: {path} has not finished: it has no log/report.json", file=sys.stderr)
        if not reports:
            raise ValueError("none of these runs has finished")
        columns = columns_of(reports, args.mean)
        for text in same_seeds(columns):
            print(f"notice: {text}", file=sys.stderr)
        print_out(comparison_csv(columns) if args.csv else comparison_table(columns))
    except (ValueError, OSError) as error:  # such as a folder of another user
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
