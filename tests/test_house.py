"""The rules that no linter knows: which way imports run, what an import may do, what stands in the repository."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

# Each package and the ones of ours that it may import.
MAY_IMPORT = {
    "smartstore_indexing": {"smartstore_indexing"},
    "smartstore_workflows": {"smartstore_workflows", "smartstore_indexing"},
    "smartstore_ui": {"smartstore_ui", "smartstore_workflows", "smartstore_indexing"},
}
SOURCES = {
    "smartstore_indexing": ROOT / "indexing",
    "smartstore_workflows": ROOT / "workflows",
    "smartstore_ui": ROOT / "ui",
}
LOCKS = ["requirements.lock", "requirements-dev.lock"]
MAX_LINES = 300
LONGER: dict[str, str] = {}  # a longer module's path, and why
ADR_HEADINGS = ["Context", "Decision", "Consequences", "Alternatives", "References"]
NOT_IN_THE_REPOSITORY = {
    "a package registry": re.compile(
        r"pypi\.org|pythonhosted\.org|/opt/(?:wheels|pypi)|--(?:extra-)?index-url|--find[-]links"
    ),
    "a path of the machine it was written on": re.compile(r"/work[/]|/tmp[/]\w"),
}
LABELLED = re.compile(r"(?:^|/)(?:dev_[^/]*\.jsonl|final_result\.[^/]*)$")
# Imports every module and names what it did beyond importing.
IMPORT_ALL = """
import importlib, os, pkgutil, sys
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
ENDPOINTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "sqlite3.connect", "subprocess.Popen"}
done = []
def audit(event, arguments):
    if event in ENDPOINTS:
        done.append(f"{event} {arguments[1:]}")
    if event == "open":
        path, mode, flags = arguments
        # A number is a file that was opened by name before. Chainlit writes into its folder whatever we do.
        if str(path).startswith(os.environ["CHAINLIT_APP_ROOT"]):
            return
        if flags & WRITES and isinstance(path, (str, bytes)) and "__pycache__" not in str(path) and path != os.devnull:
            done.append(f"open {path} {mode}")
sys.addaudithook(audit)
for package in sys.argv[1:]:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        importlib.import_module(module.name)
        print(module.name)
if done:
    sys.exit("\\n".join(done))
"""


def modules() -> Iterator[tuple[str, Path]]:
    """Yield every module of ours with the package that it belongs to."""
    for package, source in SOURCES.items():
        yield from ((package, path) for path in sorted((source / package).rglob("*.py")))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of everything that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def in_repository() -> list[str]:
    """Return the paths that git holds, or would hold once they are added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def dependencies() -> list[str]:
    """Return the names of what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [normal(re.split(r"[\s\[<>=~!;]", needed)[0]) for needed in project["dependencies"]]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def section(text: str, heading: str) -> str:
    """Return what stands under a heading of the second level."""
    _, _, after = text.partition(f"\n## {heading}\n")
    return after.partition("\n## ")[0]


def adrs() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("*.md"))


def test_imports_run_from_ui_to_workflows_to_indexing() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package, path in modules()
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if name.split(".")[0] in MAY_IMPORT.keys() - MAY_IMPORT[package]
    ]

    assert wrong == []


def test_only_the_page_waits_for_chainlit() -> None:
    page = ROOT / "ui" / "smartstore_ui" / "chat"
    importing = {
        path
        for _, path in modules()
        if any(name.split(".")[0] == "chainlit" for name in imported(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert importing
    assert {path.parent for path in importing} == {page}


def test_nothing_is_imported_by_the_name_of_its_folder() -> None:
    names = {f"{source.name}.{package}" for package, source in SOURCES.items()}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in [*(path for _, path in modules()), *(ROOT / "tests").rglob("*.py")]
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if ".".join(name.split(".")[:2]) in names
    ]

    assert wrong == []


@pytest.mark.parametrize("folder", [source.name for source in SOURCES.values()])
def test_top_level_folder_is_no_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_workflows_is_llamaindexs_package_even_in_the_checkout() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import workflows; print(workflows.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "site-packages" in Path(found.stdout.strip()).parts


@pytest.mark.slow
def test_importing_any_module_opens_nothing(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    chainlits = tmp_path_factory.mktemp("chainlit")
    imported = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *SOURCES],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "", "CHAINLIT_APP_ROOT": str(chainlits)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert imported.returncode == 0, imported.stderr
    named = [path for _, path in modules() if path.name != "__init__.py" or path.parent.name not in SOURCES]
    assert len(imported.stdout.splitlines()) == len(named)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_file_is_pinned_by_hash(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    pins = text.replace("\\\n", " ").splitlines()

    assert pins
    assert [
        pin for pin in pins if not re.fullmatch(r"\S+==\S+(?: ; [^\\]+?)?(?:\s+--hash=sha256:[0-9a-f]{64})+", pin)
    ] == []
    assert re.findall(r"https?:|file:|--\S*(?:index-url|find-links)", text) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_locked(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    locked = {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", text, re.MULTILINE)}

    assert [name for name in dependencies() if name not in locked] == []


def test_both_lock_files_pin_the_same_versions() -> None:
    run, dev = (
        dict(re.findall(r"^(\S+)==(\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)) for lock in LOCKS
    )

    assert {name: (version, dev.get(name)) for name, version in run.items() if dev.get(name) != version} == {}


def test_readme_gives_a_reason_for_every_dependency_and_no_other() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| (.+) \|$", section((ROOT / "README.md").read_text(encoding="utf-8"), "의존성"), re.M
    )

    assert sorted(name for name, _ in rows) == sorted(dependencies())
    assert [name for name, reason in rows if not re.search("[가-힣]", reason)] == []


def test_changelog_has_a_section_for_what_is_not_released() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in adrs()]

    assert numbers
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", adrs(), ids=lambda path: path.stem)
def test_decision_has_its_number_and_headings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith(f"# {path.name[:4]} ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ADR_HEADINGS
    assert [heading for heading in ADR_HEADINGS if not section(text, heading).strip()] == []


@pytest.mark.parametrize("what", NOT_IN_THE_REPOSITORY)
def test_no_file_names(what: str) -> None:
    found = [
        f"{name}: {match[0]}"
        for name in in_repository()
        for match in NOT_IN_THE_REPOSITORY[what].finditer((ROOT / name).read_text(encoding="utf-8", errors="replace"))
    ]

    assert found == []


def test_labelled_data_stays_out_of_the_repository() -> None:
    assert [name for name in in_repository() if LABELLED.search(name)] == []


@pytest.mark.parametrize(
    "path",
    [".env", ".venv/bin/python", "ui/smartstore_ui/__pycache__/cli.cpython-311.pyc", ".mypy_cache/x", "dist/x.whl"],
)
def test_git_ignores_what_is_made(path: str) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for _, path in modules()}

    assert {name for name, length in lengths.items() if length > MAX_LINES} == LONGER.keys()
