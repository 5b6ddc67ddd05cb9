# make setup | test | test-all | demo | app | audit | lock | reliability | clean; the targets that need the virtual environment make it first.

PYTHON ?= python3
PY := .venv/bin/python
DEMO := runs/demo
CONFIG = --config configs/demo/$(1).yaml
# Without AVX-512 PyTorch has no bf16 convolutions of its own and emulates them.
PRECISION := $(shell grep -qsE "avx512bw|asimd" /proc/cpuinfo && echo bf16 || echo fp32)

.NOTPARALLEL:  # one pip at a time
.PHONY: setup new-environment test test-all demo app audit lock reliability clean

setup: .venv/.stamp

# An environment that works is brought up to requirements.txt; a missing or broken one is made anew. With LOCKED=1 the
# versions are those of requirements.lock, checked by their hashes.
# The native kernels are optional: where one cannot be built, one line says why.
.venv/.stamp: requirements.txt $(wildcard deployment/native/*.cpp deployment/native/*.h) deployment/native/build.py
	@$(PY) -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory new-environment
	$(PY) -m pip install --disable-pip-version-check $(if $(LOCKED),--require-hashes -r requirements.lock,-r requirements.txt)
	@$(PY) -m deployment.native.build || true
	@touch $@

new-environment:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
		|| { echo "Python 3.10 or newer is needed, $(PYTHON) is older or missing: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv --clear .venv \
		|| { echo "$(PYTHON) -m venv failed: install the venv module (Debian, Ubuntu: python3-venv)"; exit 1; }

# What only some parts need beyond requirements.txt (requirements-EXTRA.txt): for their tests, and where asked for. Where no
# index has it, those tests are skipped and say so.
EXTRAS := $(foreach extra,generative export mobile app bulk fuzz integrations,$(if $(wildcard requirements-$(extra).txt),$(extra)))
STAMPS := $(EXTRAS:%=.venv/.%)

$(STAMPS): .venv/.%: requirements-%.txt .venv/.stamp
	@$(PY) -m pip install --disable-pip-version-check --retries 1 -r $< && touch $@ \
		|| echo "tests of what needs $< are skipped: it could not be installed"

# TEST_OPTIONS go to pytest. Long tests are marked slow; test-all runs them too.
test test-all: .venv/.stamp $(STAMPS)
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -q -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile $(if $(filter test,$@),-m "not slow") $(TEST_OPTIONS)

# An interrupted demo goes on where it stopped; what is finished is not repeated.
demo: .venv/.stamp
	$(PY) -m data.demo --out $(DEMO)/data
	$(PY) -m data.prepare_sr_data --source $(DEMO)/data/images/test --out $(DEMO)/lr_test --scales 4 --overwrite
	$(PY) stage1_pretrain_yolo.py $(call CONFIG,stage1_yolo_pretrain) --run.precision $(PRECISION) --resume
	$(PY) stage2_pretrain_sr.py $(call CONFIG,stage2_sr_pretrain) --run.precision $(PRECISION) --resume
	$(PY) stage3_finetune_joint.py $(call CONFIG,stage3_joint_finetune) --run.precision $(PRECISION) --resume
	$(PY) evaluate.py $(call CONFIG,evaluate) --resume
	@test -e $(DEMO)/inference/predictions.json || $(PY) inference.py $(call CONFIG,inference)
	@cat $(DEMO)/evaluate/table.md
	@echo "Table, Pareto picture, masks and boxes: $(DEMO)/evaluate. Detections on LR images: $(DEMO)/inference."

# The browser app on the demo's system where it is trained, else SR alone. APP: other options of app.py.
app: .venv/.stamp $(filter .venv/.app,$(STAMPS))
	$(PY) app.py $(APP)

# Licences of all libraries, and known weaknesses of the locked versions (pip-audit is not among the requirements).
audit: .venv/.stamp
	-$(PY) -m tools.licences requirements.txt
	@$(PY) -m tools.audit requirements.lock

# Exact versions for Linux and every supported Python, by uv (not among the requirements); PyTorch as it is installed here.
lock: .venv/.stamp
	$(PY) -m pip freeze | grep -E "^torch(vision)?==" > .venv/tested.txt
	uv pip compile requirements.txt --universal --python-version 3.10 --generate-hashes --no-annotate -c .venv/tested.txt -o requirements.lock

# The tests of kills, damaged and hostile files, faults, long runs and network at SIZE times their full size (1: hours).
SIZE ?= 1
reliability: .venv/.stamp $(filter .venv/.fuzz,$(STAMPS))
	rm -f runs/reliability.jsonl && mkdir -p runs
	-RELIABILITY=$(SIZE) RELIABILITY_OUT=$(CURDIR)/runs/reliability.jsonl OMP_NUM_THREADS=1 \
		$(PY) -m pytest -q tests/reliability -o timeout=0 -p no:xdist
	$(PY) -m tools.reliability_page runs/reliability.jsonl --out docs/results/reliability.md --size "$(SIZE) times the full size"

clean:
	rm -rf $(DEMO) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
