"""text: a user's own tasks of prompts and answers.

    stream: {name: text, path: /my/tasks, tasks: {first: rouge_l, second: exact}}

`path` holds a folder for each task with `train.json` and `test.json`, lists of {"prompt",
"answer"}; an `eval.json` is compared with them and otherwise left alone. It may also be an archive
of such folders (.tar.xz, .tar.gz, .zip), or O-LoRA's `CL_Benchmark`. `tasks` gives the tasks in the
order of the stream and the metric of each, a key of `scores.METRICS`.
Training items whose prompt is in the test set are dropped unless `keep_leaks: true`, so are empty
prompts unless a file has no other. A relative path starts at the folder in which the suite is run.
"""

from pathlib import Path

from benchmarks.common.files import DataError
from benchmarks.scoring import scores
from benchmarks.streams.common import packs
from benchmarks.streams.common.sources import composed

MODALITY = "language"
N_TASKS = None  # the suite says it
OPTIONS = ("path", "tasks", "keep_leaks")
VERSION = 2  # raise it when the same files give other items


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
) -> packs.Tasks:
    if path is None:
        raise DataError("the stream text needs path, the folder of your tasks: add it")
    if not tasks:
        raise DataError(
            "the stream text needs tasks, the metric of each task by its name in the order of the "
            "stream: add it"
        )
    for task, metric in tasks.items():
        try:
            scores.check(metric)
        except DataError as error:
            raise DataError(f"tasks, {task}: {error}") from error
    metrics = {composed(task): metric for task, metric in tasks.items()}
    if len(metrics) < len(tasks):
        raise DataError(f"tasks names a task twice, among {', '.join(tasks)}: leave one out")
    place = packs.own_path(path)
    return packs.Tasks(
        "text", metrics, place, path=path, keep_leaks=bool(keep_leaks), version=VERSION
    )
