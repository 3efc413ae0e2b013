"""What all tests share: one thread, no windows, seeded randomness.

Results then do not depend on how many workers run the tests, and two workers do not take each other's cores.
"""

import os

os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=500)  # pytest --hypothesis-profile nightly
hypothesis.settings.load_profile("ci")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
