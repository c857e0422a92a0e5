# What a suite asks for: the jobs that train, and all that is made before and after them.
import re
import shlex

from snakemake.logging import logger

from analysis.draw import files
from benchmarks import backbones, streams
from benchmarks.common.errors import DataError
from benchmarks.common.files import check_writable
from benchmarks.common.options import check_names
from benchmarks.runs import durations, jobs, slurm, sources
from benchmarks.runs.deadline import seconds_since_1970
from benchmarks.runs.gpus import names
from benchmarks.runs.plan import backbone_inputs, load_plan, require_packages

# `suite` is a name in benchmarks/suites or the path of a suite file. Runs that differ in their seed
# only go through one process, at most `together` of them, as imports take as long as a small run;
# and so do short runs of different rows, if they take at most `job_minutes`.
config.setdefault("suite", "demo")
config.setdefault("together", 3)
config.setdefault("job_minutes", 0)
KNOWN = ("suite", "together", "job_minutes", "deadline", "state_minutes")

# A profile for a scheduler says the longest time of a job; of the executor nothing is known yet.
by_default = workflow.resource_settings._parsed_default_resources
LONGEST = by_default["runtime"].value if "runtime" in by_default else None
ON_CLUSTER = isinstance(LONGEST, int)
of_train = workflow.resource_settings._parsed_overwrite_resources.get("train", {})
GIVEN = of_train["gpu"].value if "gpu" in of_train else 1  # by the scheduler, see the rule train

