"""What the tests of this folder share."""

import pytest

from tests.datasets import tiny


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A dataset that nobody interrupted."""
    return tiny.make(tmp_path_factory.mktemp("whole") / "data")
