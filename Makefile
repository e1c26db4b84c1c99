# Needs python3 (3.11 or newer) and make; everything else goes into .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: demo docs test test-faults test-lowest fuzz lint format clean

# Exact versions are the ones pip resolves from pyproject.toml's lower bounds.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"clipjax needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Say PYTHON=python3.11 make ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[experiments,test,lint]'
	@touch $@

demo: .venv/ready  ## four methods, three tasks, heavy tails: runs/demo/report.html
	$(BIN)/python -m experiments.demo --workdir runs/demo

docs: .venv/ready  ## signatures and pictures of docs/api.md
	$(BIN)/python -m experiments.report.docs

# In the order of the folders: the long files come early, the doctests last, and no worker waits.
test: .venv/ready  ## every test but the long fault drills
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not faults'

test-faults: .venv/ready  ## kills each task's run twenty times
	$(BIN)/python -m pytest -q -m faults --timeout 3600

fuzz: .venv/ready  ## 1,000 wrong inputs; FUZZ=5000 takes more, FUZZ_SEED=7 others
	$(BIN)/python -m pytest -q -n $(WORKERS) -m faults tests/faults/test_fuzz.py

# The oldest versions that pyproject.toml admits, in an environment of their own.
.venv-lowest/ready: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable '.[experiments,test]'
	@touch $@

# What CI runs of it; LOWEST= (empty) runs every test.
LOWEST ?= tests/train/test_checkpoint.py tests/train/test_loop.py \
	tests/experiments/test_config_files.py tests/experiments/test_evaluate.py

test-lowest: .venv-lowest/ready  ## the tests that touch other packages most, with the lowest versions
	.venv-lowest/bin/python -m pytest -q -n $(WORKERS) --dist loadfile -m 'not faults' $(LOWEST)

lint: .venv/ready  ## format, style, types, who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-lowest runs build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
