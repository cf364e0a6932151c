#!/usr/bin/env bash
# Looks up the known vulnerabilities of what requirements.lock pins. `make audit` calls it; further arguments are
# pip-audit's. It ends with 0 only when every package was looked up and none has one, 1 when one has, 2 when it cannot tell.
set -euo pipefail
cd "$(dirname "$0")/.."
found=$(mktemp)
errors=$(mktemp)
trap 'rm -f "$found" "$errors"' EXIT

unknown() {
    printf '%s\n' "취약점을 확인하지 못했습니다: $1" \
        "결과가 '없음'이 아니라 '모름'입니다. 인터넷에 닿는 컴퓨터에서 다시 실행해 주세요." >&2
    exit 2
}

code=0
.venv/bin/pip-audit --requirement requirements.lock --disable-pip --progress-spinner off --format json \
    --output "$found" "$@" 2> "$errors" || code=$?
[ -s "$found" ] || unknown "취약점 데이터베이스에 닿지 못했습니다 ($(tail -n 1 "$errors" | cut -c 1-200))."
[ "$code" -le 1 ] || unknown "pip-audit이 종료 코드 ${code}로 끝났습니다."

# A package that the database answers nothing about is skipped, and pip-audit still calls the whole clean.
.venv/bin/python - "$found" <<'PY' || { code=$?; [ "$code" = 1 ] && exit 1; unknown "데이터베이스가 모르는 패키지가 있습니다."; }
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    packages = json.load(file)["dependencies"]
bad = [(one["name"], one["version"], each) for one in packages for each in one.get("vulns", [])]
for name, version, each in bad:
    fixed = ", ".join(each["fix_versions"]) or "아직 없음"
    print(f"{name} {version}: {each['id']} (고친 버전: {fixed})")
skipped = [one["name"] for one in packages if "skip_reason" in one]
if skipped or not packages:
    print(f"확인하지 못한 패키지 {len(skipped):,}개: {', '.join(skipped)}", file=sys.stderr)
if bad:
    sys.exit(1)
if skipped or not packages:
    sys.exit(2)
print(f"패키지 {len(packages):,}개에 알려진 취약점이 없습니다.")
PY
