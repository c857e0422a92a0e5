# The workflow of one suite: `snakemake --config suite=smoke`. What to run is decided in
# benchmarks/runs/plan.py; the path of a record holds digests of everything that decides it, so that a
# changed setting or changed code is another path and never a stale file.
#
# A job on a cluster reads this file and what was written of its own runs when it was submitted. The
# suite is read in suite.smk, once, where the command was given.
import functools
import os
import sys
from pathlib import Path

from benchmarks.common.files import read_json


workdir: workflow.basedir


# `python` below is the interpreter of this process, whether or not its environment is activated.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

# The output of a job is a marker, so that Snakemake deletes no record of a batch that was cut off.
MARKER = "results/batches/{batch}.done"

if workflow.remote_exec:
    os.environ.update(HF_HUB_OFFLINE="1")  # nodes may reach nothing, and all is fetched before
    TARGETS, OUT, ASKED, GPU = [], "", {}, " --gpus {resources.gpu}"
else:

    include: "suite.smk"


# What is to be done, see `Batch.write_job`.
job = functools.cache(lambda batch: read_json(Path(f"results/batches/{batch}.json")))


localrules:
    all,


rule all:
    input:
        TARGETS,
    message:
        f"report: {OUT}/report/index.html"


rule train:
    input:
        lambda wildcards: job(wildcards.batch)["inputs"],
    output:
        touch(MARKER),
    log:
        "results/batches/{batch}.log",
    conda:
        "environment.yml"
    threads: lambda wildcards: job(wildcards.batch)["threads"]
    resources:
        gpu=1,
        **ASKED,
    params:
        what=lambda wildcards: job(wildcards.batch)["title"],
        said="results/batches/{batch}.txt",
        specs=lambda wildcards: job(wildcards.batch)["specs"],
        options=lambda wildcards: job(wildcards.batch)["options"],
    message:
        "train {params.what}"
    shell:  # Snakemake deletes the log before each try, and what all have said keeps its other name
        "touch {params.said:q} && ln -f {params.said:q} {log:q} || true;"
        " HF_HUB_OFFLINE=1 python -m benchmarks.runs.run {params.specs:q} --threads {threads}"
        f"{{params.options}}{GPU} 2>> {{log:q}}"  # what failed is said on the terminal
