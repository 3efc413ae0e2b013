"""The command line: ``python -m workbench run | train | compare | check``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitask import Run, TrainedGroups
    from workbench.settings import Settings

CHOICE = "choice_"  # what the names of these options begin with in the namespace; --window is one of the files
OPTIONS = {"window": "--delay-window"}
DEFAULTS = {"n_delays": "auto", "rank": "auto"}  # of the command line, where the metric needs operators


def run(arguments: argparse.Namespace, settings: "Settings") -> int:
    from workbench.notebooks import run_notebooks

    return 1 if run_notebooks(arguments.notebooks, settings, arguments.in_place) else 0


def train(arguments: argparse.Namespace, settings: "Settings") -> int:
    import multitask
    from workbench.settings import ConfigError

    if arguments.groups is not None:
        return train_groups(arguments, settings)
    ours = settings.multitask
    rules = arguments.rules or ours.rules
    seed = settings.seed if arguments.seed is None else arguments.seed
    try:
        multitask.evaluation.check_rules(rules)
    except multitask.MultitaskError as error:
        raise ConfigError(f"--rules: {error}") from None
    try:
        run = multitask.train(
            rules,
            ours.network,
            ours.training,
            n_networks=ours.n_networks,
            seed=seed,
            device=settings.device,
            run_folder=settings.run_folder(rules, seed),
        )
    except multitask.MultitaskError as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(run, ours.training.n_test_batches * ours.training.test_batch_size))
    return 0


def train_groups(arguments: argparse.Namespace, settings: "Settings") -> int:
    import multitask
    from workbench.engine import engine
    from workbench.settings import ConfigError

    ours = settings.groups
    for name in arguments.groups:
        if name not in ours.groups:
            raise ConfigError(f"--groups: {multitask.trials.unknown('group', name, ours.groups)}")
    try:
        with engine(settings.engine):
            for seed in ours.seeds if arguments.seed is None else [arguments.seed]:
                trained = multitask.train_groups(
                    ours.groups,
                    ours.network,
                    ours.training,
                    folder=settings.results / "runs",
                    names=arguments.groups or None,
                    n_networks=ours.n_networks,
                    seed=seed,
                    device=settings.device,
                )
                print(groups_summary(trained, ours.master, ours.n_test_trials))
    except multitask.MultitaskError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def groups_summary(trained: "TrainedGroups", rule: str, n_trials: int) -> str:
    """Performance of each group on a rule, and where its run lies."""
    tested = trained.performance(rule, n_trials=n_trials).groupby("group", sort=False)["performance"]
    table = tested.agg(mean="mean", worst="min", n="size")
    folders = {name: os.path.relpath(run.folder) for name, run in trained.runs.items()}
    table["run"] = [folders.get(name, "untrained") for name in table.index]
    seconds = sum({run.folder: run.log["cpu_seconds"].max() for run in trained.runs.values()}.values())
    return (
        f"seed {trained.seed}: share of right trials, of {n_trials} of {rule}\n"
        f"{table.rename_axis(index=None).to_string(float_format='{:.3f}'.format)}\n"
        f"{seconds:.0f} s of CPU time in all"
    )


def summary(run: "Run", n_trials: int) -> str:
    """Performance of each rule and network at the end of training, and where the run lies."""
    end = run.log[run.log["step"] == run.log["step"].max()]
    table = end.pivot(index="rule", columns="network", values="performance").loc[end["rule"].unique()]
    table.insert(0, "mean", table.mean(axis=1))
    steps, seconds = end["step"].iloc[0], end["cpu_seconds"].iloc[0]
    return (
        f"share of right trials, of {n_trials} a rule, by network\n"
        f"{table.rename_axis(columns=None).to_string(float_format='{:.3f}'.format)}\n"
        f"{run.finished} after {steps} steps, {seconds:.0f} s of CPU time: {os.path.relpath(run.folder)}"
    )


def compare(arguments: argparse.Namespace) -> int:
    from dsa_analysis import DataError
    from workbench.compare import command_line, compare_files
    from workbench.settings import ConfigError

    if arguments.groups:
        return compare_groups(arguments, command_line(arguments.argv))
    if not arguments.files:
        raise ConfigError("compare: give two files or more, or --groups for the networks that the settings describe")
    arguments.output = arguments.output or "results/compare"
    try:
        report = compare_files(arguments, command_line(arguments.argv))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a quota, a folder that went away; pairs solved so far are kept
        print(f"{arguments.output}: the results could not be written ({error.strerror or error})", file=sys.stderr)
        return 2
    print(os.path.relpath(report))
    return 0


def compare_groups(arguments: argparse.Namespace, command: str) -> int:
    from dsa_analysis import DataError
    from multitask import MultitaskError
    from workbench.networks import GroupStudy, verdicts
    from workbench.networks.report import write_pooled_report, write_report
    from workbench.settings import ConfigError, load_settings

    if arguments.files:
        raise ConfigError(f"--groups: compares the networks of the settings, not files; leave out {arguments.files[0]}")
    settings = load_settings(arguments.settings)
    folder, studies = Path(arguments.output or settings.results / "groups"), []
    try:
        for seed in [arguments.choice_seed] if "choice_seed" in arguments else settings.groups.seeds:
            study = GroupStudy(settings, seed).complete()
            studies.append(study)
            report = write_report(study, verdicts(study), folder / f"seed_{seed}", command)
            print(os.path.relpath(report))
        if len(studies) > 1:
            print(os.path.relpath(write_pooled_report(studies, folder / "pooled", command)))
    except (DataError, MultitaskError) as error:
        print(error, file=sys.stderr)
        return 1
    print(verdicts(studies).to_string(index=False))
    return 0


def check(arguments: argparse.Namespace, settings: "Settings") -> int:
    from dsa_analysis import native

    print(settings)
    print(native.status()[1])
    return 0


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


def start_stop(text: str) -> tuple[int, int]:
    start, _, stop = text.partition(":")
    return natural(start), count(stop)


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
        "windows": {"nargs": "+", "type": start_stop, "metavar": "START:STOP"},
    }
    for each in fields(Comparison):
        option = OPTIONS.get(each.name, "--" + each.name.replace("_", "-"))
        default = DEFAULTS.get(each.name, each.default)
        told = "" if default is None else f" (default: {default})"
        text = f"{each.metadata['help']}; {each.metadata['values']}{told}".replace("%", "%%").replace("`", "")
        how = kinds[each.metadata["kind"]]
        group.add_argument(option, dest=CHOICE + each.name, default=argparse.SUPPRESS, help=text, **how)


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m workbench",
        description="Runs what config.yaml describes.",
        epilog="example: python -m workbench run lorenz_sanity_check --config small.yaml",
    )
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config",
        metavar="PATH",
        help="settings file (default: $COMPUTE_ALIKE_CONFIG, else ./config.yaml)",
    )

    what = "execute notebooks into results/notebooks/, with a page for each and an index.html"
    command = commands.add_parser("run", parents=[shared], help=what, description=what)
    command.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="name or path (default: all of the project)")
    command.add_argument("--in-place", action="store_true", help="also write the notebooks back, as they are committed")
    command.set_defaults(command=run)

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
    command.add_argument("--seed", type=natural, help="in place of that of the settings, a whole number >= 0")
    command.set_defaults(command=train)

    add_compare(commands, "compare" in argv)

    what = "check the settings file and print what it says; nothing is run"
    command = commands.add_parser("check", parents=[shared], help=what, description=what)
    command.set_defaults(command=check)
    return root


def add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", choices: bool) -> None:
    what = "compare recordings, one system a file, and write a report; needs no settings file, but for --groups"
    command = commands.add_parser(
        "compare",
        help=what,
        description=f"{what[0].upper()}{what[1:]}. Writes report.html, distances.csv and similarity.nc.",
        epilog="example: python -m workbench compare monday/*.mat tuesday/*.mat --variable rates "
        "--axes channel,time,trial --sampling-rate 100 --smooth 20 "
        "--n-delays 10 --rank 8 --group-by folder --output results/days",
    )
    command.set_defaults(command=compare)
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
    report.add_argument("--explain", nargs=2, metavar="SYSTEM", help="pair to take apart (default: the most distant)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something that ran failed, 2 when nothing could be run as asked."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command_line = parser(argv)
    arguments, rest = command_line.parse_known_args(argv, argparse.Namespace(argv=argv))
    if rest and ("files" not in arguments or any(one.startswith("-") for one in rest)):
        command_line.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # files that stand after the options
        arguments.files = [*arguments.files, *rest]
    from workbench.settings import ConfigError, load_settings  # loads torch, for which --help should not wait

    try:
        settings = [load_settings(arguments.config)] if "config" in arguments else []
        return arguments.command(arguments, *settings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
