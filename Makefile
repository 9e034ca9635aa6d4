# One word for each chore, the same for people and for CI.
#
#   make demo           show the whole product on real faces; TRAIN=1 trains the model first
#   make test           all but the slow tests, in two processes (WORKERS=4: in four)
#   make test-portable  the tests that train a network, once for each of several kinds of processor
#   make test-all       every test, the slow ones too, then make test-portable: before a release
#   make check          format, lint, types, import contracts
#   make docs           the documentation as a site, in build/site
#   make release        sdist and wheel in dist/: checked, installed alone into an empty environment of each Python that is
#                       here and run there, with SHA-256 sums, a list of all parts (SBOM) and the cards of the models
#   make bench          speeds, side by side in one run
#   make figures        the tables of docs/figures.md: our models, baselines and published values (hours; see ARGS=--help)
#   make bench-million  a million vectors: loading, memory, search and recall with and without the index;
#                       ARGS='--quantization int8 --quantization binary', --dimension, QDRANT_URL=http://... for a server
#   make bench-serve    the HTTP service: requests a second, latencies, memory; ARGS='--requests 20000' for all
#   make model          train the shipped face model again and calibrate it (about an hour on two cores with bfloat16)
#   make digits         train the shipped digit models again: the conditional VAE and the VAE
#   make denoiser       train a denoiser on LFW's faces and the photographs in PHOTOGRAPHS (some 14 hours of one core
#                       without bfloat16 arithmetic, judging by the time of one step)
#   make denoiser-digits   the same for digits (three quarters of an hour of one core)
#   make images         build the container images, with docker, podman or buildah; IMAGES=lookalike for one
#   make clean          remove what these targets made, the virtual environment too

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
comma  := ,
MODEL_ARGS ?= --subfolders person --identity-epochs 200 --epochs 300 --precision bfloat16 --sample-every 0
DIGITS_ARGS ?= --precision bfloat16 --sample-every 0
DENOISER_ARGS ?=
PHOTOGRAPHS ?= $(LOOKALIKE_DATA)/photos
WORKERS ?= 2
IMAGES ?= lookalike lookalike-batch lookalike-trainer
ENGINE ?= $(firstword $(foreach each,docker podman buildah,$(shell command -v $(each) 2>/dev/null)))
BUILD_ARGS ?=
# Arithmetic as other processors do it: ATen's, oneDNN's and MKL's own switches, and one or two threads.
# What this processor cannot do would end in an illegal instruction.
PROCESSORS := ATEN_CPU_CAPABILITY=default \
	$(if $(shell grep -m 1 avx2 /proc/cpuinfo 2>/dev/null),ATEN_CPU_CAPABILITY=avx2) \
	$(if $(shell grep -m 1 avx512vl /proc/cpuinfo 2>/dev/null),ATEN_CPU_CAPABILITY=avx512) \
	ONEDNN_MAX_CPU_ISA=SSE41 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1 OMP_NUM_THREADS=2
# Tests start many processes: each is quicker when the modules are compiled already.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
UV     := $(shell command -v uv 2>/dev/null)

.PHONY: demo test test-portable test-all check links docs release figures bench bench-million bench-serve model digits denoiser denoiser-digits images clean
.DELETE_ON_ERROR:

ifneq ($(UV),)
NEW_VENV = $(UV) venv $(QUIET) --allow-existing --python '>=3.11.4' $(VENV)
INSTALL  = $(UV) pip install $(QUIET) --python $(BIN)/python --constraint constraints.txt
else
NEW_VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "lookalike needs Python 3.11.4 or later; name one: make PYTHON=python3.12")' \
	&& $(PYTHON) -m venv $(VENV)
INSTALL  = $(BIN)/python -m pip install $(QUIET) --progress-bar on --disable-pip-version-check --constraint constraints.txt
endif

# A person who waits is shown what goes on; the log of a machine stays short.
QUIET  := $(if $(shell test -t 2 && echo a terminal),,--quiet)

