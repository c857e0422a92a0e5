# One command for each use; `make` lists them.

SUITE    ?= demo
TOGETHER ?= 3
JOB_MINUTES ?= 0
CORES    ?= all
PROFILE  ?= profiles/default
DEADLINE ?=
STATE_MINUTES ?= 15
PYTHON   ?=
UV       ?= uv
WORKERS  ?= 2
METHOD   ?=
METRIC   ?=
STREAM   ?=

# The lock has wheels for these, and the first that is there makes the environment.
PYTHONS = python3.11 python3.12 python3.13 python3

# The full environment where it is current, else a light one without torch.
LIGHT := $(shell cmp -s requirements.lock .venv/requirements.lock || echo -figures)

# As one word of a shell command, whatever its characters. Neither `value` nor an environment
# without it makes make expand the name of a suite.
quoted = '$(subst ','\'',$(1))'
NAME   = $(call quoted,$(value SUITE))
unexport SUITE METHOD METRIC STREAM

# --config takes all that follows it, so that another option must stand between it and a target.
SNAKEMAKE = .venv/bin/python -m snakemake --config suite=$(NAME) \
            together=$(call quoted,$(TOGETHER)) job_minutes=$(call quoted,$(JOB_MINUTES)) \
            state_minutes=$(call quoted,$(STATE_MINUTES)) $(if $(DEADLINE),deadline=$(call quoted,$(DEADLINE))) --workflow-profile $(call quoted,$(PROFILE)) \
            --cores $(call quoted,$(CORES))
PYTEST    = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n $(WORKERS) --dist loadfile \
            --no-loadscope-reorder
COMPILE   = $(UV) pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
            --generate-hashes --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help replicate plan status retry restore rescore pretrain figures unlock publish docs experiments slurm test test-fast test-cluster contract lint lock clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "SUITE="$(NAME)"  a name in benchmarks/suites or the path of a suite file"
	@echo "TOGETHER=$(TOGETHER)  seeds of a method that one process makes, one after the other"
	@echo "JOB_MINUTES=$(JOB_MINUTES)  of short runs of several methods that go through one process; 0: none do"
	@echo "CORES=$(CORES)   PROFILE=$(PROFILE)"
	@echo "DEADLINE=2026-03-01T18:00  no task starts that would not end before"
	@echo "STATE_MINUTES=$(STATE_MINUTES)  after which the state inside a task is saved; 0: never"
	@echo "PYTHON=PROGRAM makes the environment, else the first of $(PYTHONS) that can"
	@echo "TREELORA_DATA=DIRECTORY is searched for data and weights before any download"

replicate: .venv/requirements.lock ## Run the suite: data, training, tables, figures, report
	@$(SNAKEMAKE)
	@.venv/bin/python -m benchmarks.runs.status $(NAME) --complete

plan: .venv/requirements.lock ## List what the suite runs, what is done, the time and memory each needs (PLAN=--runs: each run)
	@.venv/bin/python -m benchmarks.runs.status $(NAME) --profile $(call quoted,$(PROFILE)) $(PLAN)

status: .venv/requirements.lock ## Count the runs that are done, failed and to do
	@.venv/bin/python -m benchmarks.runs.status $(NAME) --brief

retry: .venv/requirements.lock ## Remove the records of failed runs, so that they run again
	@.venv/bin/python -m benchmarks.runs.results forget-failed $(NAME)

restore: .venv/requirements.lock ## Take published results of the suite's runs as done, so that only the others are made
	@$(SNAKEMAKE) prepared
	@.venv/bin/python -m benchmarks.runs.results restore $(NAME)

rescore: .venv/requirements.lock ## Score again what the suite's runs have answered, without a model (METRIC=name or file)
	@.venv/bin/python -m benchmarks.runs.rescore $(NAME) \
	    $(if $(value METRIC),--metric=$(call quoted,$(value METRIC)))

