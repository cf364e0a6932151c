#!/usr/bin/env bash
# Installs the servers that the tests start themselves, where they are missing. `make setup-dev` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

. deploy/as_root.sh

packages=()
command -v redis-server >/dev/null || packages+=(redis-server)
command -v chromium >/dev/null || packages+=(chromium)
fc-list :lang=ko 2>/dev/null | grep -q . || packages+=(fontconfig fonts-nanum)
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || packages+=(postgresql)
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || packages+=(rabbitmq-server)
[ ${#packages[@]} = 0 ] && exit 0

echo "시험에 쓰는 서버를 설치합니다: ${packages[*]}…" >&2
# RUNLEVEL=1: Debian's packages would start a server of their own.
{ as_root apt-get update -qq &&
    as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } || {
    echo "설치하지 못했습니다. 관리자에게 다음을 요청해 주세요: sudo apt-get install ${packages[*]}" >&2
    exit 1
}
