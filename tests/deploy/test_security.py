"""What looks for holes: bandit in the program, a search for secrets, the list of parts, the look-up of known holes."""

import json
import re
import secrets
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, free_port
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings
from test_house import SOURCES, in_repository, normal

pytestmark = pytest.mark.slow

# What bandit says of the program and is right about nothing: its test, the module, what the line must hold, and why.
# Its line alone is excused, so that another of the same kind, in the same module too, is a finding.
CONSTANT = r"\{(?:[A-Z_]+|', '\.join\('\?' \* len\(\w+\)\))\}"
EXCUSED = {
    # mypy needs an assert here and there, none guards against a user, and nothing runs with -O: ruff ignores S101 too.
    ("B101", "*", r"\bassert\b"),
    # The pickle is read opcode by opcode and what would call anything is refused (tests/indexing/test_loading.py).
    ("B403", "smartstore_indexing/loading.py", r"^import (?:pickle|pickletools)$"),
    # Words for people that hold "token" in their name.
    ("B105", "smartstore_ui/naming.py", r"첫 글자"),
    ("B105", "smartstore_workflows/tracing.py", r"first token"),
    # Compared with, to show an address that a browser can open; SMARTSTORE_SERVER__HOST is 127.0.0.1 unless it is set.
    ("B104", "smartstore_ui/serving.py", r"shown = "),
    # Samples that must be the same for the same seed; tokens and ids come from `secrets`.
    ("B311", "smartstore_workflows/finetuning.py", r"random\.Random\("),
    ("B311", "smartstore_workflows/fitting.py", r"random\.Random\("),
    # What stands in the statement is a constant of the module or question marks; values go beside it.
    ("B608", "smartstore_workflows/cache_stores.py", CONSTANT),
    ("B608", "smartstore_workflows/records.py", CONSTANT),
}
HOLES = {
    "B602": "import subprocess\ndef run(name: str) -> None:\n    subprocess.run(f'ls {name}', shell=True)\n",
    "B608": "def of(session_id: str) -> str:\n    return f\"SELECT run FROM runs WHERE session_id = '{session_id}'\"\n",
    "B301": "import pickle\ndef read(body: bytes) -> object:\n    return pickle.loads(body)\n",
    "B501": "import httpx\nclient = httpx.get('https://example.com', verify=False)\n",
}

