"""The command line: quick help, one line for each mistake, exit codes that scripts can rely on."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from workbench.__main__ import main, parsed
from workbench.completion import SHELLS, script
from workbench.options import parser
from workbench.terminal import Stages, last_line, styled


def test_help_comes_without_loading_torch_or_pydantic():
    """Both take seconds together; ``--help`` should take a tenth of one."""
    code = (
        "import sys, time\n"
        "from workbench.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as done: assert done.code == 0\n"
        "assert not {'torch', 'pydantic', 'numpy', 'matplotlib', 'nbformat'} & set(sys.modules)\n"
        "assert time.process_time() < 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "example: " in done.stdout


def test_unknown_notebook_exits_2_with_one_line(config, capsys):
    assert main(["run", "lorenz_sanity_chek", "--config", str(config.path)]) == 2
    assert capsys.readouterr().err.startswith("lorenz_sanity_chek: no such notebook; ")


def test_mistakes_in_the_settings_exit_2_with_the_report_and_no_traceback(config, capsys):
    first = config.set("seed", "red")
    second = config.set("lorenz.n_times", "many")
    assert main(["run", "--config", str(config.path)]) == 2
    assert capsys.readouterr().err == (
        f'{config.path}:{first}: seed: must be an integer, got "red"\n'
        f'{config.path}:{second}: lorenz.n_times: must be an integer, got "many"\n'
    )


def test_missing_settings_exit_2(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMPUTE_ALIKE_CONFIG", raising=False)
    assert main(["check"]) == 2
    assert capsys.readouterr().err.startswith("config.yaml: no such file or directory (tried ")


def test_check_prints_the_settings(config, capsys):
    config.set("seed", "7")
    assert main(["check", "--config", str(config.path)]) == 0
    assert "seed: 7\n" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["fly"], ["run", "--colour"]])
def test_what_argparse_refuses_exits_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize(("failed", "code"), [([], 0), (["one"], 1)])
def test_failing_notebooks_exit_1(config, monkeypatch, failed, code):
    asked = []
    monkeypatch.setattr("workbench.notebooks.run_notebooks", lambda *a, **k: asked.append((*a, k)) or failed)
    assert main(["run", "one", "two", "--in-place", "--jobs", "3", "--config", str(config.path)]) == code
    ((names, settings, in_place, progress, further),) = asked
    assert (names, settings.results) == (["one", "two"], config.path.parent / "results")
    assert (in_place, progress, further) == (True, True, {"at_once": 3})


def test_interruption_exits_130(config, monkeypatch, capsys):
    def interrupted(*_, **__) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.notebooks.run_notebooks", interrupted)
    assert main(["run", "--config", str(config.path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 65.5 TiB"),
        RuntimeError("can't allocate memory: you tried 9 bytes. Error code 12"),
    ],
)
def test_too_little_memory_is_told_in_one_line(config, monkeypatch, capsys, error):
    def hungry(*_, **__) -> list[str]:
        raise error

    monkeypatch.setattr("workbench.notebooks.run_notebooks", hungry)
    assert main(["run", "--config", str(config.path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("not enough memory: ")
    assert (said.count("\n"), "Error code" in said) == (1, False)


def test_other_errors_of_a_library_are_not_taken_for_a_lack_of_memory(config, monkeypatch):
    def broken(*_, **__) -> list[str]:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("workbench.notebooks.run_notebooks", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["run", "--config", str(config.path)])


def test_interruption_while_modules_load_ends_at_once_with_one_word():
    code = (
        "import os, signal, time\n"
        "from workbench.terminal import loading\n"
        "with loading():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_a_command_whatever_a_library_makes_of_them(config, monkeypatch, capsys, number, status, word):
    def disturbed(*_, **__) -> list[str]:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt as error:
            raise ImportError("a module of C") from error

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr("workbench.notebooks.run_notebooks", disturbed)
    assert main(["run", "--config", str(config.path)]) == status
    assert capsys.readouterr().err == f"{word}\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.7, 1.5])
def test_program_that_is_stopped_while_it_starts_has_no_traceback(tmp_path, number, seconds):
    command = [sys.executable, "-m", "workbench", "compare", "a.npy", "b.npy"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as program:
        time.sleep(seconds)
        program.send_signal(number)
        said = program.communicate()[1]
    assert program.returncode in (-number, 128 + number, 2)  # 2: on a fast machine both files are missed before
    assert "Traceback" not in said


def test_signal_that_comes_while_garbage_is_collected_is_not_lost(config, monkeypatch, capsys):
    class Garbage:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def collected(*_, **__) -> list[str]:
        Garbage()
        time.sleep(60)
        return []

    monkeypatch.setattr("workbench.notebooks.run_notebooks", collected)
    assert main(["run", "--config", str(config.path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"compute-alike {version('compute-alike')}\n"


def test_folder_on_the_path_that_is_not_installed_has_no_version(monkeypatch, capsys):
    monkeypatch.setattr("importlib.metadata.distribution", _missing)
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == "compute-alike (not installed)\n"


def _missing(name: str) -> None:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("number", "filename", "said"),
    [
        (errno.ENOSPC, "results/x.nc", "results/x.nc: No space left on device; what is stored is kept\n"),
        (errno.EFBIG, None, "a file, such as in /dev/shm: File too large; what is stored is kept\n"),
        (0, None, "a file, such as in /dev/shm: no room; what is stored is kept\n"),
        (errno.ENOENT, None, None),
        (errno.ECONNREFUSED, "socket", None),
    ],
)
def test_error_of_the_disk_is_one_line_that_names_the_file(config, monkeypatch, capsys, number, filename, said):
    """An error that may be a mistake of the program is not hidden."""

    def full(*_, **__):
        raise OSError(number, os.strerror(number), filename)

    monkeypatch.setattr("workbench.notebooks.run_notebooks", full)
    if said is None:
        with pytest.raises(OSError, match=os.strerror(number)):
            main(["run", "--config", str(config.path)])
        return
    assert main(["run", "--config", str(config.path)]) == 2
    assert capsys.readouterr().err == said


# ---- options and files in any order ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        "compare a.npy b.npy --rank 3 -q",
        "compare --rank 3 a.npy -q b.npy",
        "-q compare --rank 3 a.npy b.npy",
        "compare a.npy --quiet --rank=3 b.npy",
        "compare --quiet --rank 3 -- a.npy b.npy",
    ],
)
def test_options_and_files_may_come_in_any_order(argv):
    found = parsed(argv.split())
    assert (found.files, found.choice_rank, found.quiet, found.verbose) == (["a.npy", "b.npy"], 3, True, False)


def test_negative_numbers_and_pieces_are_values_and_not_options():
    found = parsed(
        ["compare", "a.nwb", "--window", "-2e-1", "-.1", "b.nwb", "--ridge", "-1e-8", "--noise-variance", "-0.5"]
    )
    assert (found.window, found.choice_ridge, found.choice_noise_variance) == ([-0.2, -0.1], -1e-8, -0.5)
    found = parsed(["compare", "--windows", "0:10", "10:20", "a.npy", "b.npy"])
    assert (found.choice_windows, found.files) == ([(0, 10), (10, 20)], ["a.npy", "b.npy"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compare", "a.npy", "b.npy", "--metrc", "cka"], "unrecognized arguments: --metrc; did you mean --metric?"),
        (
            ["compare", "a.npy", "--windows", "b.npy"],
            "--windows: needs START:STOP in samples, such as 0:100; got b.npy",
        ),
        (["compare", "-q", "-v", "a.npy"], "argument -v/--verbose: not allowed with argument -q/--quiet"),
        (["train", "stray"], "unrecognized arguments: stray"),
    ],
)
def test_mistakes_are_named_with_what_would_do(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


# ---- the terminal ----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert styled("x", "error", Terminal()) == "\033[31mx\033[0m"
    assert styled("x", "error", io.StringIO()) == "x"
    monkeypatch.setenv("TERM", "dumb")
    assert styled("x", "error", Terminal()) == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("x", "error", Terminal()) == "x"


@pytest.mark.parametrize(
    ("settings", "told"), [({}, ""), ({"verbose": True}, "[1/2] reading"), ({"quiet": True, "verbose": True}, "")]
)
def test_stages_are_told_where_they_are_asked_for(settings, told, capsys):
    stages = Stages(2, **settings)
    with stages.stage("reading"):
        pass
    said = capsys.readouterr().err
    assert said.startswith(told)
    assert bool(said) == bool(told)
    assert stages.bars != settings.get("quiet", False)


def test_last_line_says_where_the_report_lies_and_how_to_open_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = last_line(tmp_path / "my results" / "report.html")
    assert said.startswith("Report: my results/report.html (open it with: ")
    assert said.endswith("open 'my results/report.html')")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command_and_option(shell):
    text = script(parser(["completion"]), shell)
    for word in ("compare", "train", "run", "check", "n-delays", "certificate", "in-place", "rules"):
        assert word in text


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_options_and_leaves_files_to_the_shell(tmp_path):
    path: Path = tmp_path / "completion"
    path.write_text(script(parser(["completion"]), "bash"))
    ask = "COMP_WORDS=({}); COMP_CWORD={}; _compute_alike; echo ${{COMPREPLY[@]}};"
    asked = [("compute-alike com", 1), ("compute-alike compare --ra", 2), ("compute-alike compare a", 2)]
    code = f". {path};" + "".join(ask.format(*one) for one in asked)
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["compare completion", "--rank", ""]


def test_module_runs_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "workbench"], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert "the following arguments are required: COMMAND" in done.stderr
