"""A folder for Chainlit, which writes where CHAINLIT_APP_ROOT points as soon as it is imported, and real databases."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator

import pytest
from databases import own_postgres, postgres

__all__ = ["own_postgres", "postgres"]
environment = pytest.MonkeyPatch()
root = tempfile.mkdtemp(prefix="chainlit-")
environment.setenv("CHAINLIT_APP_ROOT", root)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports, which the tests would take for errors of ours
    import chainlit  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def chainlit_root() -> Iterator[str]:
    """Remove the folder at the end."""
    yield root
    environment.undo()
    shutil.rmtree(root)