# The package as it is installed, in links to the folders here: mypy and the import linter read files, not import hooks.
LINKS := build/links/lookalike
ROOMS := encoder trainer indexer searcher deploy

# A stamp for each set of extras, made again when what they are made from changes.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@echo "setting up $(VENV) ($*)$(if $(findstring train,$*),; PyTorch is several GB and takes some minutes)" >&2
	@test -x $(BIN)/python || { echo "1 of 2: a virtual environment" >&2; $(NEW_VENV); }
	@echo "2 of 2: the packages, downloaded or from a cache" >&2
	@$(INSTALL) --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed-$(if $(TRAIN),demo$(comma)train,demo)
	@$(BIN)/lookalike demo --out demo $(if $(TRAIN),--train)

test: $(VENV)/.installed-dev$(comma)train
	@$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)

# The slow ones measure times and memory: alone.
test-all: $(VENV)/.installed-dev$(comma)train$(comma)docs$(comma)release links
	@$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)
	@$(PYTEST) -m slow $(ARGS)
	@$(MAKE) test-portable

test-portable: $(VENV)/.installed-dev$(comma)train
	@failed=; for setting in $(PROCESSORS); do \
		echo "tests that train a network, with $$setting"; \
		env $$setting $(PYTEST) -m trains $(ARGS) || failed="$$failed $$setting"; \
	done; test -z "$$failed" || { echo "failed with$$failed" >&2; exit 1; }

links:
	@rm -rf $(LINKS) && mkdir -p $(LINKS) && ln -s $(foreach room,$(ROOMS),$(CURDIR)/$(room)) $(CURDIR)/deploy/api/* $(LINKS)/

check: $(VENV)/.installed-dev$(comma)train links
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@PYTHONPATH=build/links $(BIN)/lint-imports

docs: $(VENV)/.installed-docs links
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the site is in build/site: open build/site/index.html"

release: $(VENV)/.installed-release
	@$(BIN)/python -m tests.release $(ARGS)

bench: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.benchmarks.index_speed

figures: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.benchmarks.figures $(ARGS)

bench-million: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.benchmarks.million $(ARGS)

bench-serve: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/python -m tests.benchmarks.serve $(ARGS)

model: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train ae --data lfw --out encoder/shipped/faces $(MODEL_ARGS)
	@$(BIN)/lookalike calibrate lfw --model encoder/shipped/faces --out encoder/shipped/faces
	@$(BIN)/lookalike calibrate lfw --faces --model encoder/shipped/faces --out encoder/shipped/faces
	@$(BIN)/lookalike attributes fit --model encoder/shipped/faces --data lfw --out encoder/shipped/faces

digits: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train cvae --data mnist --out encoder/shipped/digits --epochs 34 $(DIGITS_ARGS)
	@$(BIN)/lookalike train vae --data mnist --out encoder/shipped/digits-vae --epochs 32 --importance 5 $(DIGITS_ARGS)

denoiser: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train denoiser --data lfw --photographs $(PHOTOGRAPHS) --out encoder/shipped/denoise --epochs 94 $(DENOISER_ARGS)

denoiser-digits: $(VENV)/.installed-dev$(comma)train
	@$(BIN)/lookalike train denoiser --data mnist --out encoder/shipped/denoise-digits --batch 32 --learning-rate 0.004 $(DENOISER_ARGS)

# lookalike is of deploy/Dockerfile, lookalike-batch of deploy/batch.Dockerfile.
images:
	@test -n "$(ENGINE)" || { echo "images are built by docker, podman or buildah; install one of them" >&2; exit 1; }
	@for image in $(IMAGES); do kind=$${image#lookalike}; kind=$${kind#-}; \
		$(ENGINE) build $(BUILD_ARGS) -f deploy/$${kind:+$$kind.}Dockerfile -t $$image . || exit 1; done

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find encoder trainer indexer searcher deploy tests -name __pycache__ -type d -exec rm -rf {} +