# Every detector of the package, its heuristics against obvious non-secrets, and neither its comments that excuse a line
# nor its look-ups at the services whose keys it finds.
DETECTORS = [
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "CloudantDetector",
    "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "IbmCloudIamDetector",
    "IbmCosHmacDetector", "JwtTokenDetector", "KeywordDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector",
    "PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector", "SoftlayerDetector",
    "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
]  # fmt: skip
HEURISTICS = [
    "is_indirect_reference", "is_likely_id_string", "is_lock_file", "is_not_alphanumeric_string", "is_potential_uuid",
    "is_prefixed_with_dollar_sign", "is_sequential_string", "is_swagger_file", "is_templated_secret",
]  # fmt: skip
SEARCH = {
    "plugins_used": [
        *({"name": name} for name in DETECTORS),
        {"name": "Base64HighEntropyString", "limit": 4.5},
        {"name": "HexHighEntropyString", "limit": 3.0},
    ],
    "filters_used": [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in HEURISTICS],
}
# What OpenAI hands out to projects now has nothing that the package's detector knows.
OPENAI = re.compile(r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{32,}")
# A password that a test makes up reads as words: small letters, and at most four digits.
MADE_UP = ("Secret Keyword", "Basic Auth Credentials")
NO_SECRETS = {
    ("ui/smartstore_ui/chat/chainlit_home.py", "Secret Keyword"): r"page(?:\.secret)?",  # the names of files
    # The names of Secrets.
    ("deploy/kubernetes/base/ingress.yaml", "Secret Keyword"): r"smartstore-tls",
    ("deploy/kubernetes/overlays/production/milvus.yaml", "Secret Keyword"): r"milvus-storage",
    (
        "deploy/kubernetes/overlays/production/kustomization.yaml",
        "Secret Keyword",
    ): r"name: (?:postgresql-app|rabbitmq-default-user)\s+key: (?:username|password)\s.*",
    # The names of fields.
    ("tests/deploy/schemas/postgresql.cnpg.io_cluster_v1.json", "Base64 High Entropy String"): r"ClusterSpec[A-Za-z]+",
    ("tests/deploy/test_compose.py", "Base64 High Entropy String"): r".*VLLM_LORA=smartstore-faq=/adapters/mine.*",
    ("tests/workflows/test_prompting.py", "Hex High Entropy String"): r"[0-9a-f]{16}",  # digests of prompts
}
# The weights of the encoder and its 100,000 words, which take half a minute.
NOT_SEARCHED = {f"indexing/smartstore_indexing/encoder/{name}" for name in ("model.onnx", "tokenizer.json")}


def holes(*folders: Path) -> list[dict[str, Any]]:
    """Return all that bandit finds; what it cannot read fails."""
    found = subprocess.run(
        [sys.executable, "-m", "bandit", "--quiet", "--format", "json", "--ignore-nosec", "--recursive", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(found.stdout)
    assert report["errors"] == []
    assert report["metrics"]["_totals"]["loc"] > 0
    results: list[dict[str, Any]] = report["results"]
    return results


def lines_of(hole: dict[str, Any]) -> str:
    lines = (ROOT / hole["filename"]).read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[number - 1] for number in hole["line_range"])


def excuses(hole: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Return what excuses a finding; where a statement is made of parts, all of them must be excused."""
    text = lines_of(hole)
    return {
        (test, module, pattern)
        for test, module, pattern in EXCUSED
        if test == hole["test_id"]
        and (module == "*" or hole["filename"].endswith(f"/{module}"))
        and re.search(pattern, text, re.MULTILINE)
        and (test != "B608" or not re.search(r"\{", re.sub(CONSTANT, "", text)))
    }


def test_bandit_finds_nothing_in_the_program() -> None:
    found = holes(*(source / package for package, source in SOURCES.items()))
    used = [excuses(hole) for hole in found]

    open_holes = [
        f"{hole['filename']}:{hole['line_number']}: {hole['test_id']} {hole['issue_text']}"
        for hole, excused in zip(found, used, strict=True)
        if not excused
    ]
    assert open_holes == []
    assert set().union(*used) == EXCUSED  # what is found no more is excused no more


def test_bandit_finds_what_is_put_there(tmp_path: Path) -> None:
    """Put each hole where its kind is excused elsewhere in the module."""
    module = tmp_path / "smartstore_workflows" / "records.py"
    module.parent.mkdir()
    for test, text in HOLES.items():
        module.write_text(text, encoding="utf-8")
        found = holes(tmp_path)

        assert test in {hole["test_id"] for hole in found if not excuses(hole)}, test


@pytest.fixture(scope="module", autouse=True)
def search() -> Iterator[None]:
    with transient_settings(SEARCH):
        yield


def found_in(name: str, root: Path = ROOT) -> set[tuple[str, str]]:
    """Return the kinds and values of what looks like a secret in a file."""
    path = root / name
    text = path.read_text(encoding="utf-8", errors="replace")
    found = {(secret.type, str(secret.secret_value)) for secret in scan_file(str(path))}
    return found | {("OpenAI Project Key", match[0]) for match in OPENAI.finditer(text)}


def harmless(name: str, kind: str, value: str) -> bool:
    if name.startswith("tests/") and kind in MADE_UP:
        return value == value.lower() and sum(map(str.isdigit, value)) <= 4
    return re.fullmatch(NO_SECRETS.get((name, kind), "(?!)"), value, re.DOTALL) is not None


def test_no_file_holds_a_secret() -> None:
    searched = set(in_repository()) - NOT_SEARCHED
    assert len(in_repository()) - len(searched) == len(NOT_SEARCHED)
    found = [(name, *secret) for name in searched for secret in found_in(name)]

    assert [(name, kind, value[:4] + "…") for name, kind, value in found if not harmless(name, kind, value)] == []
    assert {(name, kind) for name, kind, _ in found} >= NO_SECRETS.keys()


def invented(kind: str) -> str:
    """Return a line with a secret of that kind which opens nothing; put together here, or this file would hold it."""
    letters = string.ascii_uppercase + "234567"
    lot = "".join(secrets.choice(letters) for _ in range(120))
    return {
        "aws": f'aws_access_key_id = "{"AK" + "IA"}{lot[:16]}"',
        "openai": f"OPENAI_API_KEY={'s' + 'k-'}{lot[:20]}T3Blbk" + f"FJ{lot[20:40]}",
        "openai of a project": f"curl -H 'Authorization: Bearer {'s' + 'k-proj-'}{lot[:100]}'",
        "private key": "-----BEGIN " + "RSA PRIVATE KEY-----\n" + lot,
        "password in an address": f"url = amqp://smartstore:{secrets.token_hex(16)}@rabbitmq:5672/",
        "password of make env": f'REDIS_PASSWORD = "{secrets.token_hex(16)}"',
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["aws", "openai", "openai of a project", "private key", "password in an address", "password of make env"],
)
@pytest.mark.parametrize("name", ["compose.yaml", "README.md", "deploy/env.sh", "tests/served.py"])
def test_a_secret_in_a_copy_of_a_file_is_found(tmp_path: Path, name: str, kind: str) -> None:
    copy = tmp_path / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    text = (ROOT / name).read_text(encoding="utf-8")
    copy.write_text(f"{text}\n{invented(kind)}\n", encoding="utf-8")

    assert [secret for secret in found_in(name, tmp_path) - found_in(name) if not harmless(name, *secret)]


def test_sbom_names_what_is_locked_and_nothing_of_this_machine(tmp_path: Path) -> None:
    target = tmp_path / "made" / "sbom.json"
    subprocess.run(["bash", ROOT / "deploy" / "sbom.sh", target], cwd=tmp_path, check=True, capture_output=True)

    text = target.read_text(encoding="utf-8")
    bom = json.loads(text)
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", lock, re.MULTILINE)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert len(pins) > 100
    assert {(normal(part["name"]), part["version"]) for part in bom["components"]} == {
        (normal(name), version) for name, version in pins
    }
    assert bom["metadata"]["component"]["name"] == "smartstore-chatbot"
    licensed = [part for part in bom["components"] if part.get("licenses")]
    assert len(licensed) > 0.9 * len(pins)
    needs = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"]}
    assert needs.keys() - {"root-component"} == {part["bom-ref"] for part in bom["components"]}
    assert any(ref.startswith("chainlit==") for ref in needs["root-component"])
    assert re.findall(r"pypi\.org|pythonhosted|file:", text) == []
    assert [place for place in (str(ROOT), str(Path.home()), str(tmp_path)) if f"{place}/" in text] == []


def test_sbom_of_another_environment_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    (copy / "deploy").mkdir(parents=True)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    for name in ("deploy/sbom.sh", "pyproject.toml", "README.md", "requirements.lock"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    lock = copy / "requirements.lock"
    lock.write_text(
        re.sub(r"^starlette==\S+", "starlette==0.1", lock.read_text(encoding="utf-8"), flags=re.MULTILINE),
        encoding="utf-8",
    )
    made = subprocess.run(
        ["bash", copy / "deploy" / "sbom.sh", tmp_path / "sbom.json"], check=False, capture_output=True, text=True
    )

    assert made.returncode != 0
    assert re.search(r"starlette.*make setup-dev", made.stderr)
    assert not (tmp_path / "sbom.json").exists()


@contextmanager
def vulnerabilities(*, of: str | None, status: int = 200) -> Iterator[str]:
    """Yield the address of a database of vulnerabilities, in the protocol of OSV, that knows one of that package."""
    known = {
        "id": "PYSEC-0000-1",
        "affected": [
            {
                "package": {"name": of, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.1"}]}],
            }
        ],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"vulns": [known]} if asked["package"]["name"] == of else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def audited(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    asked = ["--vulnerability-service", "osv", "--osv-url", url, "--cache-dir", folder / "cache"]
    return subprocess.run(
        ["bash", ROOT / "deploy" / "audit.sh", *asked], cwd=folder, check=False, capture_output=True, text=True
    )


def test_audit_ends_well_when_every_package_is_known_to_have_no_hole(tmp_path: Path) -> None:
    with vulnerabilities(of=None) as url:
        done = audited(url, tmp_path)

    assert (done.returncode, "알려진 취약점이 없습니다" in done.stdout) == (0, True), done.stderr


def test_audit_names_a_package_with_a_hole(tmp_path: Path) -> None:
    with vulnerabilities(of="starlette") as url:
        done = audited(url, tmp_path)

    assert done.returncode == 1
    assert re.search(r"starlette \S+: PYSEC-0000-1 \(고친 버전: 999\.1\)", done.stdout)


def test_audit_that_cannot_reach_the_database_says_that_nothing_was_checked(tmp_path: Path) -> None:
    with vulnerabilities(of=None, status=503) as url:
        refused = audited(url, tmp_path)
    away = audited(f"http://127.0.0.1:{free_port()}/v1/query", tmp_path)

    for done in (refused, away):
        assert (done.returncode, done.stdout) == (2, "")
        assert "확인하지 못했습니다" in done.stderr
        assert "닿지 못했습니다" in done.stderr
