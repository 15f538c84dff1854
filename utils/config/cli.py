"""The command line: ``Options`` from defaults, files and flags; ``--help``."""

import argparse
import re
import secrets
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, replace
from decimal import Decimal
from typing import Any, NoReturn

from pruner import PRUNERS, short_schedule
from utils.config.notices import notices_on
from utils.config.options import RUN_ID, Options, by_section
from utils.config.settings_file import read_settings_file
from utils.config.types import boolean, error_prefix, nearest, path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: ([^ =]+)", message)
        if unknown and unknown[1].startswith("-"):
            message += nearest(unknown[1], self._option_string_actions)
        elif unknown:
            message += "; a value with blanks needs quotes"
        raise ValueError(message)


_METAVARS = {
    str(kind): name for kind, name in ((int, "N"), (int | None, "N"), (float, "X"), (float | None, "X"), (Decimal, "X"))
}
_WIDEST = 44  # longest metavar, in characters; longer choices are listed in the help text
EXAMPLES = """examples:
  Half of a CIFAR network's filters: costs and steps (without --plan, the run)
    python main.py --dataset cifar10 --arch resnet56 --method GReg-1 \\
        --stage_pr "[0,0.5,0.5,0.5,0]" --base_model_path base.pth --plan

  Your own images, in my_images/{train,val}/CLASS/, pruned in 1,000 steps
    python main.py --dataset folder --data_path my_images --arch resnet18 \\
        --method GReg-1 --stage_pr "[0,0.5,0.5,0.5,0.5,0]" --pretrained \\
        --prune_steps 1000 --batch_size_prune 32 --batch_size 32 \\
        --epochs 30 --lr_ft 0:0.01,15:0.001
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all fields of ``Options``; values stay text until all sources are merged."""
    parser = _Parser(
        prog="main.py",
        usage="main.py --dataset NAME [--method NAME] [--stage_pr RATIOS] [flags]",
        description="Prune a trained network by growing regularization (GReg-1, GReg-2)\n"
        "or in one shot (L1), and fine-tune it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    for heading, flags in by_section().items():
        group = parser.add_argument_group(heading)
        for f in flags:
            meta = f.metadata
            names = sorted((f"--{f.name}", *meta["aliases"]), key=len)
            how: dict[str, Any] = {"dest": f.name, "help": _help_text(f) + _default_text(f)}
            if meta["parse"] is boolean:
                how |= {"action": "store_const", "const": "true"}
            else:
                how["metavar"] = meta.get("metavar") or _metavar(f)
            how |= meta.get("argparse", {})
            group.add_argument(*names, **how)
    parser.add_argument("--oracle_pruning", dest="method", action="store_const", const="Oracle", help="method Oracle")
    parser.add_argument(
        "--config", metavar="FILE", help="read defaults of all flags from YAML; the command line takes precedence"
    )
    parser.add_argument("--params_json", metavar="FILE", help="read defaults from JSON; --config takes precedence")
    parser.add_argument(
        "--no-channels_last", "--no_channels_last", dest="channels_last", action="store_const", const="false",
        help=argparse.SUPPRESS,
    )  # fmt: skip
    return parser


def _metavar(f: Field) -> str:
    return _choices(f) or _METAVARS.get(str(f.type), f.name.split("_")[-1].upper())


def _choices(f: Field) -> str:
    return "|".join(getattr(f.metadata["parse"], "choices", ()))


def _help_text(f: Field) -> str:
    """The help text, with choices that are too long for the metavar."""
    return f.metadata["help"] + (f": {', '.join(f.metadata['parse'].choices)}" if len(_choices(f)) > _WIDEST else "")


def _default_text(f: Field) -> str:
    has_default = f.default is not MISSING and f.default not in (None, "", False)
    return f" (default: {f.default})" if has_default else ""


def parse(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Merge the command line, ``--config`` and defaults into options, with notices on flags that have no effect.

    Raises:
        ValueError: an unknown flag or key, a wrong type, an impossible value; names it.
    """
    given, typed = read(argv)
    options = build(given)
    return options, notices_on(options, typed)


def read(argv: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Read settings as text from the command line and files, and the names of those on the command line.

    Raises:
        ValueError: an unknown flag or key.
    """
    # Python up to 3.12 drops the value of "--flag=--" and leaves an empty list.
    typed = {name: "--" if text == [] else text for name, text in vars(build_parser().parse_args(_words(argv))).items()}
    given: dict[str, str] = {}
    for source in ("params_json", "config"):  # later ones win
        if source in typed:
            with error_prefix(source):
                given |= _read_file(source, path(typed.pop(source)))
    return given | typed, set(typed)


def build(given: dict[str, str]) -> Options:
    """Parse settings; missing ones take their defaults, and a missing seed is drawn.

    Raises:
        ValueError: a wrong type, an impossible value, or a required flag is missing; names the flag.
    """
    values = {}
    for f in fields(Options):
        if f.name in given and given[f.name] is not None:
            try:
                values[f.name] = f.metadata["parse"](given[f.name])
            except ValueError as error:
                raise ValueError(f"--{f.name}: {' '.join(str(error).split())}") from None
        elif f.default is MISSING:
            raise ValueError(f"--{f.name} is required; {_help_text(f)}")
    if values.get("seed") is None:
        values["seed"] = secrets.randbelow(2**31)
    return _in_prune_steps(Options(**values), {name for name in values if given.get(name) is not None})


def _in_prune_steps(options: Options, given: set[str]) -> Options:
    """Fill in the settings that ``--prune_steps`` implies, where the method has a prune phase."""
    method = PRUNERS[options.method]
    if options.prune_steps is None or not method.has_prune_phase:
        return options
    with error_prefix("prune_steps"):
        return replace(options, **short_schedule(options, given, method.picks_later))


_LISTS = ("--stage_pr", "--skip_layers", "--lr_ft", "--lr_schedule")


def _words(argv: Sequence[str]) -> list[str]:
    """Join lists that the shell has split (``--stage_pr [0, 0.5, 0]``), and keep -1e-4 from being read as a flag."""
    words: list[str] = []
    open_list = False
    for word in argv:
        last = words[-1] if words else ""
        if open_list and not word.startswith("--"):
            words[-1] += f" {word}"
        elif re.fullmatch(r"-[0-9.]+(e[-+]?[0-9]+)?", word, re.IGNORECASE) and last.startswith("--"):
            words[-1] += f"={word}"
        else:
            words.append(word)
        name, _, value = words[-1].partition("=") if words[-1].startswith("--") else (last, "", words[-1])
        of_list = len(name) > 4 and any(flag.startswith(name) for flag in _LISTS)
        open_list = (of_list or open_list) and value[:1] in ("[", "{") and value[-1:] not in ("]", "}")
    return words


def _read_file(source: str, path: str) -> dict[str, str]:
    """Read the settings of the file that the flag `source` names.

    Raises:
        ValueError: it cannot be read, or has an unknown key; names flag and file.
    """
    try:
        given = read_settings_file(path)
    except ValueError as error:
        raise ValueError(f"--{source} {path}: {error}") from None
    given.pop(RUN_ID, None)  # log/params.yaml has it
    known = {f.name for f in fields(Options)}
    for key in given:
        if key not in known:
            raise ValueError(f"--{source} {path}: unknown key '{key}'{nearest(key, known)}")
    return given
