# make demo   set up .venv and run a multi-agent debate on the embedded model
# make test   set up .venv and run the whole test suite
# make gpu    on a machine with a GPU: the tests that need one, and the benchmark (no installation, no network)
# make lint   ruff, and mypy on the installed wheel
# make clean  remove what the others made

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The newest torch whose CPU build is tried first on a machine without an NVIDIA GPU; without such a build, the range.
TORCH_CPU := torch==2.13.0+cpu
TORCH_RANGE := torch>=2.11,<2.14
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test gpu lint clean
demo: $(VENV)/installed
	$(BIN)/ramify run examples/debate --arg question="What is 8 + 7?"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

# OUT: the folder for what is found. WHEELS: one with wheels of packages that are not installed.
gpu:
	$(PYTHON) -m benchmarks.on_gpu $(if $(OUT),--out "$(OUT)") $(if $(WHEELS),--wheels "$(WHEELS)")

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint
	$(PIP) --no-deps --no-build-isolation --target build/lint .
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p ramify

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing ramify into $(VENV) (the first time takes a few minutes)"
	@if ! command -v nvidia-smi >/dev/null 2>&1 && ! $(BIN)/python -c "import torch" 2>/dev/null; then \
	    $(PIP) "$(TORCH_CPU)" 2>/dev/null || echo "no CPU build of torch at hand, taking the default one"; \
	fi
	$(PIP) "$(TORCH_RANGE)" setuptools wheel
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --no-build-isolation --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
