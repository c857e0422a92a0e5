"""text: a user's own tasks of prompts and answers.

    stream: {name: text, path: /my/tasks, tasks: {first: rouge_l, second: exact}}

`path` holds a folder for each task with `train.json` and `test.json`, lists of {"prompt",
"answer"}; an `eval.json` is compared with them and otherwise left alone. It may also be an archive
of such folders (.tar.xz, .tar.gz, .zip), or O-LoRA's `CL_Benchmark`. `tasks` gives the tasks in the
order of the stream and the metric of each, a key of `text_metrics.METRICS`.
Training items whose prompt is in the test set are dropped unless `keep_leaks: true`, so are empty
prompts unless a file has no other. A relative path starts at the folder in which the suite is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.errors import DataError
from benchmarks.common.options import NonEmpty, at
from benchmarks.scoring import text_metrics
from benchmarks.streams.common import packs
from benchmarks.streams.common.base import LanguageOptions
from benchmarks.streams.common.sources import composed


class Text(packs.TextStream):
    """Tasks that a user brings."""

    @dataclass(frozen=True, kw_only=True)
    class Options(LanguageOptions):
        path: str
        tasks: NonEmpty[dict[str, str]]
        keep_leaks: bool | None = None

        def __post_init__(self):
            for task, metric in self.tasks.items():
                with at(f"tasks, {task}"):
                    text_metrics.check(metric)
            if len({composed(task) for task in self.tasks}) < len(self.tasks):
                raise DataError(
                    f"tasks names a task twice, among {', '.join(self.tasks)}: leave one out"
                )

    content_options = ("path", "tasks", "keep_leaks")
    version = 2

    def __init__(self, options: Options, data_dir: Path | None = None):
        super().__init__(options, data_dir)
        self.metrics = {composed(task): metric for task, metric in options.tasks.items()}
