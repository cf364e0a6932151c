# What a person types. Everything is installed into .venv/; nothing outside the checkout is touched but Debian packages
# that are missing, and those only by root.
PYTHON ?= python3.11
BIN := .venv/bin
FAQ ?=
ROWS ?=
MILVUS_HASH := 69515a0630ce29fd10e101fa442afea8ca1387b93a456cd9bd41fdf3deb93d04
PYTEST := $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev env run test test-long test-milvus test-finetune check fix bench demo audit sbom lock clean

help:  ## 이 목록을 보여 줍니다
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: .venv/.installed  ## 실행에 필요한 것을 .venv/에 설치합니다

setup-dev: .venv/.installed-dev  ## 개발과 시험에 필요한 것까지 설치합니다

.venv/.installed: requirements.lock pyproject.toml deploy/setup.sh
	@PYTHON=$(PYTHON) bash deploy/setup.sh requirements.lock
	@touch $@

.venv/.installed-dev: requirements-dev.lock pyproject.toml deploy/setup.sh deploy/test_servers.sh
	@PYTHON=$(PYTHON) bash deploy/setup.sh requirements-dev.lock
	@bash deploy/test_servers.sh
	@touch .venv/.installed $@

env:  ## docker compose가 쓸 비밀번호를 .env에 만듭니다 (있는 값은 그대로 둡니다)
	@bash deploy/env.sh

run: setup  ## 채팅 페이지를 http://127.0.0.1:8000/ 에 엽니다 (FAQ=파일 을 주면 그 FAQ로)
	@$(BIN)/smartstore index $(if $(FAQ),"$(FAQ)")
	@$(BIN)/smartstore serve

test: check  ## 모든 검사와 시험을 실행합니다
	@$(PYTEST) -m "not long and not milvus"

test-long: check  ## 횟수를 줄이지 않은 시험까지 실행합니다
	@$(PYTEST) -m "not milvus"

test-milvus: setup-dev .venv/milvus/milvus  ## 벡터 저장소의 시험을 진짜 Milvus 2.3.5에서 실행합니다 (.venv/milvus/에 설치합니다)
	@$(BIN)/python -m pytest -m milvus tests/contract/test_collections.py

# The last one that PyPI carries for Linux, by its hash; it needs no other package.
.venv/milvus/milvus:
	@echo "milvus==2.3.5 --hash=sha256:$(MILVUS_HASH)" > .venv/milvus.txt
	@$(BIN)/uv pip install -q --target .venv/milvus --require-hashes -r .venv/milvus.txt

test-finetune: setup .venv/finetune/.installed  ## 미세조정을 CPU에서 시험합니다 (PyTorch를 .venv/finetune/에 설치합니다)
	@.venv/finetune/bin/python -m pytest -c tests/finetune/pytest.ini tests/finetune

.venv/finetune/.installed: deploy/finetune/requirements.txt deploy/finetune/setup.sh
	@bash deploy/finetune/setup.sh
	@touch $@

check: setup-dev  ## 형식, 규칙, 타입을 검사합니다
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

fix: setup-dev  ## 형식과 규칙을 고칩니다
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: setup-dev  ## 성능을 재어 출력합니다
	@$(BIN)/python tests/benchmarks/answering.py $(if $(FAQ),"$(FAQ)")
	@$(BIN)/python tests/benchmarks/indexing.py $(if $(FAQ),"$(FAQ)")
	@$(BIN)/python tests/benchmarks/serving.py $(if $(FAQ),"$(FAQ)")
	@$(BIN)/python tests/benchmarks/page.py
	@$(BIN)/python tests/benchmarks/models.py
	@$(BIN)/python tests/benchmarks/queues.py
	@$(BIN)/python tests/benchmarks/queueing.py
	@$(BIN)/python tests/benchmarks/load.py
	@$(BIN)/python tests/benchmarks/growth.py $(if $(FAQ),"$(FAQ)") $(if $(ROWS),--rows $(ROWS))

demo: setup-dev  ## 채팅 페이지의 화면과 대화를 docs/demo/에 다시 만듭니다
	@$(BIN)/python tests/demo.py

audit: setup-dev  ## 잠근 패키지의 알려진 취약점을 찾습니다 (인터넷의 데이터베이스가 필요합니다)
	@bash deploy/audit.sh

sbom: setup-dev  ## 들어 있는 패키지의 목록(SBOM)을 dist/sbom.json에 씁니다
	@bash deploy/sbom.sh

lock: setup-dev  ## 잠금 파일을 다시 만듭니다
	@$(BIN)/uv pip compile -q pyproject.toml deploy/tools.in -o requirements.lock --generate-hashes --no-header --no-emit-index-url --no-annotate --python-version 3.11
	@$(BIN)/uv pip compile -q pyproject.toml deploy/tools.in --group dev -c requirements.lock -o requirements-dev.lock --generate-hashes --no-header --no-emit-index-url --no-annotate --python-version 3.11

clean:  ## .venv/와 만들어진 것을 지웁니다
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
