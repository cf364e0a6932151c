"""The image's Dockerfile: a linter, what goes into the image, and that the program needs no other place to write."""

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from composing import COMPOSE, DOCKERFILE, image_environment, loaded, roles
from conftest import ROOT, wait_until
from served import listens

BIN = Path(sys.executable).parent
HADOLINT = BIN / "hadolint"
START_SECONDS, BUILD_SECONDS = 120.0, 600
# Runs the program and writes down each place that it writes to; ours are those of the container.
AUDITED = """
import os, sys
from pathlib import Path
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"}
notes = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND)
def audit(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or not flags & WRITES:
            return
    elif event not in CHANGES:
        return
    else:
        path = arguments[0]
    os.write(notes, (os.path.abspath(os.fsdecode(path)) + "\\n").encode())
sys.addaudithook(audit)
from smartstore_ui.cli import main
sys.exit(main())
"""


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(HADOLINT), "--no-color", "--failure-threshold", "style", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def stages() -> list[str]:
    """Return the stages, continued lines joined and comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return ["FROM " + stage for stage in text.split("FROM ")[1:]]


def runs(stage: str) -> list[str]:
    return re.findall(r"^RUN (.+)$", stage, re.MULTILINE)


def in_context(name: str) -> bool:
    """Tell whether .dockerignore lets a file into the build context: the last pattern that fits says."""
    taken = True
    for pattern in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if pattern and not pattern.startswith("#"):
            bare = pattern.removeprefix("!")
            parts = [name, *map(str, list(Path(name).parents)[:-1])]
            names = parts if not bare.startswith("**/") else [Path(part).name for part in parts]
            if any(fnmatch.fnmatchcase(part, bare.removeprefix("**/")) for part in names):
                taken = pattern.startswith("!")
    return taken


def test_linter_has_nothing_to_say() -> None:
    result = lint(DOCKERFILE)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_linter_objects_to_a_base_that_is_not_pinned(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    text = DOCKERFILE.read_text(encoding="utf-8")
    broken.write_text(re.sub(r"python:\S+", "python:latest", text), encoding="utf-8")

    assert "DL3007" in lint(broken).stdout


def test_both_stages_stand_on_one_pinned_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bases = {stage.split()[1] for stage in stages()}

    assert len(stages()) == 2
    assert [base for base in bases if not re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)] == []
    assert len(bases) == 1
    assert project["requires-python"] == ">=3.11"


def test_last_stage_holds_no_compiler_and_is_nobody() -> None:
    build, last = stages()

    assert "USER 10001:10001\n" in last
    assert re.findall(r"apt|pip|gcc|build-essential", "\n".join(runs(last))) == []
    assert "VOLUME" not in last
    assert re.search(r'^ENTRYPOINT \["smartstore"\]$', last, re.MULTILINE)
    assert re.search(r'^CMD \["serve"\]$', last, re.MULTILINE)
    assert "uv pip install --require-hashes --compile-bytecode -r requirements.lock" in build
    assert "uninstall uv hatchling editables" in build


def test_image_has_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    images = {role["image"] for role in roles(loaded()).values()}

    assert images == {f"smartstore-chatbot:{project['version']}"}


def test_health_check_of_the_image_asks_whether_it_lives_and_compose_whether_it_is_ready() -> None:
    image = re.search(r"urlopen\(.+?\)", stages()[1].replace('\\"', '"'))
    compose = re.search(r"urlopen\(.+?\)", COMPOSE.read_text(encoding="utf-8"))

    assert image is not None
    assert compose is not None
    assert image[0].replace("healthz", "readyz") == compose[0]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("requirements.lock", True),
        ("pyproject.toml", True),
        ("README.md", True),
        ("ui/smartstore_ui/chat/page_files/public/page.js", True),
        ("indexing/smartstore_indexing/sample/faq.jsonl", True),
        ("indexing/smartstore_indexing/encoder/model.onnx", True),
        (".env", False),
        ("ui/.env", False),
        (".git/config", False),
        (".venv/bin/python", False),
        (".data/milvus.db", False),
        ("data/final_result.pkl", False),
        ("indexing/mine.pkl", False),
        ("tests/conftest.py", False),
        ("deploy/kubernetes/base/secret.yaml", False),
        ("ui/smartstore_ui/__pycache__/cli.cpython-311.pyc", False),
    ],
)
def test_build_context_takes_the_program_alone(name: str, taken: bool) -> None:
    assert in_context(name) is taken


def test_what_is_copied_is_in_the_build_context() -> None:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", stages()[0], re.MULTILINE)
    copied = [name for line in lines for name in line.split()]

    assert {"requirements.lock", "indexing", "workflows", "ui"} <= set(copied)
    assert [name for name in copied if not ((ROOT / name).exists() and in_context(name))] == []


@pytest.mark.slow
def test_program_writes_below_data_and_tmp_alone(indexed_dir: Path, tmp_path: Path) -> None:
    """Both doors and the chat page's files, with nothing set but what the image sets."""
    for name in ("tmp", "elsewhere"):
        (tmp_path / name).mkdir()
    shutil.copytree(indexed_dir, tmp_path / "data")
    notes, log = tmp_path / "notes", tmp_path / "log"
    notes.touch()
    given = image_environment() | {"SMARTSTORE_SERVER__HOST": "127.0.0.1", "SMARTSTORE_SERVER__PORT": "0"}
    given |= {"HOME": str(tmp_path / "data"), "SMARTSTORE_DATA_DIR": str(tmp_path / "data")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", AUDITED, notes, "serve"],
            cwd=tmp_path / "elsewhere",
            env=given | {"TMPDIR": str(tmp_path / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: (found := url_in(log)) != "" and listens(int(found.rpartition(":")[2])), START_SECONDS)
        served = url_in(log)
        for path in ("/", "/docs/", "/readyz"):
            subprocess.run([sys.executable, "-c", FETCH, served + path], timeout=60, check=True)
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    written = set(notes.read_text(encoding="utf-8").splitlines())
    allowed = (str(tmp_path / "data"), str(tmp_path / "tmp"), "/dev/")
    assert any(path.startswith(allowed[0]) for path in written)
    assert sorted(path for path in written if not path.startswith(allowed)) == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


FETCH = "import sys, urllib.request; assert urllib.request.urlopen(sys.argv[1], timeout=30).status == 200"


def url_in(log: Path) -> str:
    found = re.search(r"(http://\S+) 에서 답합니다", log.read_text(encoding="utf-8"))
    return found[1] if found else ""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(BUILD_SECONDS)
def test_builders_steps_make_a_program_that_starts(tmp_path: Path) -> None:
    """Run the RUN lines of the builder in a folder, with this machine's Python where the base's stands."""
    source, target = tmp_path / "src", tmp_path / "smartstore"
    source.mkdir()
    for name in ("requirements.lock", "pyproject.toml", "README.md", "indexing", "workflows", "ui"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    base = tmp_path / "base"  # what is installed into the base's own Python goes here
    subprocess.run([sys.executable, "-m", "venv", base], check=True, timeout=BUILD_SECONDS)
    given = [f"PATH={base}/bin:/usr/bin:/bin", "UV_NO_CACHE=1", "UV_LINK_MODE=copy", f"UV_PYTHON={target}/bin/python"]
    for step in runs(stages()[0]):
        # What this machine says of its package registries is inherited.
        command = ["env", *given, "bash", "-euo", "pipefail", "-c", step.replace("/opt/smartstore", str(target))]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    program = target / "bin" / "smartstore"
    shown = subprocess.run(
        [program, "doctor"], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "색인" in shown.stdout + shown.stderr
    assert not (target / "bin" / "uv").exists()
    assert list(target.rglob("smartstore_ui/__pycache__/cli.*.pyc"))
    assert str(ROOT) not in "".join(path.read_text() for path in target.rglob("*.pth"))
