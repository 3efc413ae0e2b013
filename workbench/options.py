"""The options of the command line. They load nothing heavy, so that ``--help`` answers at once."""

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from workbench.completion import SHELLS
from workbench.terminal import called, program

CHOICE = "choice_"  # what the names of these options begin with in the namespace; --window is one of the files
OPTIONS = {"window": "--delay-window"}
DEFAULTS = {"n_delays": "auto", "rank": "auto"}  # of the command line, where the metric needs operators
AXES = (
    "n_delays", "delay_interval", "rank", "steps_ahead", "horizon", "delay_window", "estimator", "metric", "reduction",
    "trial_length", "n_trials",
)  # fmt: skip
NULLS = ("exchange", "phase", "iaaft", "shuffle_times", "shuffle_trials")  # kinds of null distances
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)  # a number, not an option
EXIT_CODES = "exit codes: 0 done; 1 something that ran failed; 2 nothing could be run as asked; 130 or 143 stopped"


class Parser(argparse.ArgumentParser):
    """A parser that takes -2e-1 for a number, as every Python does from 3.14 on."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._negative_number_matcher = NEGATIVE


class Version(argparse.Action):
    """Shows the version, which takes a moment to find."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        print(program())
        parser.exit()


class Words(argparse.Action):
    """Takes all words of its own kind; what follows and is none of these is a file."""

    pattern, told = "", ""
    names: Sequence[str] = ()  # of which a word may be a misspelt one

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        own = [value for value in values if re.fullmatch(self.pattern, value)]
        if not own and self.nargs == "+":
            parser.error(f"argument {option_string}: needs {self.told}; got {values[0]}")
        setattr(namespace, self.dest, [self.read(word) for word in own])
        files = [value for value in values if value not in own]
        for value in files:
            near = get_close_matches(value.partition("=")[0].replace("-", "_"), self.names, n=1)
            if near and not Path(value).exists():
                parser.error(
                    f"argument {option_string}: {value} is neither one of these nor a file; did you mean {near[0]}?"
                )
        namespace.more_files = [*getattr(namespace, "more_files", []), *files]

    @staticmethod
    def read(word: str) -> Any:
        return word


class Windows(Words):
    """Pieces START:STOP of trials."""

    pattern, told = r"\d+:\d+", "START:STOP in samples, such as 0:100"

    @staticmethod
    def read(word: str) -> Any:
        return tuple(map(int, word.split(":")))


class Axes(Words):
    """Axes of a grid, such as rank=4,6,8."""

    pattern = rf"({'|'.join(AXES)})=.+".replace("_", "[_-]")
    names = AXES


class Nulls(Words):
    """Kinds of nulls."""

    pattern = "|".join(NULLS)
    names = NULLS


def natural(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {text}")
    return int(text)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text}")
    return int(text)


def count_or_auto(text: str) -> int | str:
    return text if text == "auto" else count(text)


def positive(text: str) -> float:
    """A number above 0."""
    try:
        if 0 < float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")


def positive_or_auto(text: str) -> float | str:
    return text if text == "auto" else positive(text)


