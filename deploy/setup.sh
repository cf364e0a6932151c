#!/usr/bin/env bash
# Makes .venv/ and installs a lock file and this project into it. `make setup` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1
python=${PYTHON:-python3.11}

fail() { printf '%s\n' "$@" >&2; exit 1; }

. deploy/as_root.sh

command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 이상이 필요합니다. Debian 12에서는: sudo apt-get install python3"

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        echo "python3-venv를 설치합니다…" >&2
        { as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv >/dev/null; } ||
            fail "가상 환경을 만들 수 없습니다. 관리자에게 다음을 요청해 주세요: sudo apt-get install python3-venv"
    fi
    "$python" -m venv --clear .venv
fi

echo "패키지를 설치합니다 (처음에는 1~2분 걸립니다)…" >&2
uv_lock=$(mktemp)
trap 'rm -f "$uv_lock"' EXIT
# The lines of the lock file that pin uv: "uv==…" and the hashes indented below it.
awk '/^[^ #]/ { wanted = /^uv==/ } wanted' "$lock" > "$uv_lock"
.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r "$uv_lock" ||
    fail "uv를 설치하지 못했습니다. 네트워크와 패키지 저장소 설정을 확인해 주세요."
.venv/bin/uv pip install -q --python .venv/bin/python --require-hashes -r "$lock" ||
    fail "패키지를 설치하지 못했습니다. 네트워크와 패키지 저장소 설정을 확인한 뒤 다시 실행해 주세요."
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
