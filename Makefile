# One word for each chore, the same for people and for CI.
#
#   make demo           the whole tour on real faces; TRAIN=1 trains the model first
#   make test           everything but the slow tests; make test ARGS='-m slow' for those
#   make test-portable  the tests that train a network, once for each of several kinds of processor
#   make test-all       every test, the slow ones too, then make test-portable: before a release
#   make check          format, lint, types, import contracts
#   make bench          speeds, side by side in one run
#   make bench-million  a million vectors: loading, memory, search and recall with and without the index
#   make bench-serve    the HTTP service: requests a second, latencies, memory; ARGS='--requests 20000' for all
#   make model          train the shipped face model again (about forty minutes on two cores with bfloat16)
#   make digits         train the shipped digit models again: the conditional VAE and the VAE
#   make cleaner        train a cleaner like the shipped one, on as many patches; by the time of a step, two core-hours
#                       with bfloat16 arithmetic and six without
#   make cleaner-digits the same of digits (a quarter of an hour of one core with bfloat16)
#   make clean          remove what these made, the virtual environment included

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
comma  := ,
MODEL_ARGS ?= --labels person --name-epochs 200 --epochs 300 --precision bfloat16 --pictures 0
DIGITS_ARGS ?= --precision bfloat16 --pictures 0
CLEANER_ARGS ?= --precision bfloat16
# Arithmetic as other processors do it: ATen's, oneDNN's and MKL's own switches, and one or two threads.
# What this processor cannot do would end in an illegal instruction.
PROCESSORS := ATEN_CPU_CAPABILITY=default \
	$(if $(shell grep -m 1 avx2 /proc/cpuinfo 2>/dev/null),ATEN_CPU_CAPABILITY=avx2) \
	$(if $(shell grep -m 1 avx512vl /proc/cpuinfo 2>/dev/null),ATEN_CPU_CAPABILITY=avx512) \
	ONEDNN_MAX_CPU_ISA=SSE41 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1 OMP_NUM_THREADS=2
UV     := $(shell command -v uv 2>/dev/null)

.PHONY: demo test test-portable test-all check bench bench-million bench-serve model digits cleaner cleaner-digits clean
.DELETE_ON_ERROR:

ifneq ($(UV),)
NEW_VENV = $(UV) venv --quiet --allow-existing --python '>=3.11.4' $(VENV)
INSTALL  = $(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt
else
NEW_VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "lookalike needs Python 3.11.4 or later; name one: make PYTHON=python3.12")' \
	&& $(PYTHON) -m venv $(VENV)
INSTALL  = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
endif

# A stamp for each set of extras, made again when what they are made from changes.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@echo "setting up $(VENV) ($*)" >&2
	@test -x $(BIN)/python || { $(NEW_VENV); }
	@$(INSTALL) --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed-$(if $(TRAIN),demo$(comma)train,demo)
	@$(BIN)/lookalike demo --out demo $(if $(TRAIN),--train)

test: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m pytest $(ARGS)

test-portable: $(VENV)/.installed-dev$(comma)train
	@failed=; for setting in $(PROCESSORS); do \
		echo "tests that train a network, with $$setting"; \
		env $$setting $(BIN)/python -m pytest -m 'trains and not slow' $(ARGS) || failed="$$failed $$setting"; \
	done; test -z "$$failed" || { echo "failed with$$failed" >&2; exit 1; }

test-all: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m pytest -m '' $(ARGS)
	@$(MAKE) test-portable

check: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.bench

bench-million: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.bench_million $(ARGS)

bench-serve: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.bench_serve $(ARGS)

model: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train ae --data lfw --out encoder/shipped/faces $(MODEL_ARGS)
	@$(BIN)/lookalike attributes fit --model encoder/shipped/faces --data lfw --out build/faces
	@cp build/faces/attributes.npz encoder/shipped/faces/

digits: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train cvae --data mnist --out encoder/shipped/digits --epochs 34 $(DIGITS_ARGS)
	@$(BIN)/lookalike train vae --data mnist --out encoder/shipped/digits-vae --epochs 32 --importance 5 $(DIGITS_ARGS)

cleaner: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train cleaner --data lfw --out encoder/shipped/clean --epochs 94 $(CLEANER_ARGS)

cleaner-digits: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train cleaner --data mnist --out encoder/shipped/clean-digits --batch 32 --learning-rate 0.004 $(CLEANER_ARGS)

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find encoder trainer indexer searcher deploy tests -name __pycache__ -type d -exec rm -rf {} +

