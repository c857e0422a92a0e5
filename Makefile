# One command for each use; `make` lists them.

SUITE    ?= demo
TOGETHER ?= 3
JOB_MINUTES ?= 0
CORES    ?= all
PROFILE  ?= profiles/default
STATE_MINUTES ?= 15
UV       ?= uv
WORKERS  ?= 2

# An unpacked bundle has the packages for one Python, and all that the hub would be asked for.
WHEELS_FOR := $(shell cat wheels/python 2>/dev/null)
OFFLINE     = PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels PIP_CONFIG_FILE=/dev/null
PIP         = $(if $(WHEELS_FOR),$(OFFLINE)) $(1)/bin/python \
              -m pip install -qq --disable-pip-version-check --no-deps --require-hashes
ifneq ($(wildcard bundle.json),)
export HF_HUB_OFFLINE ?= 1
endif

# The lock has wheels for these, and the first that is there makes the environment.
PYTHONS = $(if $(WHEELS_FOR),python$(WHEELS_FOR),python3.11 python3.12 python3.13) python3

# The full environment where it is current, else a light one without torch.
LIGHT := $(shell cmp -s requirements.lock .venv/requirements.lock || echo -figures)

# As one word of a shell command, whatever its characters. Neither `value` nor an environment
# without it makes make expand the name of a suite.
quoted = '$(subst ','\'',$(1))'
NAME   = $(call quoted,$(value SUITE))
unexport SUITE METHOD METRIC STREAM REFERENCE

# --config takes all that follows it, so that another option must stand between it and a target.
SHARED    = $(if $(filter auto,$(RUNS_PER_GPU)),RUNS_PER_GPU=`RUNS_PER_GPU= \
            .venv/bin/python -m benchmarks.runs.forecast $(NAME) --runs-per-gpu`)
USABLE    = $(if $(filter profiles/default,$(PROFILE)),,$(if $(filter auto,$(RUNS_PER_GPU)),RUNS_PER_GPU= \
            ).venv/bin/python -m benchmarks.runs.slurm $(call quoted,$(PROFILE)) &&)
SNAKEMAKE = $(USABLE) $(SHARED) .venv/bin/python -m snakemake --config suite=$(NAME) \
            together=$(call quoted,$(TOGETHER)) job_minutes=$(call quoted,$(JOB_MINUTES)) \
            state_minutes=$(call quoted,$(STATE_MINUTES)) \
            $(if $(DEADLINE),deadline=$(call quoted,$(DEADLINE))) \
            --workflow-profile $(call quoted,$(PROFILE)) --cores $(call quoted,$(CORES))
PYTEST    = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n $(WORKERS) --dist loadfile \
            --no-loadscope-reorder
COMPILE   = $(UV) pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
            --generate-hashes --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help replicate plan status verify retry restore rescore bundle pretrain figures unlock publish docs experiments slurm test test-fast test-cluster contract style lint lock clean

#: SUITE=demo       one of those below, or the path of a suite file
#: CORES=all        that are used at a time; PROFILE=profiles/gpu GPUS=8 takes GPUs
#: TOGETHER=3       seeds of a method that one process makes, one after the other
#: JOB_MINUTES=0    of short runs of several methods that go through one process; 0: none do
#: STATE_MINUTES=15 after which the state inside a task is saved; 0: never
#: DEADLINE=2026-03-01T18:00  before which runs save where they stand, and stop
#: RUNS_PER_GPU=1   of PROFILE=profiles/gpu; auto: as many as fit into its memory and have a core
#: PYTHON=PROGRAM   makes the environment, else the first of Python 3.11, 3.12 and 3.13 that can
#: TREELORA_DATA=DIRECTORY    is searched for data and weights before any download

##@ A suite
replicate: .venv/requirements.lock ## Make it: data, training, tables, figures, report
	@$(SNAKEMAKE)
	@.venv/bin/python -m benchmarks.runs.status $(NAME) --complete

plan: .venv/requirements.lock ## Say what it runs, what is done, how long the rest takes and whether it fits (PLAN=--runs: each run)
	@$(SHARED) .venv/bin/python -m benchmarks.runs.forecast $(NAME) --profile $(call quoted,$(PROFILE)) \
	    --cores $(call quoted,$(CORES)) --together $(call quoted,$(TOGETHER)) \
	    $(if $(GPUS),--gpus $(call quoted,$(GPUS))) $(PLAN)

status: .venv/requirements.lock ## Count the runs that are done, failed, running and open, and say where those that run are
	@.venv/bin/python -m benchmarks.runs.status $(NAME)

verify: .venv/requirements.lock ## Compare its results here with the published ones, and fail where they are too far away
	@.venv/bin/python -m analysis.verify $(NAME)

unlock: .venv/requirements.lock ## Release the lock that a killed Snakemake has left
	@$(SNAKEMAKE) --unlock

retry: .venv/requirements.lock ## Remove the records of failed runs, so that they run again
	@.venv/bin/python -m benchmarks.runs.results forget-failed $(NAME)

restore: .venv/requirements.lock ## Take published results of its runs as done, so that only the others are made
	@$(SNAKEMAKE) prepared
	@.venv/bin/python -m benchmarks.runs.results restore $(NAME)

rescore: .venv/requirements.lock ## Score again what its runs have answered, without a model (METRIC=name or file)
	@.venv/bin/python -m benchmarks.runs.rescore $(NAME) \
	    $(if $(value METRIC),--metric=$(call quoted,$(value METRIC)))

