"""One run: a method learns a stream task by task and leaves a result record.

`python -m benchmarks.runs.run SPEC.json --out FOLDER` writes FOLDER/result.json. State is saved
after each task, so a run that was killed continues there and ends with the same R. A run that fails
leaves a record that says why and exits 0, so that other runs go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import io
import os
import pickle
import random
import sys
import time
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import baselines
from baselines.common.base import Setting, Task
from baselines.common.router import WordRouter
from benchmarks import backbones, streams
from benchmarks.common import devices
from benchmarks.common.files import (
    DataError,
    check_writable,
    quoted,
    read_json,
    seed_for,
    shown,
    write_bytes,
)
from benchmarks.common.progress import Progress
from benchmarks.costs import memory
from benchmarks.runs import gpus
from benchmarks.runs.config import TEST_BATCH_SIZE
from benchmarks.runs.evaluate import score
from benchmarks.runs.results import provenance, read_record, write_record
from benchmarks.scoring.floor import floor
from benchmarks.streams.common.tasks import RESOURCES, TaskData, load_stream, union, union_epochs


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def learn_stream(spec: dict, key: str, out: Path) -> dict:
    """Make the run, from its last saved state on, and return the record's measured part."""
    record: dict = {"tasks": [], "R": None, "curve": [], "test_curve": []}
    try:
        _learn_stream(spec, key, out, record)
    except Exception as error:
        error.record = record
        raise
    return record


