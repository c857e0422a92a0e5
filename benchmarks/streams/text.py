"""text: a user's own tasks of prompts and answers.

    stream: {name: text, path: /my/tasks, tasks: {first: rouge_l, second: exact}}

`path` holds a folder for each task with `train.json` and `test.json`, lists of {"prompt", "answer"}
(or one such object a line); an `eval.json` is compared with the others and otherwise left alone. It
may be an archive of such folders too (.tar.xz, .tar.gz, .zip), and O-LoRA's `CL_Benchmark`. `tasks`
gives the tasks in the order of the stream and the metric of each, a name of `benchmarks.scores`.
Training items whose prompt is in the test set are dropped unless `keep_leaks: true`. A relative
path starts at the folder in which the suite is run.
"""

import difflib
from pathlib import Path

from benchmarks.files import DataError
from benchmarks.streams import _text

MODALITY = "language"
N_TASKS = None  # the suite says it
OPTIONS = ("path", "tasks", "keep_leaks")


def n_tasks(**options) -> int:
    """How many tasks the suite names."""
    return len(_stream(**options).metrics)


def fingerprint(data_dir: Path | None = None, **options) -> str:
    """Digest of the tasks' names, order, metrics and files."""
    return _stream(**options).fingerprint


def prepare(out: Path, data_dir: Path | None = None, **options) -> dict:
    """Write data.json into `out` and return the manifest."""
    return _stream(**options).prepare(out)


def _stream(
    path: str | None = None, tasks: dict[str, str] | None = None, keep_leaks: bool | None = None
) -> _text.Stream:
    if path is None:
        raise DataError("the stream text needs path, the folder of your tasks: add it")
    if not tasks:
        raise DataError(
            "the stream text needs tasks, the metric of each task by its name in the order of the "
            "stream: add it"
        )
    for task, metric in tasks.items():
        if metric not in _text.KNOWN_METRICS:
            near = difflib.get_close_matches(metric, _text.KNOWN_METRICS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "choose one of "
            hint += "" if near else ", ".join(_text.KNOWN_METRICS)
            raise DataError(f"the task {task!r} has the metric {metric!r}, there is none: {hint}")
    return _text.Stream("text", tasks, _text.own_path(path), path=path, keep_leaks=bool(keep_leaks))
