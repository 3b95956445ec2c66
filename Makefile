# Everything runs in .venv, which is made when it is missing or pyproject.toml is newer. PYTHON=python3.12 chooses another.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Idle OpenMP threads that spin starve whoever shares the cores
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test lint format clean

demo: $(READY)
	$(BIN)/whetstone run recipes/tiny.toml
	@echo
	@echo "The report is runs/tiny/report.html: open it in a browser."

# One thread a test process: the tests' models are too small to share
test: $(READY)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q $(TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