def number_or_name(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def add_choices(group: "argparse._ArgumentGroup") -> None:
    """An option for every field of `Comparison`, with the field's own help; absent from the namespace unless given."""
    from dataclasses import fields

    from dsa_analysis.comparison import Comparison

    kinds: dict[str, dict[str, Any]] = {
        "count": {"type": count, "metavar": "N"},
        "count from 0": {"type": natural, "metavar": "N"},
        "count or auto": {"type": count_or_auto, "metavar": "N"},
        "time": {"type": positive, "metavar": "MS"},
        "time or auto": {"type": positive_or_auto, "metavar": "MS"},
        "number": {"type": float, "metavar": "X"},
        "text": {},
        "flag": {"action": argparse.BooleanOptionalAction},
        "windows": {"nargs": "+", "action": Windows, "metavar": "START:STOP"},
    }
    for each in fields(Comparison):
        option = OPTIONS.get(each.name, "--" + each.name.replace("_", "-"))
        default = DEFAULTS.get(each.name, each.default)
        told = "" if default is None else f" (default: {default})"
        text = f"{each.metadata['help']}; {each.metadata['values']}{told}".replace("%", "%%").replace("`", "")
        how = kinds[each.metadata["kind"]]
        group.add_argument(option, dest=CHOICE + each.name, default=argparse.SUPPRESS, help=text, **how)


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line; ``argv`` says which command's options are needed in full."""
    prog = called()
    root = Parser(
        prog=prog,
        description="Compares recordings, trains networks and runs notebooks.",
        epilog=f"example: {prog} compare monday.npy tuesday.npy --sampling-rate 100. {EXIT_CODES}",
    )
    root.add_argument("--version", action=Version, nargs=0, help="show the version")
    add_loudness(root, default=False)
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)

    shared = Parser(add_help=False)
    add_loudness(shared, default=argparse.SUPPRESS)
    shared.add_argument(
        "--config",
        metavar="PATH",
        help="settings file (default: $COMPUTE_ALIKE_CONFIG, else ./config.yaml)",
    )

    what = "execute notebooks into results/notebooks/, with a page for each and an index.html"
    command = commands.add_parser("run", parents=[shared], help=what, description=what)
    command.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="name or path (default: all of the project)")
    command.add_argument(
        "--jobs", type=count, metavar="N", help="how many notebooks run at the same time (default: 2, or 1 on one core)"
    )
    command.add_argument("--in-place", action="store_true", help="also write the notebooks back, as they are committed")
    command.set_defaults(command="run")

    what = "train the networks that the settings describe; goes on where it was stopped"
    command = commands.add_parser("train", parents=[shared], help=what, description=what)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--rules", nargs="+", metavar="RULE", help="names of rules (default: those of multitask)")
    which.add_argument(
        "--groups",
        nargs="*",
        metavar="NAME",
        help="the groups section instead: all, or named groups with those they are after",
    )
    which.add_argument(
        "--verify", metavar="FOLDER", help="a run: train it again, and say where and by how much the two part"
    )
    command.add_argument("--seed", type=natural, help="in place of that of the settings, a whole number >= 0")
    command.add_argument("--steps", type=natural, metavar="K", help="with --verify: the first K steps only")
    command.set_defaults(command="train")

    add_compare(commands, bool({"compare", "completion"} & set(argv)), prog)

    what = "print a script that completes commands and options: compute-alike completion bash >> ~/.bashrc"
    command = commands.add_parser("completion", help=what.partition(":")[0], description=what)
    command.add_argument("shell", choices=SHELLS)
    command.set_defaults(command="completion")

    what = "check the settings file and print what it says; nothing is run"
    command = commands.add_parser("check", parents=[shared], help=what, description=what)
    command.set_defaults(command="check")
    return root


def add_loudness(parser: argparse.ArgumentParser, default: Any) -> None:
    """Options that stand before or after the name of the command."""
    group = parser.add_mutually_exclusive_group()
    for short, name, text in (
        ("-q", "--quiet", "only errors and the last line; warnings stand in the report"),
        ("-v", "--verbose", "also the stages of the work with their times"),
    ):
        group.add_argument(short, name, action="store_true", default=default, help=text)


