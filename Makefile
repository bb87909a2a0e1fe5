# Python of the virtual environment; everything below runs in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
# The last Python that tensorflow-addons was built for.
LEGACY_PYTHON ?= python3.11
LEGACY_VENV ?= .venv-legacy

.PHONY: install quickstart test slow notebooks thorough lint parity legacy faults mutants audit benchmark clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.py requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Trains the small network on the shipped images, once from fresh weights and once
# from the shipped ones, whose report has both: about a minute.
quickstart: install
	$(BIN)/python -m bit_tf.train --flagfile=experiments/quickstart.flags \
	    --model=R26x0.5 --noexport --workdir=$(WORKDIR)_from_scratch
	$(BIN)/python -m bit_tf.train --flagfile=experiments/quickstart.flags \
	    --workdir=$(WORKDIR) --beside=scratch=$(WORKDIR)_from_scratch

# Two processes, a file each: most of the time TensorFlow traces, on one core.
test: install
	$(BIN)/python -m pytest --ignore=tests/parity --ignore=tests/legacy -m "not slow and not thorough and not campaign" \
	    --numprocesses=2 --dist=loadfile --durations=20

# The same properties at greater length, and the notebooks. The largest network
# alone fills the memory, so its tests come first and one after the other; then
# whatever takes longest, or a core would wait.
LARGE := tests/test_memory.py tests/test_tpu.py
NOTEBOOKS := tests/test_colabs.py
LONG := tests/test_workers.py $(NOTEBOOKS) tests/test_train.py tests/test_update.py
slow: install
	$(BIN)/python -m pytest $(LARGE) -m slow
	$(BIN)/python -m pytest $(LONG) tests/faults \
	    $(filter-out $(LARGE) $(LONG),$(wildcard tests/test_*.py)) -m slow \
	    --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=20

# Runs the notebooks of experiments/colabs, made small.
notebooks: install
	$(BIN)/python -m pytest $(NOTEBOOKS)

# What seldom changes: every command of the documents is typed, the peers of the
# benchmark are compared. Ten minutes.
thorough: install
	$(BIN)/python -m pytest --ignore=tests/parity --ignore=tests/legacy \
	    -m thorough --numprocesses=2 --dist=loadfile --durations=10

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Against timm, transformers, KerasHub and TensorFlow Hub; installs PyTorch. For
# its CPU build:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make parity
parity: $(VENV)/.parity
	$(BIN)/python -m pytest tests/parity -m "not slow"

$(VENV)/.parity: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[parity]'
	touch $@

# Kills, cuts and spoils in thousands of ways: some 65 minutes. `make test` has a
# few of each. What takes longest comes first, or a core would wait.
FAULTS := tests/faults/test_lives.py
faults: install
	mkdir -p runs && rm -f runs/faults.jsonl
	BIT_TF_FAULTS=full BIT_TF_FAULTS_TABLE=$(abspath runs/faults.jsonl) \
	    $(BIN)/python -m pytest $(FAULTS) \
	    $(filter-out $(FAULTS),$(wildcard tests/faults/test_*.py)) \
	    --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=10; \
	    result=$$?; $(BIN)/python experiments/faults.py runs/faults.jsonl && \
	    exit $$result

# Changes the code in small ways, and counts those that no test notices.
mutants: install
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	$(BIN)/python -m mutmut run --max-children 2
	$(BIN)/python -m mutmut results
	rm -rf runs/mutants && git clone --quiet . runs/mutants
	cd runs/mutants && export PATH="$(abspath $(BIN)):$$PATH" && \
	    cosmic-ray init tests/mutants.toml changes.sqlite && \
	    cr-filter-operators changes.sqlite tests/mutants.toml && \
	    cosmic-ray exec tests/mutants.toml changes.sqlite && \
	    cr-report --show-diff --surviving-only changes.sqlite

# Asks the registry for known holes in what is installed.
audit: install
	$(BIN)/python -m pip install --quiet --editable '.[audit]'
	$(BIN)/python -m pip_audit --progress-spinner=off --skip-editable

# Side by side with timm, transformers and plain Keras: half an hour, and nothing
# else should run meanwhile.
benchmark: $(VENV)/.parity
	mkdir -p runs
	$(BIN)/python experiments/speed/compare.py > runs/peers.jsonl
	$(BIN)/python experiments/speed/table.py runs/peers.jsonl

# Against tensorflow-addons, in an environment of its own.
legacy: install $(LEGACY_VENV)/.installed
	BIT_TF_LEGACY_PYTHON=$(abspath $(LEGACY_VENV))/bin/python \
	    $(BIN)/python -m pytest tests/legacy

$(LEGACY_VENV)/.installed: requirements-legacy.txt
	@command -v $(LEGACY_PYTHON) >/dev/null || { echo "make legacy needs \
	Python 3.11: LEGACY_PYTHON=PATH make legacy" >&2; exit 1; }
	$(LEGACY_PYTHON) -m venv $(LEGACY_VENV)
	$(LEGACY_VENV)/bin/python -m pip install --quiet \
	    --requirement requirements-legacy.txt
	touch $@

clean:
	rm -rf $(VENV) $(LEGACY_VENV) runs
