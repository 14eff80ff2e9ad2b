# make demo   set up, transcribe a small corpus, print the result
# make test   set up, then lint, types and tests
PYTHON ?= python3
# Modules are compiled when they are first imported, not all at once.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
READY := .venv/.ready

# make test-all   the same and what is slow by nature
.PHONY: demo test test-all lint lock clean

demo: $(READY)
	$(BIN)/audiomill demo

# Two processes; one thread each, or they would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(READY) lint
	$(PYTEST)

test-all: $(READY) lint
	AUDIOMILL_TESTS=all $(PYTEST) -m ''

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): pyproject.toml infra/constraints.txt infra/demo-packages.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint infra/constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --ignore-requires-python --requirement infra/demo-packages.txt
	touch $@

# Versions of everything in the images.
lock:
	$(PYTHON) -m pip install --dry-run --ignore-installed --quiet --report - --constraint infra/constraints.txt \
	    '.[s3,gcs,azure,lm,otel,trace]' | $(PYTHON) infra/lock.py

clean:
	rm -rf .venv demo build dist *.egg-info
