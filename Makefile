PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A file's tests stay in one process, which makes what they share once; the order is
# tests/conftest.py's, slow ones first.
PYTEST := $(BIN)/pytest --dist loadfile --no-loadscope-reorder
FITS := (3, 11) <= sys.version_info[:2] <= (3, 14)

# Where the environment forbids bytecode, each of hundreds of processes would compile the project.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup python demo test long fast gpu check docs format lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || { $(PYTHON) -c 'import sys; sys.exit(not $(FITS))' \
		&& $(PYTHON) -m venv $(VENV); } 2> /dev/null || $(MAKE) --no-print-directory python
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock)"
	UV_COMPILE_BYTECODE=$${UV_COMPILE_BYTECODE-1} \
		$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# Where python3 is older or newer, or has no venv module: uv finds another Python, or downloads one.
python:
	@rm -rf $(VENV)
	@uv=$$(command -v uv) || { $(PYTHON) -m pip install --quiet --target $(VENV)-uv uv 2> /dev/null \
		&& uv=$(VENV)-uv/bin/uv; } \
		|| { echo "needs Python 3.11 to 3.14 with venv (Debian: apt install python3-venv), or uv" >&2; exit 1; }; \
		echo "$(PYTHON) is not Python 3.11 to 3.14 with venv: uv brings one"; \
		$$uv venv --quiet --seed --python '>=3.11,<3.15' $(VENV); rm -rf $(VENV)-uv

demo: setup
	$(BIN)/lth sweep mnist-5k

# Four processes on two cores: tests that start servers mostly wait.
test: setup
	$(PYTEST) -n 4 -m "not (long or gpu)"

# Tests with a real cluster, real kills, and 10,000 inputs for each parser. Each Ray has processes of
# its own, and many tests wait: four at once keep two cores busy.
long: setup
	$(PYTEST) -n 4 -m "long and not gpu"

fast: setup
	$(PYTEST) -n 2 -m "not (ray or slow or mlflow or data or long or gpu)"

# On a machine with a GPU, bare or set up.
gpu:
	bash tests/gpu/run $(or $(OUT),gpu-results)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in build/site; links are checked.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --upgrade \
		pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