bundle: .venv/requirements.lock ## Pack it for a machine without a network (BUNDLE="--limit-gb 20 --no-wheels")
	@$(SNAKEMAKE) prepared
	@.venv/bin/python -m benchmarks.runs.bundle $(NAME) $(BUNDLE)

pretrain: .venv/requirements.lock ## Pre-train its own backbones again, from their recipe
	@$(SNAKEMAKE) pretrained --forcerun pretrain
	@mkdir -p benchmarks/backbones/pretrained
	@cp resources/pretrained/*.safetensors resources/pretrained/*.json benchmarks/backbones/pretrained

##@ The published results
figures: .venv$(LIGHT)/requirements.lock ## Draw tables, figures and pages of them, without torch (REFERENCE=row that differences are taken to)
	@.venv$(LIGHT)/bin/python -m analysis benchmarks/published/*.runs.jsonl.xz --out results/published \
	    $(if $(value REFERENCE),--reference=$(call quoted,$(value REFERENCE)))

publish: .venv/requirements.lock ## Copy the results of a complete suite to benchmarks/published, and make docs
	@$(SNAKEMAKE) publish
	@.venv/bin/python -m benchmarks.documents

docs: .venv/requirements.lock ## Make the generated documents anew: docs/ and the README's table
	@.venv/bin/python -m benchmarks.documents

experiments: .venv/requirements.lock ## Make anew what belongs to no suite: the regret of the search, operations and bytes
	@.venv/bin/python -m benchmarks.experiments.accounting --out benchmarks/published/accounting.json
	@.venv/bin/python -m benchmarks.experiments.regret --out benchmarks/published/regret.json

##@ The project
slurm: .venv/requirements.lock ## Install what profiles/slurm needs
	@$(call PIP,.venv) -r requirements-slurm.lock

test: style ## Check style, then run every test
	$(PYTEST)

test-fast: .venv/requirements.lock ## Run the tests that are not slow, to work by
	$(PYTEST) -m "not slow and not gpu"

test-cluster: slurm ## Submit jobs to the Slurm of this host and end them in every way
	.venv/bin/python -m pytest -q tests/cluster --cluster

contract: .venv/requirements.lock ## Ask a method or a stream what all must keep (METHOD= or STREAM=name, module or path)
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q $(if $(value STREAM),\
	    tests/streams/test_contract.py --stream=$(call quoted,$(value STREAM)),\
	    tests/baselines/test_contract.py $(if $(value METHOD),--method=$(call quoted,$(value METHOD))))

style: .venv/requirements.lock ## Check style alone
	.venv/bin/ruff check
	.venv/bin/ruff format --check

lint: style ## Check style and workflow, as the tests do
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

# Of this file the lines with ##, of each suite its label. A reader that closes the pipe early, such
# as head, has seen enough.
help: ## List the commands, settings and suites
	@awk ' \
	  /^##@ / { print substr($$0, 5) } \
	  match($$0, /^[a-z-]+:.*## /) { name = $$0; sub(/:.*/, "", name); \
	    printf "  make %-13s %s\n", name, substr($$0, RLENGTH + 1) } \
	  /^#: / { settings = settings "  " substr($$0, 4) "\n" } \
	  /^label: / { name = FILENAME; gsub(/.*\/|\.yaml/, "", name); label = substr($$0, 8); \
	    if (length(label) > 76) label = substr(label, 1, 73) "..."; \
	    suites = suites sprintf("  %-16s %s\n", name, label) } \
	  END { printf "Settings\n%sSuites\n%s", settings, suites } \
	  ' $(firstword $(MAKEFILE_LIST)) benchmarks/suites/*.yaml || true

clean: ## Remove environments and caches; results/ and resources/ stay
	rm -rf .venv .venv-figures .snakemake .pytest_cache .ruff_cache .hypothesis

# An environment is current when it holds a copy of its lock. The copy is written last, so an
# interrupted installation starts anew, and compared by content, so a checkout installs nothing.
.venv/requirements.lock: requirements.lock
	@$(call install,.venv,about 5 minutes and 6 GB)

.venv-figures/requirements.lock: requirements-figures.lock
	@$(call install,.venv-figures,less than a minute)

# What was brought is looked at before that; code may have been edited.
define install
if cmp -s $< $@; then touch $@ 2>/dev/null; exit 0; fi; \
if test -e SHA256SUMS; then \
  grep -E '  (resources|wheels)/' SHA256SUMS | sha256sum --check --quiet || { \
    echo "these files are not what the bundle had: unpack it anew" >&2; exit 1; }; \
fi; \
for python in $(if $(PYTHON),$(call quoted,$(PYTHON)),$(PYTHONS)) ""; do \
  "$$python" -c 'import ensurepip, sys; \
    sys.exit(not (3, 11) <= sys.version_info < (3, 14) or "$(WHEELS_FOR)" not in sys.version[:4])' \
    2>/dev/null && break; \
done; \
test "$$python" || { \
  echo "Python $(or $(WHEELS_FOR),3.11 to 3.13) with its venv module is needed, and there is none under the name" \
       $(if $(PYTHON),$(call quoted,$(PYTHON)),"$(PYTHONS)")": install one, or name it with" \
       "PYTHON=/path/to/python." >&2; exit 1; }; \
echo "installing the pinned packages into $(1) ($(2), once)"; \
"$$python" -m venv --clear $(1) && \
$(call PIP,$(1)) -r $(or $(wildcard wheels/$<),$<) && \
cp $< $@
endef
