"""A folder for Chainlit, which writes where CHAINLIT_APP_ROOT points as soon as it is imported, and real databases."""

import shutil
import tempfile
import warnings

import pytest
from databases import own_postgres, postgres

__all__ = ["own_postgres", "postgres"]
root = tempfile.mkdtemp(prefix="chainlit-")
pytest.MonkeyPatch().setenv("CHAINLIT_APP_ROOT", root)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports, which the tests would take for errors of ours
    import chainlit  # noqa: F401


def pytest_sessionfinish() -> None:
    """Remove the folder at the end."""
    shutil.rmtree(root, ignore_errors=True)
