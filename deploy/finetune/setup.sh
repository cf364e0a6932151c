#!/usr/bin/env bash
# Makes .venv/finetune/ with PyTorch's CPU build and what trains with it. `make test-finetune` calls it after `setup`.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/finetune/bin/python
pinned=$(sed -n 's/^torch==//p' deploy/finetune/requirements.txt)

[ -x "$python" ] || .venv/bin/python -m venv .venv/finetune
echo "PyTorch(CPU용)와 학습 도구를 설치합니다 (디스크 1.5GB, 몇 분 걸립니다)…" >&2
# The registry that pip is set to may hold the CPU build; if not, uv knows where PyTorch keeps it. A plain "torch" would
# bring several GB of CUDA.
"$python" -m pip install -q --disable-pip-version-check "torch==$pinned+cpu" 2>/dev/null ||
    .venv/bin/uv pip install -q --python "$python" --torch-backend cpu "torch==$pinned"
"$python" -m pip install -q --disable-pip-version-check -r deploy/finetune/requirements.txt
