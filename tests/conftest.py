"""What every test shares: seeds, one thread, a fresh compiler."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# Another seed tells a statistical failure from a systematic one: NEURALOP_KIT_TEST_SEED=7 make test
SEED = int(os.environ.get("NEURALOP_KIT_TEST_SEED", "0"))

# The same examples in every run, so that a change is judged by what it changed; another seed draws others.
settings.register_profile("steady", derandomize=SEED == 0)
settings.load_profile("steady")

# Bare asserts in the shared suites then report their values as those in test files do.
pytest.register_assert_rewrite("tests.contracts")


def pytest_configure() -> None:
    # Two workers on two cores: more threads would only wait for each other, and change the order of summation.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start_for_every_test() -> Iterator[None]:
    torch.manual_seed(SEED)
    yield
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        # The limit of eight recompilations is per process; without this, tests would depend on their order.
        dynamo.reset()


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness of the test's own."""
    return torch.Generator().manual_seed(SEED)
