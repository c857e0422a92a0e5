"""A run in the making: a method learns a stream task by task, tested after each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path

import torch

from analysis.records import predictions
from analysis.records.predictions import Cell, Predictions
from analysis.terminal import tell
from baselines.common.inside import Unlike
from baselines.common.task import Task
from baselines.common.word_router import WordRouter
from benchmarks import backbones, streams
from benchmarks.backbones.causal import require_bitsandbytes
from benchmarks.common import devices
from benchmarks.common.digests import seed_for
from benchmarks.common.errors import DataError, Postponed
from benchmarks.common.files import read_json, write_bytes
from benchmarks.common.progress import Progress
from benchmarks.costs import memory
from benchmarks.runs import adapters, build, general, gpus, kept, sources
from benchmarks.runs.deadline import Deadline
from benchmarks.runs.evaluate import TestCurve, answer, legal_share
from benchmarks.runs.kept import Keep
from benchmarks.runs.model_card import Learnt
from benchmarks.runs.record import now, provenance, without_curve
from benchmarks.runs.state import check_state, load_state, save_state
from benchmarks.scoring.without_a_model import blind_floor, floor
from benchmarks.streams.common.tasks import RESOURCES, TaskData, load_stream, union, union_epochs


class Run:
    """A run in the making.

    Args:
        deadline: when no further task may start.
        before_save: called before anything is saved; it raises where the run is not to go on.
        state_minutes: after which the state inside a task is saved, again and again; 0 for never.

    Attributes:
        record: what was measured so far, as the result record has it, and `tries`: when and on
            which device each process began that made a part of it, and how many tasks it learnt.
        cells: of R the predictions behind it, by place: those of the diagonal and of the final row,
            or all if `keep` says so.
    """

    def __init__(
        self,
        spec: dict,
        key: str,
        state_path: Path,
        keep: Collection[Keep],
        deadline: Deadline,
        before_save: Callable[[], None],
        state_minutes: float,
    ):
        self.spec, self.key, self.state_path, self.keep = spec, key, state_path, keep
        self.deadline, self.before_save = deadline, before_save
        self.state_seconds = 60 * state_minutes
        self.answers_path = state_path.with_suffix(".jsonl.gz")
        self.inside_path = kept.inside(state_path)
        self.cells: dict[tuple[int, int], Cell] = {}
        self.device = devices.find()
        self.general: torch.Tensor | None = None  # the text, where general ability is asked for
        self.record: dict = {"tasks": [], "R": None, "test_curve": [], "tries": []}

    def make(self) -> None:
        """Make the run, from its last saved state on."""
        self.build()
        self.restore()
        row = str(self.state_path.parent.parent)  # its other seeds lie beside it
        for task in self.tasks[len(self.record["tasks"]) :]:
            stops_inside = self.state_seconds and self.method.stages
            expected = 0.0 if stops_inside else self._expected_seconds(task.index)
            self.deadline.check("" if stops_inside else row, task.index, expected)
            start = time.monotonic()
            try:
                self.learn(task)
            except Unlike as error:
                raise DataError(
                    f"{self.inside_path} is not built as the method is now ({error}): delete it to "
                    f"start the task again"
                ) from error
            self.deadline.note(row, task.index, time.monotonic() - start)
            self.before_save()
            if "adapters" in self.keep:
                adapters.write(self._adapter(task.index), self.method, self._learnt(task.index))
            write_bytes(self.answers_path, self.predictions().pack())
            save_state(self.state_path, self.key, self.method.state_dict(), self.record)
            self.inside_path.unlink(missing_ok=True)
        self.finish()

    def build(self) -> None:
        """Load the stream and the backbone, and set the method up."""
        spec = self.spec
        torch.use_deterministic_algorithms(self.device == "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, changes nothing
        self.manifest = build.manifest_of(spec["backbone"])
        language = spec["modality"] == "language"
        if spec["backbone"].get("weights") == "nf4":
            _require_nf4(self.device)
        self.backbone = backbones.find(self.manifest["name"])
        self.tokenizer = self.backbone.tokenizer(self.manifest) if language else None
        self.data, self.task_of_class = load_stream(spec["stream"], spec["seed"], self.tokenizer)
        self.labels = [label for task in self.data for label in task.labels]
        self.record["stream"] = {
            "tasks": [task.name for task in self.data],
            "groups": [task.group for task in self.data],
        }
        if language:
            self.record["stream"] |= _facts(spec["stream"], self.data)
        if isinstance(self.backbone, backbones.CausalModel):
            fits = memory.check(spec | {"stream": spec["stream"] | self._lengths()}, self.device)
            tell(f"{self.manifest['name']}: {fits}")
        network = self._network()
        self._general_before(network)
        setting = self.task_of_class, self.tokenizer, self.device
        self.method = build.method_of(spec, network, *setting)
        self.tasks = self._tasks()
        size, stages = spec["train"]["batch_size"], self.method.stages
        self.steps = [stages * t.epochs * math.ceil(len(t.train) / size) for t in self.tasks]
        self.router = WordRouter() if language and not self.method.offline else None

    def _network(self) -> torch.nn.Module:
        spec = self.spec
        network = build.network_of(spec, self.backbone, self.manifest, len(self.task_of_class))
        if spec["modality"] == "language":
            longest = max(
                max(task.train.x.shape[-1], task.test_x.shape[-1] + task.max_new_tokens)
                for task in self.data
            )
            self.backbone.check_context(longest, network.context)
        if spec["train"].get("checkpointing"):
            network.save_memory()
        return network.split_qkv()

    def _lengths(self) -> dict[str, int]:
        """Of the longest answers, as options would limit them to that."""
        trained = (int((task.train.y != -100).sum(dim=1).max()) for task in self.data)
        tested = (task.max_new_tokens for task in self.data)
        return {"max_answer_tokens": max(trained), "max_new_tokens": max(tested)}

    def _general_before(self, network: torch.nn.Module) -> None:
        """Note the general ability of the backbone, where that is asked for."""
        if place := self.spec["train"].get("general"):
            wanted = self.spec["general_digest"]
            self.general = general.windows(place, wanted, self.tokenizer, network.context)
            loaded_on = next(network.parameters()).device
            network.to(self.device).eval()
            before = general.nats_per_token(network, self.general, self.device)
            network.to(loaded_on)  # a method's first draws are made there
            tokens = int((self.general[:, 1] == 2).sum())
            self.record["general"] = {"text": place, "tokens": tokens, "before": before}

    def _general_after(self) -> None:
        """Note that of the model at the end."""
        if self.general is not None:
            self.method.ready_to_test()
            self.method.model.eval()
            after = general.nats_per_token(self.method.model, self.general, self.device)
            self.record["general"]["after"] = after

    def _tasks(self) -> list[Task]:
        """What the method learns: task by task, or all at once."""
        epochs = self.spec["train"]["epochs"]
        if not self.method.offline:
            parts = enumerate(zip(self.data, epochs, strict=True))
            return [Task(i, t.name, t.train, e, t.examples) for i, (t, e) in parts]
        common, repeats = union_epochs(epochs)
        everything = union([task.train for task in self.data], repeats)
        examples = [example for task in self.data for example in task.examples]
        return [Task(0, "all tasks", everything, common, examples)]

    def restore(self) -> None:
        """Continue from the saved state, if there is one."""
        n_tasks, label = len(self.data), self.spec["method"]["label"]
        self.record["R"] = [[None] * n_tasks for _ in range(n_tasks)]
        if self.state_path.exists():
            state, record = load_state(self.state_path, self.key, self.device)
            done = range(len(record["tasks"]))
            adapted = "adapters" not in self.keep or all(self._adapter(i).is_dir() for i in done)
            if self._restore_cells(record["R"]) and adapted:
                self.method.load_state_dict(state)
                self.record |= without_curve(record)
            else:
                tell(f"{self.state_path} is of a run that kept less: it starts over")
        tried = {"started": now(), "device": devices.name(self.device), "tasks": 0}
        self.record["tries"].append(tried)
        done = len(self.record["tasks"])
        name = f"{self.spec['stream']['name']}/{label}/s{self.spec['seed']}"
        self.progress = Progress(name, sum(self.steps), "steps", done=sum(self.steps[:done]))
        if done:
            self.progress.say(f"continues after task {done} of {len(self.tasks)}", last=True)
        for task in self.tasks[:done] if self.router else ():
            self.router.add([prompt for prompt, _ in task.examples])

    def _expected_seconds(self, index: int) -> float:
        """Of a task, by the one before, if this device learnt it; else 0."""
        devices_before = [t["device"] for t in self.record["tries"] if t["tasks"]]
        if devices_before[-1:] != [self.record["tries"][-1]["device"]]:
            return 0.0
        before = self.record["tasks"][-1]
        learning = before["train_seconds"] + before["consolidate_seconds"]
        growth = self.steps[index] / max(self.steps[index - 1], 1)
        return learning * growth + before["eval_seconds"] * (index + 1) / index

    def _restore_cells(self, R: list[list[float | None]]) -> bool:
        """Whether the predictions behind the scores so far are there, as far as they are kept."""
        runs = predictions.by_key(self.answers_path).get(self.key, ())
        found = {place: cell for run in runs for place, cell in run.cells.items()}
        places = [(i, j) for i, row in enumerate(R) for j, s in enumerate(row) if s is not None]
        self.cells = {place: found[place] for place in places if place in found}
        return all(place in self.cells for place in places if self._is_kept(*place))

    def _is_kept(self, after: int, task: int) -> bool:
        return "all" in self.keep or task == after or after == len(self.data) - 1

    def predictions(self) -> Predictions:
        """What is kept of the outputs so far."""
        names, items = [task.name for task in self.data], [list(task.items) for task in self.data]
        return Predictions(self.key, names, items, self.cells)

    def learn(self, task: Task) -> None:
        """Learn a task, test all tasks so far, and add both to the record."""
        build.seed_everything(seed_for(self.spec["seed"], "train", task.index))
        devices.reset_peak(self.device)
        self.progress.start(f"task {task.index + 1} of {len(self.tasks)}, {task.name}:")
        learnt, points = self._train(task)
        peak = max(devices.peak_bytes(self.device) or 0, learnt.pop("peak_bytes") or 0) or None
        start = time.perf_counter()
        last = len(self.data) - 1 if self.method.offline else task.index
        row, found = self.evaluate(last)
        eval_seconds = time.perf_counter() - start
        if self.router:
            self.router.add([prompt for prompt, _ in task.examples])
            found["router_accuracy"] = _routed(self.router, self.data[: task.index + 1])
        tested = self.data if self.method.offline else [self.data[task.index]]
        self.record["R"][last] = row
        self.record["test_curve"] += [{"task": task.index, **point} for point in points]
        self.record["tasks"].append(
            learnt
            | {
                "name": task.name,
                "metric": self.data[task.index].metric,
                "n_train": len(task.train),
                "n_test": sum(len(t.gold) for t in tested),
                "epochs": task.epochs,
                "eval_seconds": eval_seconds,
                "peak_bytes": peak,
            }
            | found
        )
        self.record["tries"][-1]["tasks"] += 1
        scores = [score for score in row if score is not None]
        on = f"on {len(scores)} task{'s' * (len(scores) > 1)}"
        self.progress.say(
            f"{self.progress.place} {100 * sum(scores) / len(scores):.1f} % {on}, "
            f"{learnt['train_seconds']:.1f} s",
            last=True,
        )

    def _train(self, task: Task) -> tuple[dict, list[dict]]:
        """The method's report, and the test scores taken meanwhile."""
        tests = self.method.stages and not self.method.offline
        n_tests = self.spec["train"]["curve_tests"] if tests else 0

        def test() -> float:
            self.method.ready_to_test()
            return self.test(task.index, task.index).score

        saving = {"seconds": 0.0, "peak_bytes": None}  # up to the last state inside the task
        if self.inside_path.exists():
            saving |= self._resume(task)
        curve = TestCurve(self.method.model, test, self.steps[task.index], n_tests)
        beside = {"curve": curve}
        if self.method.loop.resume:
            self.method.loop.resume = self.method.loop.resume, beside
        saved_at = time.monotonic()

        def after_step(loss: torch.Tensor, n_samples: int) -> None:
            nonlocal saved_at
            curve.after_step(n_samples)
            self.progress.advance(note=lambda: f"loss {loss.item():.3f}")
            stops = self.state_seconds and self.deadline.is_near()
            if stops or 0 < self.state_seconds <= time.monotonic() - saved_at:
                saving["seconds"] += self._save_inside(task, beside, saving)
                saved_at = time.monotonic()
            if stops and self.state_seconds:
                raise Postponed(
                    f"the allocation ends too soon for the rest of task {task.index + 1}: what was "
                    f"learnt of it is saved, run it again"
                )

        learnt = self.method.learn(task, after_step)
        seconds = learnt["train_seconds"] - curve.seconds - saving["seconds"]
        learnt |= {"train_seconds": seconds, "peak_bytes": saving["peak_bytes"]}
        return learnt, curve.points

    def _save_inside(self, task: Task, beside: object, saving: dict) -> float:
        """Save the state inside a task; the seconds that took."""
        start = time.perf_counter()
        self.before_save()
        peaks = saving["peak_bytes"] or 0, devices.peak_bytes(self.device) or 0
        measured = {
            "task": task.index,
            "seconds": saving["seconds"],
            "peak_bytes": max(peaks) or None,
            "tries": self.record["tries"],
            "device": self.device,
        }
        try:
            inside = self.method.loop.snapshot(beside)
            check_state(inside, "its state")
        except (DataError, Unlike) as error:
            tell(f"no state inside a task is saved, as the method keeps what cannot be: {error}")
            self.state_seconds = 0
        else:
            save_state(self.inside_path, self.key, inside, measured)
        return time.perf_counter() - start

    def _resume(self, task: Task) -> dict:
        """Let the method's loop go on inside the task, if it was saved there; what was measured."""
        found, measured = load_state(self.inside_path, self.key, "cpu")
        if (measured["task"], measured["device"]) != (task.index, self.device):
            return {}
        if self.device != "cpu":
            found, measured = load_state(self.inside_path, self.key, None)
        self.method.loop.resume = found
        measured["tries"][-1]["part"] = True  # of a task
        self.record["tries"] = measured["tries"] + self.record["tries"][-1:]
        self.progress.say(f"{self.progress.place} goes on at step {found['steps'] + 1}", last=True)
        return {name: measured[name] for name in ("seconds", "peak_bytes")}

    def evaluate(self, last: int) -> tuple[list[float | None], dict]:
        """The scores of all tasks after learning `last`, None of those that are not tested, and of
        methods that infer the task of an item, for each task so far the share of test items for
        which it is the right one; where a text task has options, the share of outputs that are
        one of them."""
        n_tasks = len(self.data)
        row, shares, legal = [None] * n_tasks, [None] * (last + 1), [None] * (last + 1)
        whole = last == n_tasks - 1 or self.spec["train"].get("evaluate") != "final"
        for task in range(last + 1) if whole else [last]:
            cell = self.test(task, last)
            row[task] = cell.score
            if self._is_kept(last, task):
                self.cells[last, task] = cell
            if cell.inferred:
                shares[task] = (torch.tensor(cell.inferred) == task).float().mean().item()
            legal[task] = legal_share(cell.outputs, self.data[task])
        found = {"task_accuracy": shares, "legal_share": legal}
        return row, {name: of for name, of in found.items() if any(s is not None for s in of)}

    def test(self, task: int, last: int) -> Cell:
        """What is answered to a task when `last` is the last task learnt; see `evaluate.answer`."""
        model, data = self.method.model, self.data[task]
        n_seen = int((self.task_of_class <= last).sum())
        size = self.spec["train"].get("test_batch_size") or devices.TEST_BATCH_SIZE
        queries = getattr(model, "queries", None)  # of prompts: the same in every test
        with queries.repeated(task) if queries else nullcontext():
            cell = answer(model, data, n_seen, self.device, self.tokenizer, size)
        if self.labels:
            cell = cell._replace(outputs=[self.labels[i] for i in cell.outputs])
        return cell

    def _adapter(self, index: int) -> Path:
        """The folder of what is kept of a task's method."""
        folder = self.state_path.with_name(self.state_path.stem.replace("state", "adapters", 1))
        return adapters.place(folder, index + 1, len(self.tasks), self.tasks[index].name)

    def _learnt(self, index: int) -> Learnt:
        """What is known by now, when a task is learnt."""
        n_learnt = len(self.data) if self.method.offline else index + 1
        seen, vision = self.data[:n_learnt], self.tokenizer is None
        stream = self.spec["stream"]
        return Learnt(
            key=self.key,
            spec=self.spec | {"stream": _homeless(stream)},
            tasks=[task.name for task in seen],
            metrics=[task.metric for task in seen],
            scores=self.record["R"][n_learnt - 1][:n_learnt],
            classes=_class_names(stream, self.data) if vision else [],
            image=list(seen[0].test_x.shape[-2:]) if vision else None,
            reading=None if vision else streams.of(stream).options.reading,
            max_new_tokens=None if vision else max(task.max_new_tokens for task in seen),
            stop=seen[-1].stop,
            weights_sha256=self.manifest["weights_sha256"],
            commit=provenance()["commit"],
            sources=sources.of(self.spec),
        )

    def finish(self) -> None:
        """Add to the record what is known at the end."""
        self._general_after()
        footprint = self.method.footprint()
        stored = footprint.pop("stored_values")
        diagnostics = self.method.diagnostics()
        json.dumps(diagnostics, allow_nan=False)  # what a record cannot hold fails the run
        self.record |= {
            "diagnostics": diagnostics,
            "footprint": footprint
            | {"stored_parameters": stored, "state_bytes": self.state_path.stat().st_size},
            "provenance": {
                "device": devices.name(self.device),
                "runs_per_gpu": gpus.shares() if self.device == "cuda" else None,
                "deterministic": self.device == "cpu",
                "tf32": devices.tf32(self.device),
                "weights_sha256": self.manifest["weights_sha256"],
                "weights_labels": self.manifest.get("labels"),
            },
        }


