PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test long fast check format lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "needs Python 3.11 or 3.12: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { echo "needs Python's venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	$(BIN)/lth sweep sweeps/studies/digits.yaml

test: setup
	$(BIN)/pytest -n 2 -m "not (ray or long or gpu)"
	$(BIN)/pytest -m "ray and not (long or gpu)"

# Tests with a real cluster, real kills, and 10,000 inputs for each parser.
long: setup
	$(BIN)/pytest -n 2 -m "long and not (ray or gpu)"
	$(BIN)/pytest -m "long and ray and not gpu"

fast: setup
	$(BIN)/pytest -n 2 -m "not (ray or slow or mlflow or data or long or gpu)"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --upgrade \
		pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
