"""text: a user's own tasks of prompts and answers.

    stream: {name: text, path: /my/tasks, tasks: {first: rouge_l, second: exact}}

`path` holds a folder for each task with `train.json` and `test.json`, lists of {"prompt",
"answer"}; an `eval.json` is compared with them and otherwise left alone. It may also be an archive
of such folders (.tar.xz, .tar.gz, .zip), or O-LoRA's `CL_Benchmark`. `tasks` gives the tasks in the
order of the stream and the metric of each, a key of `text_metrics.METRICS`, or {metric: exact,
stop: "\\n"}: a model's answer then ends before the first line break.
Training items whose prompt is in the test set are dropped unless `keep_leaks: true`, so are empty
prompts unless a file has no other. A relative path starts at the folder in which the suite is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from benchmarks.common.errors import DataError
from benchmarks.common.options import NonEmpty, at, parse
from benchmarks.scoring import text_metrics
from benchmarks.streams.common import packs
from benchmarks.streams.common.base import LanguageOptions
from benchmarks.streams.common.sources import composed


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is asked of a task.

    Attributes:
        metric: a key of `text_metrics.METRICS`.
        stop: the text before which a model's answer ends; None for none.
    """

    metric: str
    stop: Annotated[str, Field(min_length=1, max_length=100)] | None = None

    def __post_init__(self):
        text_metrics.check(self.metric)

    @classmethod
    def of(cls, asked: str | dict) -> _Task:
        """From what a suite says of it, which may be the metric alone."""
        return parse(cls, asked if isinstance(asked, dict) else {"metric": asked})


class Text(packs.TextStream):
    """Tasks that a user brings."""

    @dataclass(frozen=True, kw_only=True)
    class Options(LanguageOptions):
        path: str
        tasks: NonEmpty[dict[str, str | dict[str, Any]]]
        keep_leaks: bool | None = None

        def __post_init__(self):
            super().__post_init__()
            for task, asked in self.tasks.items():
                with at(f"tasks, {task}"):
                    _Task.of(asked)
            if len({composed(task) for task in self.tasks}) < len(self.tasks):
                raise DataError(
                    f"tasks names a task twice, among {', '.join(self.tasks)}: leave one out"
                )

    content_options = ("path", "tasks", "keep_leaks")
    version = 2

    def __init__(self, options: Options, data_dir: Path | None = None):
        super().__init__(options, data_dir)
        tasks = {composed(task): _Task.of(asked) for task, asked in options.tasks.items()}
        self.metrics = {name: task.metric for name, task in tasks.items()}
        self.stops = {name: task.stop for name, task in tasks.items() if task.stop}
