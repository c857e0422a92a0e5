# The workflow of one suite: `snakemake --config suite=smoke`. What to run is decided in
# benchmarks/runs/plan.py; the path of a record holds digests of everything that decides it, so that a
# changed setting or changed code is another path and never a stale file.
import functools
import math
import os
import re
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from analysis.draw import files
from benchmarks.common.errors import DataError
from benchmarks.common.files import check_writable
from benchmarks.runs import durations, slurm, sources
from benchmarks.runs.deadline import seconds_since_1970
from benchmarks.runs.gpus import names
from benchmarks.runs.plan import (
    backbone_inputs,
    general_inputs,
    load_plan,
    pretrain_inputs,
    require_packages,
)


workdir: workflow.basedir


# `python` below is the interpreter of this process, whether or not its environment is activated.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

# `suite` is a name in benchmarks/suites or the path of a suite file. Runs that differ in their seed
# only go through one process, at most `together` of them, as imports take as long as a small run.
config.setdefault("suite", "demo")
config.setdefault("together", 3)

try:
    plan = load_plan(config["suite"])
    batches = {batch.name: batch for batch in plan.batches(config["together"])}
    check_writable("results", "resources")
    plan.claim_results()
    DEADLINE = ""
    if "deadline" in config:
        DEADLINE = f" --deadline {seconds_since_1970(str(config['deadline'])):.0f}"
    # Only these are jobs. Of a run that is made, the record is a file like any other: nothing makes
    # it again, and no stream or backbone that must be prepared anew hides the runs that are open.
    open_runs = {name: runs for name, batch in batches.items() if (runs := batch.open_runs())}
    require_packages(run for runs in open_runs.values() for run in runs)
except DataError as error:
    sys.exit(str(error))

# The output of a job is a marker, so that Snakemake deletes no record of a batch that was cut off.
MARKER = "results/batches/{batch}.done"
MARKERS = expand(MARKER, batch=open_runs)
if not workflow.remote_exec:
    for marker in MARKERS:
        Path(marker).unlink(missing_ok=True)  # of a time when the runs were not open

# Of the data and of the code that prepares it.
stream_digest = {name: sources.of_stream({"name": name}) for name in plan.pretrain_streams}
stream_digest |= {
    run.stream: f"{run.spec['stream']['digest']} {sources.of_stream(run.spec['stream'])}"
    for run in plan.runs
}
stream_arguments = {name: name for name in plan.pretrain_streams}
stream_arguments |= {run.stream: run.stream_arguments for run in plan.runs}
backbone_digest = {run.backbone: run.spec["backbone"]["digest"] for run in plan.runs}
still_open = {run.directory for runs in open_runs.values() for run in runs}
RECORDS = [run.record for run in plan.runs if run.directory not in still_open]
OUT = f"results/{plan.name}"
# A run that is promised a GPU does not train on the CPU: by the scheduler that took a job which asked
# for one, or by a profile that counts them on this machine, which may have none.
OWN_GPU = ""
if workflow.remote_exec:
    OWN_GPU = " --gpus {resources.gpu}"
    os.environ.update(HF_HUB_OFFLINE="1")  # nodes may reach nothing, and all is fetched before
elif "gpu" in workflow.global_resources and names():
    OWN_GPU = " --own-gpu"
EXHIBITS = [f"{OUT}/{name}" for name in files([run.spec for run in plan.runs + plan.skipped])]


# What a job asks a scheduler for beside what its profile says, if that says the longest time.
by_default = workflow.resource_settings._parsed_default_resources
LONGEST = by_default["runtime"].value if "runtime" in by_default else None
known_seconds = functools.cache(durations.recorded_seconds)


def minutes(wildcards, attempt):
    """Twice what the runs are expected to take, more at each attempt, at most the profile's."""
    if workflow.remote_exec:
        return None  # it was asked for
    runs = batches[wildcards.batch].open_runs()
    seconds = [durations.expected(run.spec, known_seconds()).seconds for run in runs]
    if None in seconds:
        return LONGEST
    return min(LONGEST, attempt * math.ceil(20 + 2 * sum(seconds) / 60))


ASKED = {"runtime": minutes} if isinstance(LONGEST, int) else {}
if "slurm_extra" not in by_default:  # a job that is tried again keeps off nodes of faulty GPUs
    ASKED["slurm_extra"] = lambda _: slurm.excluded_nodes()


# A job is done once each of its runs has a record. Snakemake's word that it is finished gives way to
# a line for each run, and where one failed that is said.
batch_of_job = {}
pace = durations.Pace(plan.runs, [run for runs in open_runs.values() for run in runs])


def say_what_was_made(line):
    event = getattr(line, "event", None)
    if event == LogEvent.JOB_INFO and line.rule_name == "train":
        batch_of_job[line.jobid] = batches[line.wildcards["batch"]]
    elif event == LogEvent.JOB_FINISHED and line.job_id in batch_of_job:
        runs = batch_of_job[line.job_id].runs
        said = [*filter(None, map(pace.finished, runs))]
        if failed := sum(run.status() == "failed" for run in runs):
            said.append(f"Failed in jobid: {line.job_id}: {failed} of {len(runs)} runs")
        line.msg = "\n".join(said) or line.msg
    return True


logger.addFilter(say_what_was_made)


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
    all,
    prepared,
    pretrained,
    prepare,
    backbone,
    collect,
    analyse,
    publish,


rule all:
    input:
        MARKERS,  # a target as well, or Snakemake would not miss a deleted record
        EXHIBITS,
    message:
        f"report: {OUT}/report/index.html"


rule prepared:
    input:
        expand(
            "resources/streams/{name}/manifest.json",
            name=sorted({*plan.streams, *plan.pretrain_streams}),
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
        lambda wildcards: pretrain_inputs(wildcards.backbone),
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


rule train:
    input:
        specs=lambda wildcards: [run.write_spec() for run in batches[wildcards.batch].runs],
        stream=lambda wildcards: (
            f"resources/streams/{batches[wildcards.batch].runs[0].stream}/manifest.json"
        ),
        backbone=lambda wildcards: (
            f"resources/backbones/{batches[wildcards.batch].runs[0].backbone}/manifest.json"
        ),
        general=lambda wildcards: general_inputs(batches[wildcards.batch].runs[0]),
    output:
        touch(MARKER),
    log:
        "results/batches/{batch}.log",
    conda:
        "environment.yml"
    threads: plan.threads
    resources:
        gpu=1,
        **ASKED,
    params:
        what=lambda wildcards: batches[wildcards.batch].title(),
        said="results/batches/{batch}.txt",
    message:
        "train {params.what}"
    shell:  # Snakemake deletes the log before each try, and what all have said keeps its other name
        "touch {params.said:q} && ln -f {params.said:q} {log:q} || true;"
        " HF_HUB_OFFLINE=1 python -m benchmarks.runs.run {input.specs:q} --threads {threads}"
        f"{OWN_GPU}{DEADLINE} 2>> {{log:q}}"  # what failed is said on the terminal


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