def add_compare(commands: Any, choices: bool, prog: str) -> None:
    """The command compare. Options and files may come in any order."""
    what = "compare recordings, one system a file, and write a report; needs no settings file, but for --groups"
    command = commands.add_parser(
        "compare",
        help=what,
        description=f"{what[0].upper()}{what[1:]}. Writes report.html, distances.csv and similarity.nc.",
        epilog=f"example: {prog} compare monday/*.mat tuesday/*.mat --variable rates "
        "--axes channel,time,trial --sampling-rate 100 --smooth 20 "
        f"--n-delays 10 --rank 8 --group-by folder --output results/days. {EXIT_CODES}",
    )
    command.set_defaults(command="compare")
    add_loudness(command, default=argparse.SUPPRESS)
    command.add_argument(
        "--groups",
        action="store_true",
        help="instead of files: the groups of networks of the settings, trained if need be",
    )
    command.add_argument("--config", dest="settings", metavar="PATH", help="for --groups: settings file, as for train")
    command.add_argument("files", nargs="*", metavar="FILE", help="a system each: .npy, .npz, .mat (any version), .nwb")
    command.add_argument(
        "--output", metavar="FOLDER", help="default: results/compare; of groups results/groups; seed_N in it"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a report that is there")

    reading = command.add_argument_group("what the files hold", "The same for all; what they leave open is asked for.")
    reading.add_argument(
        "--variable", metavar="NAME", help="which array; a pattern such as 'trial_*' takes several as trials"
    )
    reading.add_argument("--axes", help="such as channel,time,trial (default: trial,time,channel or time,channel)")
    reading.add_argument(
        "--sampling-rate", type=number_or_name, metavar="HZ", help="or the variable that holds it, or the times in s"
    )
    reading.add_argument(
        "--operators", action="store_true", help="files hold square operators fitted elsewhere, not data"
    )
    spikes = ("--align-to", "--window", "--trials", "--units")
    reading.add_argument(spikes[0], metavar="COLUMN", help=".nwb: time in the trial table; with --window")
    reading.add_argument(spikes[1], nargs=2, type=float, metavar=("FROM", "TO"), help=".nwb: s around --align-to")
    reading.add_argument(spikes[2], metavar="QUERY", help=".nwb: which trials, such as 'correct == 1'")
    reading.add_argument(spikes[3], metavar="QUERY", help=".nwb: which units, such as 'quality == \"good\"'")

    omitting = command.add_argument_group("trials to leave out", "With cka and procrustes from all files alike.")
    omitting.add_argument("--omit-non-finite", action="store_true", help="those that hold NaN or infinity")
    omitting.add_argument(
        "--omit-shorter-than", type=natural, default=0, metavar="N", help="those of fewer samples, after --decimate"
    )

    processing = command.add_argument_group("processing, in this order")
    processing.add_argument("--smooth", type=float, default=0.0, metavar="MS", help="Gaussian, its standard deviation")
    processing.add_argument("--decimate", type=count, default=1, metavar="N", help="means of N samples in their place")
    processing.add_argument("--zscore", action="store_true", help="each channel to mean 0 and variance 1")

    if choices:  # the choices load torch, for which other commands should not wait
        add_choices(command.add_argument_group("comparison", "How the systems are compared."))
    command.add_argument("--device", default="cpu", help="cpu (default), cuda, or auto")

    report = command.add_argument_group("report")
    report.add_argument(
        "--group-by",
        choices=("name", "folder"),
        help="groups to tell apart: walking_1, walking_2 by name, or by folder",
    )
    report.add_argument(
        "--n-splits", type=count, default=5, metavar="N", help="splits for the noise floor (default: 5)"
    )
    report.add_argument("--intervals", type=natural, default=0, metavar="N", help="resample trials N times, 100 or so")
    report.add_argument(
        "--stability",
        nargs="*",
        action=Axes,
        metavar="AXIS=V,V",
        help="compare under other choices, too: rank=4,6,8 horizon=50,100, or, without any, half and twice the delays, "
        f"ranks and horizon in use. Axes: {', '.join(AXES)}",
    )
    report.add_argument(
        "--null",
        nargs="*",
        action=Nulls,
        metavar="KIND",
        help=f"test distances against draws of {', '.join(NULLS)} (default: {NULLS[0]}, for systems of equal channels)",
    )
    report.add_argument(
        "--null-draws", type=count, default=99, metavar="N", help="of each kind, 19 or more (default: 99)"
    )
    report.add_argument("--explain", nargs=2, metavar="SYSTEM", help="pair to take apart (default: the most distant)")
