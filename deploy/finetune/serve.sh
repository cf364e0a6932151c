#!/usr/bin/env bash
# Serves the base model and a LoRA adapter from one vLLM: two models of one server, chosen by their names.
set -euo pipefail

[ $# -ge 1 ] || { echo "사용법: [MODEL=Qwen/Qwen3-32B] [NAME=smartstore-faq] serve.sh 어댑터-폴더 [vllm serve의 옵션…]" >&2; exit 2; }
adapter=$1
shift
config=$adapter/adapter_config.json
[ -f "$config" ] || { echo "오류: $config 파일이 없습니다. train.py가 저장한 폴더를 써 주세요." >&2; exit 1; }

rank=$(sed -n 's/^ *"r": *\([0-9]*\),\{0,1\}$/\1/p' "$config")
: "${rank:?"오류: $config에 LoRA의 r이 없습니다."}"
for most in 8 16 32 64 128 256; do  # the ranks that vLLM makes room for
    [ "$rank" -le "$most" ] && break
done

# 32,768 is what SMARTSTORE_VLLM__CONTEXT_WINDOW counts on. Options of the caller come last and win.
exec vllm serve "${MODEL:-Qwen/Qwen3-32B}" \
    --enable-lora --lora-modules "${NAME:-smartstore-faq}=$adapter" --max-lora-rank "$most" \
    --max-model-len 32768 --host 127.0.0.1 --port 8001 "$@"
