"""Realistic records for the analysis tests, made without training anything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

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
    version = {"ewc": 3, "fix": 2}.get(method, 1)  # l2p's on images is an old one
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
