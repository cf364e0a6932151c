#!/usr/bin/env bash
# Writes the SBOM (CycloneDX JSON) of what requirements.lock installs, by default dist/sbom.json. `make sbom` calls it.
set -euo pipefail
target=$(realpath -m "${1:-$(dirname "$0")/../dist/sbom.json}")
cd "$(dirname "$0")/.."
mkdir -p "$(dirname "$target")"
work=$(mktemp)
trap 'rm -f "$work"' EXIT

# The environment knows the licences and what depends on what, which the lock file does not; it also holds what only
# developers need, which the lock file leaves out.
.venv/bin/cyclonedx-py environment .venv/bin/python --pyproject pyproject.toml --output-reproducible --no-validate -o "$work"
.venv/bin/python - "$work" requirements.lock "$target" <<'PY'
import json, re, sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

made, lock, target = map(Path, sys.argv[1:])
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
pins = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
locked = {normal(name): version for name, version in pins}
bom = json.loads(made.read_text(encoding="utf-8"))
parts = [part for part in bom["components"] if normal(part["name"]) in locked]
installed = {normal(part["name"]): part["version"] for part in parts}
if wrong := sorted(name for name, version in locked.items() if installed.get(name) != version):
    sys.exit(f".venv/가 {lock}과 다릅니다: {', '.join(wrong)}. make setup-dev로 다시 설치한 뒤 실행해 주세요.")
# What authors say of their packages and link to, registries among it, is no part of the list.
for part in [*parts, *bom["metadata"]["tools"]["components"]]:
    for told in ("description", "externalReferences"):
        part.pop(told, None)
kept = {part["bom-ref"] for part in parts} | {bom["metadata"]["component"]["bom-ref"]}
bom["components"] = parts
bom["dependencies"] = [
    {"ref": one["ref"], "dependsOn": [ref for ref in one.get("dependsOn", []) if ref in kept]}
    for one in bom["dependencies"]
    if one["ref"] in kept
]
text = json.dumps(bom, ensure_ascii=False, indent=2) + "\n"
if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    sys.exit(f"SBOM이 CycloneDX 1.6의 형식에 맞지 않습니다: {error}")
target.write_text(text, encoding="utf-8")
print(f"{target}에 패키지 {len(parts):,}개의 SBOM을 저장했습니다.")
PY
