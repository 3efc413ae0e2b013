"""The command line: ``compute-alike run | train | compare | check``, or ``python -m workbench`` with the same words."""

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.completion import options_of, script
from workbench.options import parser
from workbench.terminal import WORDS, Stopping, complain, last_line, loading, relative

if TYPE_CHECKING:
    from multitask import Run, TrainedGroups
    from workbench.settings import Settings


def run(arguments: argparse.Namespace, settings: "Settings") -> int:
    from workbench.notebooks import run_notebooks

    failed = run_notebooks(
        arguments.notebooks, settings, arguments.in_place, not arguments.quiet, at_once=arguments.jobs
    )
    return 1 if failed else 0


def train(arguments: argparse.Namespace, settings: "Settings") -> int:
    import multitask
    from workbench.settings import ConfigError

    if arguments.steps is not None:
        raise ConfigError("--steps: goes with --verify FOLDER; training takes its steps from the settings")
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
            progress=not arguments.quiet,
        )
    except multitask.MultitaskError as error:
        return untrained(error)
    print(summary(run, ours.training.n_test_batches * ours.training.test_batch_size))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Train a stored run again; it needs no settings file."""
    import multitask
    from workbench.settings import ConfigError

    if arguments.seed is not None:
        raise ConfigError("--seed: a run is verified with its own seed; leave it out")
    try:
        found = multitask.verify_run(arguments.verify, n_steps=arguments.steps, progress=not arguments.quiet)
    except multitask.MultitaskError as error:
        raise ConfigError(f"--verify: {error}") from None
    print(found)
    if not arguments.quiet and not found.same:
        print(found.steps.to_string(index=False), found.log.to_string(index=False), sep="\n")
    return 0 if found.same else 1


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
                    progress=not arguments.quiet,
                )
                print(groups_summary(trained, ours.master, ours.n_test_trials))
    except multitask.MultitaskError as error:
        return untrained(error)
    return 0


def untrained(error: Exception) -> int:
    """Tell why a training failed; 2 if files could not be written or read, as with all commands, otherwise 1."""
    from multitask.storage import StorageError

    complain(error)
    return 2 if isinstance(error, StorageError) else 1


def groups_summary(trained: "TrainedGroups", rule: str, n_trials: int) -> str:
    """Performance of each group on a rule, and where its run lies."""
    found = trained.performance(rule, n_trials=n_trials)
    table = found.groupby("group", sort=False)["performance"].agg(mean="mean", worst="min", n="size")
    folders = {name: relative(run.folder) for name, run in trained.runs.items()}
    table["run"] = [folders.get(name, "untrained") for name in table.index]
    seconds = sum({run.folder: run.log["cpu_seconds"].max() for run in trained.runs.values()}.values())
    return (
        f"seed {trained.seed}: share of right trials, of {n_trials} of {rule} at {found['difficulty'][0]} difficulty\n"
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
        f"share of right trials, of {n_trials} a rule at {run.difficulty} difficulty, by network\n"
        f"{table.rename_axis(columns=None).to_string(float_format='{:.3f}'.format)}\n"
        f"{run.finished} after {steps} steps, {seconds:.0f} s of CPU time: {relative(run.folder)}"
    )


def compare(arguments: argparse.Namespace) -> int:
    with loading():
        from dsa_analysis import DataError
        from workbench.compare import command_line, compare_files
        from workbench.settings import ConfigError

    if arguments.groups:
        return compare_groups(arguments, command_line(arguments.argv))
    if not arguments.files:
        raise ConfigError("compare: give two files or more, or --groups for the networks that the settings describe")
    arguments.output = arguments.output or "results/compare"
    try:
        outcome = compare_files(arguments, command_line(arguments.argv))
    except DataError as error:
        complain(error)
        return 2
    except OSError as error:  # a full disk, a quota, a folder that went away; pairs solved so far are kept
        complain(f"{arguments.output}: the results could not be written ({error.strerror or error})")
        return 2
    if not arguments.quiet:
        print(*outcome.said, sep="\n")
    print(last_line(outcome.page))
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
            study = GroupStudy(settings, seed, progress=not arguments.quiet).complete()
            studies.append(study)
            report = write_report(study, verdicts(study), folder / f"seed_{seed}", command)
            print(last_line(report))
        if len(studies) > 1:
            report = write_pooled_report(studies, folder / "pooled", command)
    except (DataError, MultitaskError) as error:
        return untrained(error)
    if not arguments.quiet:
        print(verdicts(studies).to_string(index=False))
    print(last_line(report))
    return 0


def check(arguments: argparse.Namespace, settings: "Settings") -> int:
    from dsa_analysis import native

    print(settings)
    print(native.status()[1])
    return 0


def completion(arguments: argparse.Namespace) -> int:
    print(script(parser(["completion"]), arguments.shell), end="")
    return 0


# numbers of errors of a disk, which Windows has in part; those of a full one are no mistake of a program, and 0 comes
# where there is no room for a semaphore
FULL = {0, *(getattr(errno, name) for name in ("EDQUOT", "EFBIG", "ENOSPC", "EROFS") if hasattr(errno, name))}
DISK = FULL | {getattr(errno, name) for name in ("EACCES", "EIO", "ENOENT", "ENOTDIR", "EPERM")}
COMMANDS: dict[str, Any] = {"run": run, "train": train, "compare": compare, "check": check, "completion": completion}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something that ran failed, 2 when nothing could be run as asked."""
    argv = sys.argv[1:] if argv is None else list(argv)
    with Stopping() as stopping:
        try:
            with loading():
                arguments = parsed(argv)
                from workbench.settings import ConfigError, load_settings  # loads torch; --help should not wait for it

            try:
                if getattr(arguments, "verify", None) is not None:
                    return verify(arguments)
                settings = [load_settings(arguments.config)] if "config" in arguments else []
                return COMMANDS[arguments.command](arguments, *settings)
            except ConfigError as error:
                complain(error)
                return 2
            except OSError as error:
                if error.errno not in (DISK if error.filename else FULL):
                    raise
                reason = error.strerror if error.errno else "no room"
                complain(f"{error.filename or 'a file, such as in /dev/shm'}: {reason}; what is stored is kept")
                return 2
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
                    raise
                complain(f"not enough memory: {str(error).partition('. Error code')[0]}; what is stored is kept")
                return 2
        except BaseException as error:
            if stopping.number is None and not isinstance(error, KeyboardInterrupt):
                raise
            number = stopping.number or signal.SIGINT
            complain(WORDS[signal.Signals(number)])
            return 128 + number


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; of compare, files may stand before, between and after the options."""
    command_line = parser(argv)
    arguments, rest = command_line.parse_known_args(argv, argparse.Namespace(argv=list(argv)))
    if rest and ("files" not in arguments or any(one.startswith("-") for one in rest)):
        unknown = [one for one in rest if one.startswith("-")] or rest
        known = sorted({option for options in options_of(command_line).values() for option in options})
        near = [hint for one in unknown for hint in get_close_matches(one, known, n=1)]
        hint = f"; did you mean {near[0]}?" if near else ""
        command_line.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if "files" in arguments:
        arguments.files = [*arguments.files, *getattr(arguments, "more_files", []), *rest]
    return arguments


def program() -> None:
    """`main` as a program: a signal before or after it ends the process without a word."""
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # it tells what it cleans up after killed workers
    for number in WORDS:
        signal.signal(number, signal.SIG_DFL)
    status = main()
    for number in WORDS:
        signal.signal(number, signal.SIG_IGN)  # all is done but the end of the interpreter
    sys.exit(status)


if __name__ == "__main__":
    program()
