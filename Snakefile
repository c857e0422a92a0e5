# The workflow of one suite: `snakemake --config suite=smoke`. What to run is decided in
# benchmarks/plan.py; a run's path holds the digest of everything that decides its result, so a
# changed setting is another path and never a stale file.
import os
import sys
from pathlib import Path

from analysis import exhibits
from benchmarks.plan import load_plan


workdir: workflow.basedir


# `python` below is the interpreter of this process, whether or not its environment is activated.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

plan = load_plan(config.setdefault("suite", "demo"))
run_of = {run.directory: run for run in plan.runs}
RUN = "results/runs/{stream}/{label}/s{seed}-{key}"
RUNS = f"results/{plan.name}/runs.jsonl"


wildcard_constraints:
    stream="|".join(plan.streams),
    backbone="|".join(plan.backbones),
    label="[a-z0-9-]+",
    seed="[0-9]+",
    key="[0-9a-f]{12}",


localrules:
    all,
    prepare,
    collect,
    analyse,
    publish,


rule all:
    input:
        exhibits.files(f"results/{plan.name}"),
    message:
        f"report: results/{plan.name}/report/index.html"


rule prepare:
    output:
        "resources/streams/{stream}/manifest.json",
    log:
        "resources/streams/{stream}/log.txt",
    conda:
        "environment.yml"
    params:
        digest=lambda wildcards: plan.stream_digest(wildcards.stream),
    message:
        "prepare the stream {wildcards.stream}"
    shell:
        "python -m benchmarks.streams {wildcards.stream} --out $(dirname {output}) > {log} 2>&1"


rule backbone:
    input:
        lambda wildcards: plan.backbone_inputs(wildcards.backbone),
    output:
        "resources/backbones/{backbone}/manifest.json",
    log:
        "resources/backbones/{backbone}/log.txt",
    conda:
        "environment.yml"
    threads: plan.threads
    message:
        "get or pre-train the backbone {wildcards.backbone}"
    shell:
        "python -m benchmarks.backbones {wildcards.backbone} --out $(dirname {output}) > {log} 2>&1"


rule train:
    input:
        spec=lambda wildcards: ancient(run_of[RUN.format(**wildcards)].write_spec()),
        stream=ancient("resources/streams/{stream}/manifest.json"),
        backbone=lambda wildcards: ancient(
            f"resources/backbones/{run_of[RUN.format(**wildcards)].backbone}/manifest.json"
        ),
    output:
        f"{RUN}/result.json",
    log:
        f"{RUN}/log.txt",
    conda:
        "environment.yml"
    threads: plan.threads
    resources:
        gpu=1,
    message:
        "train {wildcards.label} on {wildcards.stream}, seed {wildcards.seed}"
    shell:
        "python -m benchmarks.run {input.spec} --out $(dirname {output}) >> {log} 2>&1"


rule collect:
    input:
        [f"{directory}/result.json" for directory in run_of],
    output:
        RUNS,
    log:
        f"results/{plan.name}/collect.log",
    conda:
        "environment.yml"
    params:
        suite=config["suite"],
    message:
        "collect the results"
    shell:
        "python -m benchmarks.results collect {params.suite} --out {output} 2> {log}"


rule analyse:
    input:
        runs=RUNS,
        code=[path for path in Path("analysis").rglob("*.*") if path.parent.name != "__pycache__"],
    output:
        exhibits.files(f"results/{plan.name}"),
    log:
        f"results/{plan.name}/analyse.log",
    conda:
        "environment.yml"
    message:
        "draw tables, figures and the report"
    shell:
        "python -m analysis {input.runs} --out $(dirname {input.runs}) 2> {log}"


rule publish:
    input:
        RUNS,
    output:
        f"benchmarks/published/{plan.name}.jsonl",
    log:
        f"results/{plan.name}/publish.log",
    conda:
        "environment.yml"
    params:
        suite=config["suite"],
    message:
        "publish the results"
    shell:
        "python -m benchmarks.results publish {params.suite} 2> {log}"
