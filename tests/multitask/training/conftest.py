"""Batches that training draws."""

import pytest

from multitask.tasks import base, generate_trials
from multitask.trials import TrialBatch


@pytest.fixture
def batches(monkeypatch) -> list[TrialBatch]:
    """All batches that training draws, in order."""
    made: list[TrialBatch] = []

    def generate(*args, **kwargs):
        made.append(generate_trials(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(base, "generate_trials", generate)
    return made
