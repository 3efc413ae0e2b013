"""What a reader of a notebook sees of the settings, and what she reads when they are not found."""

import pytest
from IPython.core.formatters import DisplayFormatter

from workbench.settings import ConfigError, load_settings


def shown(value: object) -> str:
    return DisplayFormatter().format(value)[0]["text/plain"]


def test_jupyter_shows_few_lines_and_the_way_to_all_values(settings):
    first, sections, further = shown(settings).splitlines()
    assert first == f"Settings: seed {settings.seed}, device cpu, results in {settings.results}"
    assert "lorenz, compositional, " in sections
    assert "print(settings) all values" in further
    assert shown(settings.lorenz) == str(settings.lorenz)


def test_settings_in_a_folder_above_are_named(config, monkeypatch):
    (config.path.parent / "mine").mkdir()
    monkeypatch.chdir(config.path.parent / "mine")
    monkeypatch.delenv("COMPUTE_ALIKE_CONFIG", raising=False)
    with pytest.raises(
        ConfigError, match=rf"; there is {config.path.resolve()}\. Give a settings file with --config, "
    ):
        load_settings()
