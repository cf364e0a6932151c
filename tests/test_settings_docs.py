"""README's table of settings is the settings'."""

from conftest import ROOT

from smartstore_indexing.loading import SAMPLE
from smartstore_indexing.settings import variables


def table() -> str:
    """Return the rows that README.md must hold."""
    rows = []
    for name, (default, description) in variables().items():
        shown = "예시 FAQ" if default == SAMPLE else "" if default is None else str(default)
        rows.append(f"| `{name}` | {shown.strip('*')} | {description} |")
    return "\n".join(rows)


def test_readme_lists_every_setting_with_its_default() -> None:
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8")
