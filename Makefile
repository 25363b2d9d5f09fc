# Everything a developer or an operator runs. `make` alone explains itself.

PYTHON ?= python3
BIN := .venv/bin
# A directory for `make run`; `make cluster` keeps its own in ./cluster-data.
DATA ?= ./data
# More arguments for pytest (`make test ARGS="-k multipart"`), the benchmark, or `s3gw up`.
ARGS ?=
# Of three workers one has the tests that mostly wait (tests/scheduling.py): two cores are busy.
TEST_WORKERS ?= 3
PARALLEL := -n $(TEST_WORKERS) --dist loadscope -p tests.scheduling --durations 40

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# With CI set, pytest explains differences of megabytes in full, which takes longer than the tests;
# and with PYTHONDONTWRITEBYTECODE every process of a store would compile the store again.
PYTEST := env -u CI -u BUILD_NUMBER -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install install-dev install-clients run test check clients fmt bench cluster soak lock clean

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## Create the environment with the locked versions: .venv/bin/s3gw

run: install ## Start a store on this machine: S3 on 127.0.0.1:9000, admin on 9001, six drives in ./data
	@exec $(BIN)/s3gw up --data $(DATA) --drives 6 --s3 127.0.0.1:9000 --admin 127.0.0.1:9001 $(ARGS)

cluster: install ## Start etcd, nine nodes in three zones and two gateways on loopback
	@compose/packages etcd
	@exec $(BIN)/python -m compose.cluster $(ARGS)

test: check install-clients ## Check the code, then run every test, real etcd and real S3 clients included
	@compose/packages etcd rclone s3cmd restic fuse s3fs haproxy prometheus cc libc chromium curl openssl
	$(PYTEST) $(PARALLEL) $(ARGS)

soak: install-dev install-clients ## The long versions of the tests: 1 GiB uploads, more seeds, more rounds
	@compose/packages etcd rclone s3cmd restic fuse s3fs haproxy prometheus cc libc chromium curl openssl
	SOAK=1 \
		$(PYTEST) $(PARALLEL) --timeout 7200 $(ARGS)

clients: install-dev ## SDKs for JavaScript, Go and Java, s5cmd and mc: needs node, go, a JDK and maven, and downloads
	@missing=; for tool in node npm go java javac mvn etcd; do \
		command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
		test -z "$$missing" || { echo "missing:$$missing (node ≥ 20, Go ≥ 1.26, JDK ≥ 17, Maven)"; exit 1; }
	CLIENTS=1 $(PYTEST) -q --timeout 1800 tests/compat/sdks $(ARGS)

check: install-dev ## Format, lint, types, import rules and the tidy test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/mypy compose bench
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/tidy

fmt: install-dev ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

bench: install-dev ## Measure speed, server CPU and memory (ARGS="--form cluster", "--quick", "--endpoint URL …")
	@exec $(BIN)/python -m bench $(ARGS)

lock: install-dev ## Resolve the newest versions allowed by pyproject.toml into the three lock files
	echo 'setuptools>=77' | $(LOCK) --upgrade pyproject.toml - --output-file requirements.lock
	echo 'setuptools>=77' | $(LOCK) --upgrade pyproject.toml - --extra dev \
		--constraints requirements.lock --output-file requirements-dev.lock
	$(LOCK) --upgrade --group clients --output-file requirements-clients.lock

clean: ## Remove the environment and what tools left behind; data is kept
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The package itself is built with the locked setuptools: nothing is downloaded unpinned.
install-dev: .venv/installed-dev

# S3 clients that cannot share an environment with the newest boto3.
install-clients: .venv/clients/installed

.venv/installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements.lock
	@# setuptools warns about every editable installation; errors are still shown.
	PYTHONWARNINGS=ignore $(PIP) --no-build-isolation --no-deps -e .
	@touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

.venv/clients/installed: requirements-clients.lock | .venv/installed-dev
	$(BIN)/uv venv --quiet --no-project --clear --python $(BIN)/python .venv/clients
	$(BIN)/uv pip sync --quiet --require-hashes --python .venv/clients requirements-clients.lock
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