def _require_nf4(device: str) -> None:
    """DataError unless weights can be quantised here."""
    require_bitsandbytes()
    if device != "cuda":
        raise DataError(
            "weights: nf4 needs a GPU, and torch sees none here: run it where there is one, or set "
            "weights: bfloat16"
        )


def _facts(spec: dict, data: list[TaskData]) -> dict:
    """What the record says of a text stream: its known defects, and scores without any model."""
    manifest = read_json(RESOURCES / "streams" / streams.place(spec) / "manifest.json")
    train = [[{"prompt": p, "answer": a} for p, a in task.examples] for task in data]
    test = [
        [{"prompt": p, "answer": a} for p, a in zip(task.prompts, task.gold, strict=True)]
        for task in data
    ]
    floors = []
    for task, learnt, tested in zip(data, train, test, strict=True):
        rule, fraction = floor(task.metric, learnt, tested)
        floors.append({"task": task.name, "rule": rule, "score": fraction})
    rule, fractions = blind_floor([task.metric for task in data], train, test)
    return {
        "defects": manifest.get("defects", []),
        "floor": floors,
        "blind_floor": {"rule": rule, "scores": fractions},
    }


def _homeless(stream: dict) -> dict:
    """A spec of a stream without the way to the user's own data."""
    return stream | ({"path": Path(stream["path"]).name} if "path" in stream else {})


def _class_names(spec: dict, data: list[TaskData]) -> list[list[str]]:
    """What the stream calls the classes of each task, in the order of their numbers."""
    manifest = read_json(RESOURCES / "streams" / streams.place(spec) / "manifest.json")
    own = [name for task in manifest.get("tasks", []) for name in task["classes"]]
    names = manifest.get("classes") or own
    return [[names[label] for label in task.labels] for task in data]


def _routed(router: WordRouter, seen: list[TaskData]) -> list[float]:
    """For each task seen, the share of its test prompts whose task the word counts find."""
    return [float((router.route(list(task.prompts)) == t).mean()) for t, task in enumerate(seen)]