def _learn_stream(spec: dict, key: str, out: Path, record: dict) -> None:
    seed = spec["seed"]
    device = devices.find()
    torch.use_deterministic_algorithms(device == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, changes nothing
    manifest = read_json(Path(f"resources/backbones/{spec['backbone']['name']}/manifest.json"))
    if manifest["fingerprint"] != spec["backbone"]["digest"]:
        raise DataError(
            f"the weights of {manifest['name']} are not what this run asks for: delete "
            f"resources/backbones/{manifest['name']} and run again"
        )
    language = spec["modality"] == "language"
    backbone = backbones.find(manifest["name"])
    tokenizer = backbone.tokenizer(manifest) if language else None
    data, task_of_class = load_stream(spec["stream"], seed, tokenizer)
    record["stream"] = {"tasks": [t.name for t in data], "groups": [t.group for t in data]}
    if language:
        record["stream"] |= facts(spec["stream"], data)
    n_tasks = len(data)
    train = spec["train"]
    if isinstance(backbone, backbones.HubModel):
        print(f"{manifest['name']}: {memory.check(spec, device)}", file=sys.stderr)
    seed_everything(seed_for(seed, "init"))
    options = spec["backbone"]
    network = backbone.load(
        manifest,
        len(task_of_class),
        options["image_size"],
        options.get("normalisation"),
        options.get("weights"),
    )
    if language:
        network.decoding = spec["stream"].get("decoding", "greedy")
        longest = max(max(t.train.x.shape[-1], t.test_x.shape[-1] + t.max_new_tokens) for t in data)
        backbone.check_context(longest, network.context)
    if train.get("checkpointing"):
        network.save_memory()
    method_class = baselines.load(spec["method"]["name"], spec["modality"])
    shared = {field.name for field in dataclasses.fields(Setting)}
    setting = Setting(
        modality=spec["modality"],
        n_tasks=n_tasks,
        task_of_class=task_of_class,
        tokenizer=tokenizer,
        seed=seed,
        device=device,
        **{name: value for name, value in train.items() if name in shared},
    )
    config = method_class.Config(**spec["method"]["config"])
    method = method_class(network.split_qkv(), config, setting)

    tasks = [
        Task(i, t.name, t.train, e, t.examples)
        for i, (t, e) in enumerate(zip(data, train["epochs"], strict=True))
    ]
    if method.offline:
        epochs, repeats = union_epochs(train["epochs"])
        examples = [example for t in tasks for example in t.examples]
        tasks = [Task(0, "all tasks", union([t.train for t in tasks], repeats), epochs, examples)]
    stages = method_class.stages
    steps = [stages * t.epochs * -(-len(t.train) // train["batch_size"]) for t in tasks]
    name = f"{spec['stream']['name']}/{spec['method']['label']}/s{seed}"

    test_size = train.get("test_batch_size") or TEST_BATCH_SIZE

    queries = getattr(method.model, "queries", None)  # of prompts: the same in every test

    def test(task: int, after: int, inferred: list | None = None) -> float:
        n_seen = int((task_of_class <= after).sum())
        with queries.repeated(task) if queries else nullcontext():
            return score(method.model, data[task], n_seen, device, tokenizer, inferred, test_size)

    infers = hasattr(method.model, "inferred")  # the task of each item, as a step of its own
    router = WordRouter() if language and not method.offline else None

    def evaluate(after: int) -> tuple[list[float | None], list[float]]:
        """The row of R, and for each task the share of test items whose task is inferred."""
        last = n_tasks - 1 if method.offline else after
        row, shares = [], []
        for j in range(last + 1):
            inferred = [] if infers else None
            row.append(test(j, last, inferred))
            if infers:
                shares.append((torch.cat(inferred) == j).float().mean().item())
        return row + [None] * (n_tasks - 1 - last), shares

    state_path = out / "state.pt"
    first = 0
    if state_path.exists():
        state = _load_state(state_path, key, device)
        method.load_state_dict(state["method"])
        record.update(state["record"])
        first = len(record["tasks"])
    else:
        record["R"] = [[None] * n_tasks for _ in range(n_tasks)]

    progress = Progress(name, sum(steps), "steps", done=sum(steps[:first]))
    if first:
        progress.say(f"continues after task {first} of {len(tasks)}", last=True)
    for done in tasks[:first] if router else ():
        router.add([prompt for prompt, _ in done.examples])
    for task in tasks[first:]:
        if router:
            router.add([prompt for prompt, _ in task.examples])
        seed_everything(seed_for(seed, "train", task.index))
        devices.reset_peak(device)
        progress.start(f"task {task.index + 1} of {len(tasks)}, {task.name}:")
        n_tests = 0 if method.offline or not stages else train["curve_tests"]
        own_test = partial(test, task.index, task.index)
        curve = TestCurve(method.model, own_test, steps[task.index], n_tests)

        def after_step(loss, n_samples, curve=curve):
            curve.after_step(n_samples)
            progress.advance(note=lambda: f"loss {loss.item():.3f}")

        learnt = method.learn(task, after_step)
        learnt["train_seconds"] -= curve.seconds
        peak = devices.peak_bytes(device)
        start = time.perf_counter()
        row, task_accuracy = evaluate(task.index)
        eval_seconds = time.perf_counter() - start
        record["R"][n_tasks - 1 if method.offline else task.index] = row
        for point in learnt.pop("curve"):  # to be looked at: four digits keep records small
            loss = float(f"{point['loss']:.4g}")
            record["curve"].append({"task": task.index, **point, "loss": loss})
        record["test_curve"] += [{"task": task.index, **point} for point in curve.points]
        tested = data if method.offline else [data[task.index]]
        record["tasks"].append(
            learnt
            | {
                "name": task.name,
                "metric": data[task.index].metric,
                "n_train": len(task.train),
                "n_test": sum(len(t.gold) for t in tested),
                "epochs": task.epochs,
                "eval_seconds": eval_seconds,
                "peak_bytes": peak,
            }
            | ({"task_accuracy": task_accuracy} if infers else {})
            | ({"router_accuracy": routed(router, data[: task.index + 1])} if router else {})
        )
        seen = [s for s in row if s is not None]
        progress.say(
            f"{progress.place} {100 * sum(seen) / len(seen):.1f} % "
            f"on {len(seen)} tasks, {learnt['train_seconds']:.1f} s",
            last=True,
        )
        _save_state(state_path, key, method.state_dict(), record)
    record["diagnostics"] = method.diagnostics()
    footprint = method.footprint()
    stored = footprint.pop("stored_values")
    record["footprint"] = footprint | {
        "stored_parameters": stored,
        "state_bytes": state_path.stat().st_size,
    }
    record["provenance"] = {
        "device": devices.name(device),
        "deterministic": device == "cpu",
        "tf32": devices.tf32(device),
        "weights_sha256": manifest["weights_sha256"],
        "weights_labels": manifest.get("labels"),
    }


def facts(spec: dict, data: list[TaskData]) -> dict:
    """What the record says of a text stream: its known defects, and scores without any model."""
    manifest = read_json(RESOURCES / "streams" / streams.place(spec) / "manifest.json")
    floors = []
    for task in data:
        test = [{"prompt": p, "answer": a} for p, a in zip(task.prompts, task.gold, strict=True)]
        train = [{"prompt": prompt, "answer": answer} for prompt, answer in task.examples]
        rule, fraction = floor(task.metric, train, test)
        floors.append({"task": task.name, "rule": rule, "score": fraction})
    return {"defects": manifest.get("defects", []), "floor": floors}


def routed(router: WordRouter, seen: list[TaskData]) -> list[float]:
    """For each task seen, the share of its test prompts whose task the word counts find."""
    return [float((router.route(list(task.prompts)) == t).mean()) for t, task in enumerate(seen)]


class TestCurve:
    """The score on the task being learnt against the training samples seen (Figure 1).

    Tests before the first step and then `n_tests` times, evenly spaced; in `seconds` that are
    none of training. It changes nothing: no test draws random numbers.
    """

    def __init__(self, model, score: Callable[[], float], n_steps: int, n_tests: int):
        self.points: list[dict] = []
        self.seconds = 0.0
        self._model, self._score = model, score
        self._n_steps, self._n_tests = n_steps, n_tests
        self._steps = self._samples = 0
        if self._n_tests:
            self._test()
            self.seconds = 0.0  # that one was before the clock of training started

    def after_step(self, n_samples: int) -> None:
        """Count a step, and test if one of the tests is due."""
        self._steps, self._samples = self._steps + 1, self._samples + n_samples
        done = self._steps * self._n_tests
        if done % self._n_steps < self._n_tests:  # another of the equal parts is complete
            self._test()

    def _test(self) -> None:
        start = time.perf_counter()
        training = self._model.training
        self.points.append({"samples": self._samples, "score": self._score()})
        self._model.train(training)
        self.seconds += time.perf_counter() - start


def _save_state(path: Path, key: str, method_state: dict, record: dict) -> None:
    """Save what a run continues from.

    Raises:
        DataError: the method keeps a value that could not be read again.
    """
    check_state(method_state, "its state")
    buffer = io.BytesIO()
    torch.save({"key": key, "method": method_state, "record": record}, buffer)
    write_bytes(path, buffer.getvalue())


_READABLE = (torch.Tensor, torch.nn.Parameter, torch.Size, str, bytes, bool, int, float)


def check_state(value: Any, name: str) -> None:
    """Reading runs no code, so that only tensors, numbers, text and collections of them can be."""
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            check_state(key, f"a name in {name}")
            check_state(part, f"{name}[{quoted(key)}]")
    elif type(value) in (list, tuple, set):
        for i, part in enumerate(value):
            check_state(part, f"{name}[{i}]")
    elif value is not None and type(value) not in _READABLE:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise DataError(
            f"the method cannot be saved, as {name} is a {kind}: let state_dict() give a tensor, "
            f"a number or text instead; torch.as_tensor() makes a tensor of an array"
        )


def _load_state(path: Path, key: str, device: str) -> dict:
    if not _is_whole(path):
        raise DataError(f"{path} is corrupt: delete it to start the run again")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is whole, but holds more than tensors, numbers and text, which is not read: "
            f"delete it to start the run again"
        ) from error
    if not isinstance(state, dict) or not {"key", "method", "record"} <= state.keys():
        raise DataError(f"{path} is no state of a run: delete it to start the run again")
    if state["key"] != key:
        raise DataError(f"{path} belongs to run {state['key']}, not {key}: delete it")
    return state


def _is_whole(path: Path) -> bool:
    """Whether each part has the checksum the file keeps of it; torch does not look."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False


def run(spec_path: Path, out: Path) -> dict:
    """Make or finish a run and save its record.

    Raises:
        DataError: the spec or an existing record is corrupt, or nothing could be saved.
    """
    asked = read_json(spec_path)
    if not isinstance(asked, dict) or not {"spec", "key"} <= asked.keys():
        raise DataError(f"{spec_path} is no spec of a run: delete it and run again")
    spec, key = asked["spec"], asked["key"]
    path = out / "result.json"
    if path.exists():
        record = read_record(path, key)
        if record["status"] == "done":
            print(f"{path} is there already", file=sys.stderr)
            return record
    check_writable(out)
    started = _now()
    facts = provenance() | {"started": started, "threads": torch.get_num_threads()}
    record = {"status": "done", "error": None, "key": key, "spec": spec}
    try:
        measured = learn_stream(spec, key, out)
    except Exception as error:
        text = str(error).strip() or "no message"
        sentence = text if isinstance(error, DataError) else f"{type(error).__name__}: {text}"
        print(shown(sentence), file=sys.stderr)
        record |= getattr(error, "record", {})
        record |= {"status": "failed", "error": " ".join(sentence.split())[:2000]}
        measured = {}
    facts |= measured.pop("provenance", {}) | {"finished": _now()}
    record |= measured | {"provenance": facts}
    write_record(path, record)
    if record["status"] == "done":
        (out / "state.pt").unlink(missing_ok=True)
    return read_record(path, key)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", type=Path, help="file that Run.write_spec made")
    parser.add_argument("--out", type=Path, required=True, help="folder of the record")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--own-gpu", action="store_true", help="take a GPU that no other run has, or wait for one"
    )
    parser.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="that the scheduler has given (default 0)"
    )
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(options.threads)
    try:
        own = gpus.claim() if options.own_gpu else None  # held until the process ends
        if own or options.gpus:
            devices.require_gpu()
        run(options.spec, options.out)
    except DataError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
