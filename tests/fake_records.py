"""Realistic records for the analysis tests, made without training anything."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np

from analysis.records.runs import Panel, Suite, read_suite

NOISE = (0.0, 0.01, -0.01, 0.005)  # of four seeds
LABEL = "Embedded demo, not the paper's setting"
# final score level of an old task, consolidation seconds per task, ms per step
METHODS = {
    "seqlora": (0.12, 0.0, 31.0),
    "ewc": (0.35, 1.9, 37.0),
    "gem": (0.52, 0.3, 92.0),
    "l2p": (0.48, 0.0, 40.0),
    "olora": (0.44, 0.1, 35.0),
    "treelora": (0.50, 0.2, 33.0),
    "joint": (0.86, 0.0, 30.0),
}
STREAMS = {
    "glyphs": ("vision", "vit-micro-glyphs", 10),
    "docs": ("language", "llama-micro-docs", 8),
    "cifar100": ("vision", "vit-ti-in21k", 10),
}


def record(
    stream: str = "glyphs",
    method: str = "treelora",
    seed: int = 0,
    suite: str = "demo",
    label: str = LABEL,
) -> dict:
    """One finished run."""
    modality, backbone, n = STREAMS[stream]
    level, consolidate, ms = METHODS.get(method, (0.45, 0.4, 36.0))
    rng = np.random.default_rng([seed, *f"{stream}{method}".encode()])
    learnt = np.clip(rng.normal(0.88, 0.04, n), 0, 1)
    R: list[list[float | None]] = []
    for i in range(n):
        kept = [level + (learnt[j] - level) * 0.55 ** (i - j) for j in range(i + 1)]
        noisy = np.clip(np.array(kept) + rng.normal(0, 0.015, i + 1), 0, 1)
        R.append([round(float(score), 4) for score in noisy] + [None] * (n - 1 - i))
    steps = 150
    times = rng.normal(1, 0.03, n)
    tasks = [
        {
            "name": f"task-{j}",
            "metric": "accuracy" if modality == "vision" else "exact",
            **{"n_train": 400, "n_test": 200, "epochs": 6, "steps": steps, "samples": 32 * steps},
            "train_seconds": round(ms * steps / 1000 * float(times[j]), 4),
            "consolidate_seconds": round(consolidate * float(times[j]), 4),
            "eval_seconds": 0.8,
            "peak_bytes": 731_906_048 + 1000 * seed,
            "last_loss": 0.4,
        }
        for j in range(n)
    ]
    if method == "joint":
        R = [[None] * n for _ in range(n - 1)] + [[round(float(s) - 0.03, 4) for s in learnt]]
        summed = ("n_train", "n_test", "steps", "samples", "train_seconds", "eval_seconds")
        tasks = [tasks[0] | {"name": "all", **{k: sum(t[k] for t in tasks) for k in summed}}]
    limits = {"train_per_class": 40, "test_per_class": 20}
    if modality == "language":
        limits = {"train_per_task": 400, "test_per_task": 100}
    key = hashlib.sha256(f"{suite}{stream}{method}{seed}".encode()).hexdigest()[:12]
    version = {"ewc": 3, "fix": 3}.get(method, 1)  # l2p's on images is an old one
    config = {"rank": 8, "alpha": 16, "targets": ["q", "v"]}
    if method == "treelora":
        config |= {"depth": 5, "strength": 0.1, "scale": "mean"}
    return {
        "schema": 1,
        "status": "done",
        "error": None,
        "key": key,
        "suite": {"name": suite, "label": label},
        "spec": {
            **{"protocol": 1, "seed": seed, "modality": modality},
            "stream": {"name": stream, "digest": "d" * 64, "order": "seed", "n_tasks": n, **limits},
            "backbone": {"name": backbone, "digest": "b" * 64, "image_size": 32},
            "method": {"label": method, "name": method, "version": version, "config": config},
            "train": {
                **{"epochs": [6] * n, "batch_size": 32, "learning_rate": 0.005},
                **{"optimizer": "adam", "clip_norm": 1.0, "optimizer_reset": True},
                "mask": "all" if modality == "vision" else None,
                "precision": "float32",
            },
        },
        "stream": {"tasks": [f"task-{j}" for j in range(n)], "groups": ["a"] * 5 + ["b"] * (n - 5)},
        "tasks": tasks,
        "R": R,
        "footprint": {
            **{"trainable_parameters": 24_576, "stored_parameters": 49_152},
            "state_bytes": 196_608,
        },
        "diagnostics": {},
        "provenance": {
            **{"started": f"2026-01-02T0{seed}:00:00Z", "finished": f"2026-01-02T0{seed}:10:00Z"},
            **{"commit": "c0ffee" * 6 + "abcd", "dirty": False, "source_digest": "5" * 64},
            **{"lock_digest": "1" * 64, "packages": {"numpy": "2.4.0", "torch": "2.14.1"}},
            **{"device": "cpu", "threads": 1, "deterministic": True},
        },
    }


def suite(streams=("glyphs", "docs"), methods=tuple(METHODS), seeds=3, **named) -> list[dict]:
    """All runs of a suite in the order of a collected file."""
    return [
        record(stream, method, seed, **named)
        for stream in streams
        for method in sorted(methods)
        for seed in range(seeds)
    ]


def with_gaps(run: dict) -> dict:
    """The same run with `evaluate: final`."""
    n = len(run["R"])
    R = [
        [score if i in (j, n - 1) else None for j, score in enumerate(row)]
        for i, row in enumerate(run["R"])
    ]
    train = run["spec"]["train"] | {"evaluate": "final"}
    return run | {"R": R, "spec": run["spec"] | {"train": train}}


def failed(
    run: dict, error: str = "the loss became nan at step 17", status: str = "failed"
) -> dict:
    """The same run, ended by an error or not started at all."""
    kept = {key: run[key] for key in ("schema", "key", "suite", "spec", "provenance")}
    return kept | {"status": status, "error": error, "stream": run["stream"], "R": None}


def write(path: Path, records: list[dict]) -> Path:
    """Writes records as the collected file does, one per line."""
    lines = (json.dumps(entry, sort_keys=True) for entry in records)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def suite_of(path: Path, records: list[dict]) -> Suite:
    """The suite of a file with these records."""
    return read_suite(write(path / "runs.jsonl", records))


def panel_of(path: Path, records: list[dict]) -> Panel:
    """Its only panel."""
    (panel,) = suite_of(path, records).panels
    return panel


def set_paths(entry, **changes):
    """A deep copy of a record with the values at `a__b` replaced."""
    entry = json.loads(json.dumps(entry))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = entry
        for name in parents:
            place = place[name]
        place[last] = value
    return entry


def small(method, seed, scores):
    """A record of two tasks with the given R."""
    entry = record(method=method, seed=seed)
    entry |= {"R": scores, "tasks": entry["tasks"][: 1 if scores[0][0] is None else 2]}
    entry["stream"] = {"tasks": ["greek", "arrows"], "groups": ["letters", "signs"]}
    entry["spec"]["stream"]["n_tasks"] = 2
    entry["spec"]["train"]["epochs"] = [6, 6]
    for task in entry["tasks"]:
        task |= {"train_seconds": 1.5 + seed, "consolidate_seconds": 0.5}
    return entry


SMALL = [
    small("seqlora", 0, [[0.9, None], [0.1, 0.9]]),
    small("seqlora", 1, [[0.8, None], [0.3, 0.8]]),
    small("treelora", 0, [[0.9, None], [0.5, 0.9]]),
    small("treelora", 1, [[0.8, None], [0.7, 0.8]]),
    small("joint", 0, [[None, None], [0.9, 0.9]]),
    failed(small("joint", 1, [[None, None], [0.9, 0.9]]), "out of memory"),
]


def short(
    label, seed, acc, method=None, config=None, train=None, ms=30.0, growth=1.0, suite="demo"
):
    """A record of three tasks that ends with the same score on all; steps follow the epochs.

    `growth` is the cost of the last task over that of the second. Between labels seeds differ by
    what is too little to be printed, as seeds that all say the same tell nothing.
    """
    entry = record("docs" if suite == "docs" else "glyphs", label, seed, suite=suite)
    method = method or label
    entry["spec"]["method"] |= {"name": method}
    base = {"treelora": {"strength": 0.1, "search": "lcb", "layers": None}}.get(method, {})
    entry["spec"]["method"]["config"] = {"rank": 8} | base | (config or {})
    entry["spec"]["train"] |= {"epochs": 2, "learning_rate": 0.005, "curve_tests": 0} | (
        train or {}
    )
    epochs = entry["spec"]["train"]["epochs"]
    entry["spec"]["train"]["epochs"] = [epochs] * 3
    entry["stream"] = {"tasks": ["a", "b", "c"], "groups": ["x", "x", "y"]}
    jitter = np.random.default_rng(list(label.encode())).normal(0, 1e-10, len(NOISE))
    jitter = float((jitter - jitter.mean())[seed])
    acc += NOISE[seed] + jitter
    ms *= np.exp(jitter)
    entry["R"] = [[0.9, None, None], [0.5, 0.9, None], [acc, acc, acc]]
    cost = [1.0, 1.0, growth * float(np.exp(jitter))]
    entry["tasks"] = [
        entry["tasks"][0]
        | {
            "steps": 10 * epochs,
            "train_seconds": float(ms) * 0.01 * epochs * c,
            "consolidate_seconds": 0,
        }
        | {"peak_bytes": int(1e9 * c)}
        for c in cost
    ]
    return entry


def seeds(label, acc, spread=0.0, **more):
    """All seeds; `spread` makes the difference to other labels vary by seed."""
    return [short(label, s, acc + spread * (-1) ** s, **more) for s in range(len(NOISE))]


def changed(run: dict, label: str, config=None, train=None, gain=0.0) -> dict:
    """The same run under another label and with other settings, and better by `gain`."""
    spec = run["spec"]
    method = spec["method"] | {"label": label}
    method["config"] = method["config"] | (config or {})
    R = [[s if s is None else min(1.0, s + gain) for s in row] for row in run["R"]]
    key = hashlib.sha256(f"{label}{spec['seed']}".encode()).hexdigest()[:12]
    more = {"method": method, "train": spec["train"] | (train or {})}
    return run | {"spec": spec | more, "R": R, "key": key}


def grown(n: int, seed: int = 0) -> dict:
    """A random binary tree over n tasks."""

    def grow(tasks):
        middle = len(tasks) // 2
        parts = (tasks[:middle], tasks[middle:]) if len(tasks) > 1 else ()
        return {"tasks": sorted(tasks), "threshold": 0.1, "children": [grow(p) for p in parts]}

    return grow(random.Random(seed).sample(range(n), n))


def with_tasks(run, metrics=("exact", "rouge_l"), n_test=(100, 50), scores=(0.5, 0.2), **stream):
    """A run of two tasks that ends with these scores."""
    run["stream"] = {"tasks": ["a", "b"], "groups": ["x", "y"]} | stream
    run["R"] = [[scores[0], None], list(scores)]
    run["tasks"] = [
        run["tasks"][0] | {"name": name, "metric": metric, "n_test": n}
        for name, metric, n in zip("ab", metrics, n_test, strict=True)
    ]
    return run


def with_variants(path: Path) -> Panel:
    """A panel of three methods, one of them with trees, variants and a learning curve."""
    records = suite(("glyphs",), ("seqlora", "olora", "treelora"), seeds=2)
    for run in [r for r in records if r["spec"]["method"]["name"] == "treelora"]:
        run["diagnostics"] = {"trees": [grown(n) for n in range(1, 11)], "pulls": []}
        epochs = {"epochs": [1] * 10}
        records += [
            changed(run, "treelora-strong", {"strength": 0.5}, gain=0.02),
            changed(run, "treelora-short", train=epochs, gain=-0.01),
            changed(run, "treelora-short-strong", {"strength": 0.5}, epochs),
            changed(run, "treelora-curve", train={"curve_tests": 4})
            | {"test_curve": [{"task": 1, "samples": s, "score": s / 100} for s in (0, 50)]},
        ]
    return panel_of(path, records)
