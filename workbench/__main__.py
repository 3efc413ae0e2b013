"""The command line: ``python -m workbench run | check``."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.settings import Settings


def run(arguments: argparse.Namespace, settings: "Settings") -> int:
    from workbench.notebooks import run_notebooks

    return 1 if run_notebooks(arguments.notebooks, settings, arguments.in_place) else 0


def check(arguments: argparse.Namespace, settings: "Settings") -> int:
    print(settings)
    return 0


def parser() -> argparse.ArgumentParser:
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

    what = "check the settings file and print what it says; nothing is run"
    command = commands.add_parser("check", parents=[shared], help=what, description=what)
    command.set_defaults(command=check)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something that ran failed, 2 when nothing could be run as asked."""
    arguments = parser().parse_args(argv)
    from workbench.settings import ConfigError, load_settings  # loads torch, for which --help should not wait

    try:
        return arguments.command(arguments, load_settings(arguments.config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
