#!/usr/bin/env bash
# Writes the passwords that compose.yaml asks for into .env, where they are missing. `make env` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077
empty="(\"\"|'')?[[:space:]]*(#.*)?\$"  # what may stand after NAME= where there is no value

random() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# In place, so that a link stays one and a half written file is never read.
target=$(readlink -f .env)
work=$(mktemp "$target.XXXXXX")
trap 'rm -f "$work"' EXIT
[ ! -e "$target" ] || cat "$target" > "$work"

made=()
# Keeps a variable that has a value; fills an empty one; adds a missing one.
want() {
    local name=$1 value=$2 line="^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*="
    if grep -E "$line" "$work" | tail -n 1 | grep -qvE "$line[[:space:]]*$empty"; then return; fi
    if grep -qE "$line" "$work"; then sed -i -E "s/$line[[:space:]]*$empty/$name=$value/" "$work"
    else
        [ -z "$(tail -c 1 "$work")" ] || echo >> "$work"
        printf '%s=%s\n' "$name" "$value" >> "$work"
    fi
    made+=("$name")
}

want MINIO_ROOT_USER smartstore
want MINIO_ROOT_PASSWORD "$(random 16)"
want MILVUS_ROOT_PASSWORD "$(random 16)"
want REDIS_PASSWORD "$(random 16)"
want RABBITMQ_USER smartstore
want RABBITMQ_PASSWORD "$(random 16)"
want POSTGRES_PASSWORD "$(random 16)"
want GRAFANA_ADMIN_PASSWORD "$(random 16)"
want SMARTSTORE_CHAT__SECRET "$(random 32)"
want SMARTSTORE_SERVER__API_KEYS "$(random 16)"
want SMARTSTORE_VLLM__API_KEY "$(random 16)"

chmod 600 "$work"
mv "$work" "$target"
if [ ${#made[@]} = 0 ]; then echo ".env에 필요한 값이 모두 있어 그대로 두었습니다."
else echo ".env에 다음을 만들어 적었습니다(다른 줄은 그대로입니다): ${made[*]}"; fi
echo "이제 docker compose up -d 로 시작할 수 있습니다."
