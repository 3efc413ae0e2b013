"""The command line: quick help, one line for each mistake, exit codes that scripts can rely on."""

import os
import subprocess
import sys

import pytest

from workbench.__main__ import main


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
    monkeypatch.setattr("workbench.notebooks.run_notebooks", lambda *arguments: asked.append(arguments) or failed)
    assert main(["run", "one", "two", "--in-place", "--config", str(config.path)]) == code
    ((names, settings, in_place),) = asked
    assert (names, settings.results, in_place) == (["one", "two"], config.path.parent / "results", True)


def test_interruption_exits_130(config, monkeypatch, capsys):
    def interrupted(*_) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.notebooks.run_notebooks", interrupted)
    assert main(["run", "--config", str(config.path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_module_runs_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "workbench"], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert "the following arguments are required: COMMAND" in done.stderr