try:
    check_names(config, KNOWN)
    ON_GPU = bool(GIVEN) if ON_CLUSTER else bool(names())
    plan = load_plan(config["suite"])
    # Only what is open is a job. Of a run that is made, the record is a file like any other: nothing
    # makes it again, and no stream or backbone that must be prepared anew hides those that are open.
    unmade = [batch for batch in plan.batches(config["together"]) if batch.open_runs()]
    at_once = 1  # on a cluster few jobs are worth more than many that go at a time
    if not ON_CLUSTER:
        limits = workflow.global_resources
        slots = limits["gpu"].value if "gpu" in limits else workflow.cores
        at_once = max(1, min(workflow.cores // plan.threads, slots))
    expected_seconds = functools.partial(jobs.seconds, on_gpu=ON_GPU)
    packed = jobs.pack(unmade, config["job_minutes"], expected_seconds, at_once)
    batches = {batch.name: batch for batch in packed}
    open_runs = [run for batch in batches.values() for run in batch.open_runs()]
    check_writable("results", "resources")
    plan.claim_results()
    OPTIONS = ""
    if "deadline" in config:
        OPTIONS += f" --deadline {seconds_since_1970(str(config['deadline'])):.0f}"
    if "state_minutes" in config:
        OPTIONS += f" --state-minutes {jobs.check_minutes('STATE_MINUTES', config['state_minutes'])}"
    require_packages(open_runs)
    for batch in batches.values():
        batch.write_job(plan.threads, OPTIONS)
except DataError as error:
    sys.exit(str(error))

MARKERS = expand(MARKER, batch=batches)
for marker in MARKERS:
    Path(marker).unlink(missing_ok=True)  # of a time when the runs were not open

# Of the data and of the code that prepares it.
stream_digest = {
    name: f"{asked.get('digest', '')} {sources.of_stream(asked)}".strip()
    for name, asked in plan.stream_specs.items()
}
stream_arguments = {
    name: shlex.join(streams.of(asked).arguments) for name, asked in plan.stream_specs.items()
}
backbone_digest = {run.backbone: run.spec["backbone"]["digest"] for run in plan.runs}
still_open = {run.directory for run in open_runs}
RECORDS = [run.record for run in plan.runs if run.directory not in still_open]
OUT = f"results/{plan.name}"
# A profile may count the GPUs of this machine, which may have none.
GPU = " --own-gpu" if ON_GPU and not ON_CLUSTER else ""  # or all would share the first
EXHIBITS = [f"{OUT}/{name}" for name in files([run.spec for run in plan.runs + plan.skipped])]
TARGETS = MARKERS + EXHIBITS  # markers as well, or Snakemake would not miss a deleted record


# What a job asks a scheduler for beside what its profile says.
ASKED = {}
if ON_CLUSTER:
    asked_seconds = functools.partial(jobs.asked_seconds, on_gpu=ON_GPU)
    ASKED["runtime"] = lambda wildcards, attempt: jobs.minutes(
        batches[wildcards.batch], attempt, LONGEST, asked_seconds
    )
if "slurm_extra" not in by_default:  # a job that is tried again keeps off nodes of faulty GPUs
    ASKED["slurm_extra"] = lambda _: slurm.excluded_nodes()

logger.addFilter(jobs.outcomes(batches, durations.Pace(plan.runs, open_runs)))


onerror:
    left = sum(run.is_open() for run in plan.runs)
    if left:
        print(
            f"{left} of {len(plan.runs)} runs are still open: what failed stands above or in "
            "results/batches, and the same command goes on"
        )


onsuccess:
    failed = [run for run in plan.runs if run.status() == "failed"]
    if failed:
        print(f"{len(failed)} of {len(plan.runs)} runs failed, make status says why:")
        print(*[f"  {run.directory}" for run in failed], sep="\n")


wildcard_constraints:
    stream="|".join(map(re.escape, stream_arguments)),
    backbone="|".join(map(re.escape, plan.backbones)),
    batch="|".join(map(re.escape, batches)) or "none",


localrules:
    prepared,
    pretrained,
    prepare,
    pretrain,
    backbone,
    collect,
    analyse,
    publish,


rule prepared:
    input:
        expand(
            "resources/streams/{name}/manifest.json",
            name=sorted(plan.stream_specs),
        ),
        expand("resources/backbones/{name}/manifest.json", name=plan.backbones),


rule pretrained:
    input:
        [
            f"resources/pretrained/{name}.safetensors"
            for name in plan.backbones
            if backbone_inputs(name)
        ],


rule prepare:
    output:
        "resources/streams/{stream}/manifest.json",
    log:
        "resources/streams/{stream}/log.txt",
    conda:
        "environment.yml"
    params:
        digest=lambda wildcards: stream_digest[wildcards.stream],
        arguments=lambda wildcards: stream_arguments[wildcards.stream],
    message:
        "prepare the stream {wildcards.stream}"
    shell:
        "python -m benchmarks.streams {params.arguments}"
        ' --out "$(dirname {output:q})" > {log:q} 2>&1'


rule pretrain:
    input:
        lambda wildcards: "resources/streams/"
        f"{backbones.find(wildcards.backbone).pretrain_stream}/manifest.json",
    output:
        "resources/pretrained/{backbone}.safetensors",
    log:
        "resources/pretrained/{backbone}.log",
    conda:
        "environment.yml"
    threads: plan.threads
    params:
        digest=lambda wildcards: backbone_digest[wildcards.backbone],
    message:
        "pre-train the backbone {wildcards.backbone}"
    shell:
        "python -m benchmarks.backbones.pretrain {wildcards.backbone:q}"
        ' --out "$(dirname {output:q})" > {log:q} 2>&1'


rule backbone:
    input:
        lambda wildcards: backbone_inputs(wildcards.backbone),
    output:
        "resources/backbones/{backbone}/manifest.json",
    log:
        "resources/backbones/{backbone}/log.txt",
    conda:
        "environment.yml"
    params:
        digest=lambda wildcards: backbone_digest[wildcards.backbone],
    message:
        "find the backbone {wildcards.backbone}"
    shell:
        "python -m benchmarks.backbones {wildcards.backbone:q}"
        ' --out "$(dirname {output:q})" > {log:q} 2>&1'


rule collect:
    input:
        MARKERS,
        RECORDS,
    output:
        runs=f"{OUT}/runs.jsonl",
        predictions=f"{OUT}/runs.predictions.jsonl.gz",
    log:
        f"{OUT}/collect.log",
    conda:
        "environment.yml"
    params:
        suite=config["suite"],
        label=plan.label,
        runs=[run.record for run in plan.runs + plan.skipped],
    message:
        "collect the results"
    shell:
        "python -m benchmarks.runs.results collect {params.suite:q} --out {output.runs:q} 2> {log:q}"


rule analyse:
    input:
        runs=f"{OUT}/runs.jsonl",
        predictions=f"{OUT}/runs.predictions.jsonl.gz",
        code=[path for path in Path("analysis").rglob("*.*") if path.parent.name != "__pycache__"],
    output:
        EXHIBITS,
    log:
        f"{OUT}/analyse.log",
    conda:
        "environment.yml"
    message:
        "draw tables, figures and the report"
    shell:
        'python -m analysis {input.runs:q} --out "$(dirname {input.runs:q})" 2> {log:q}'


# Without a declared output: Snakemake would delete the committed file before it makes the new one.
rule publish:
    input:
        f"{OUT}/runs.jsonl",
    log:
        f"{OUT}/publish.log",
    conda:
        "environment.yml"
    params:
        suite=config["suite"],
    message:
        "publish the results"
    shell:
        "python -m benchmarks.runs.results publish {params.suite:q} 2> {log:q}"
