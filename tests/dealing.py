"""How the tests are dealt out to the workers of pytest-xdist: `make test` starts two."""

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types
from xdist.workermanage import NodeManager  # type: ignore[import-untyped]

# Each folder's tests share servers, which take a core many seconds to start.
TOGETHER = ("tests/ui/api/", "tests/ui/chat/")
# At an interruption a worker is told after 5 s and leaves 10 s later at the latest. Killed before, as it is after the
# plugin's own 10 s, it leaves its servers behind.
NodeManager.EXIT_TIMEOUT = 20


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker that has nothing left a whole file, or a whole folder of those that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        return next(filter(nodeid.startswith, TOGETHER), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FileScheduling:
    """Return what deals the tests out."""
    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest, so that no worker begins it when the other is nearly done."""
    items.sort(key=lambda item: (not item.nodeid.startswith(TOGETHER), item.get_closest_marker("slow") is None))