pretrain: .venv/requirements.lock ## Pre-train the suite's own backbones again, from their recipe
	@$(SNAKEMAKE) pretrained --forcerun pretrain
	@mkdir -p benchmarks/backbones/pretrained
	@cp resources/pretrained/*.safetensors resources/pretrained/*.json benchmarks/backbones/pretrained

figures: .venv$(LIGHT)/requirements.lock ## Redraw the published results, without torch
	@.venv$(LIGHT)/bin/python -m analysis benchmarks/published/*.jsonl --out results/published

unlock: .venv/requirements.lock ## Release the lock that a killed Snakemake has left
	@$(SNAKEMAKE) --unlock

publish: .venv/requirements.lock ## Copy the results of a complete suite to benchmarks/published, and make docs
	@$(SNAKEMAKE) publish
	@.venv/bin/python -m benchmarks.documents

docs: .venv/requirements.lock ## Make the generated documents anew: docs/ and the README's table
	@.venv/bin/python -m benchmarks.documents

experiments: .venv/requirements.lock ## Make anew what belongs to no suite: the regret of the search, operations and bytes
	@.venv/bin/python -m benchmarks.experiments.accounting --out benchmarks/published/accounting.json
	@.venv/bin/python -m benchmarks.experiments.regret --out benchmarks/published/regret.json

slurm: .venv/requirements.lock ## Install what profiles/slurm needs
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes \
	    -r requirements-slurm.lock

test: lint ## Check style and workflow, then run every test
	$(PYTEST)

test-fast: .venv/requirements.lock ## Run the tests that are not slow, to work by
	$(PYTEST) -m "not slow and not gpu"

test-cluster: slurm ## Submit jobs to the Slurm of this host and end them in every way
	.venv/bin/python -m pytest -q tests/cluster --cluster

contract: .venv/requirements.lock ## Ask a method or a stream what all must keep (METHOD= or STREAM=name, module or path)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q $(if $(value STREAM),\
	    tests/streams/test_contract.py --stream=$(call quoted,$(value STREAM)),\
	    tests/baselines/test_contract.py $(if $(value METHOD),--method=$(call quoted,$(value METHOD))))

lint: .venv/requirements.lock ## Check style and workflow
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/python -m snakemake --lint

lock: ## Resolve requirements*.in anew (needs uv; UPGRADE=1 takes newer versions)
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements.in -o requirements.lock
	$(COMPILE) requirements-figures.in -c requirements.lock -o requirements-figures.lock
	$(COMPILE) requirements-slurm.in -c requirements.lock -o requirements-slurm.lock
	@{ echo "# Made by 'make lock' from requirements.lock; the pins are complete, so create it with"; \
	   echo "#   PIP_NO_DEPS=1 conda env create -f environment.yml"; \
	   echo "name: treelora"; \
	   echo "channels: [conda-forge]"; \
	   echo "dependencies:"; \
	   echo "  - python=3.11"; \
	   echo "  - pip"; \
	   echo "  - pip:"; \
	   sed -n 's/^\([a-z0-9].*==.*\) \\$$/      - \1/p' requirements.lock; } > environment.yml

clean: ## Remove environments and caches; results/ and resources/ stay
	rm -rf .venv .venv-figures .snakemake .pytest_cache .ruff_cache .hypothesis

# An environment is current when it holds a copy of its lock. The copy is written last, so an
# interrupted installation starts anew, and compared by content, so a checkout installs nothing.
.venv/requirements.lock: requirements.lock
	@$(call install,.venv,about 5 minutes and 6 GB)

.venv-figures/requirements.lock: requirements-figures.lock
	@$(call install,.venv-figures,less than a minute)

define install
if cmp -s $< $@; then touch $@; exit; fi; \
for python in $(if $(PYTHON),$(call quoted,$(PYTHON)),$(PYTHONS)) ""; do \
  "$$python" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
    2>/dev/null && break; \
done; \
test "$$python" || { \
  echo "Python 3.11, 3.12 or 3.13 with its venv module is needed, and there is none under the name" \
       $(if $(PYTHON),$(call quoted,$(PYTHON)),"$(PYTHONS)")": install one, or name it with" \
       "PYTHON=/path/to/python." >&2; exit 1; }; \
echo "installing the pinned packages into $(1) ($(2), once)"; \
"$$python" -m venv --clear $(1) && \
$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $< && \
cp $< $@
endef
