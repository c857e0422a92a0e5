"""The benchmarks of text: streams that differ in nothing but their tasks and the order of these.

`trace` are the eight tasks of TRACE (Wang et al. 2023, arXiv 2310.06762) in their order, `math_llm`
the three of them that need reasoning, the stream of the paper's Table 7. `order1` to `order6` are
the orders of O-LoRA (Wang et al. 2023, arXiv 2310.14152), of 4 and of 15 tasks with labels.
`long15`, the stream of the paper's Table 9, is TRACE and then seven tasks of O-LoRA: the paper does
not print their order, it is that of the authors' code. `packs` has where their items are found,
`text_tasks` what is known of each task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.streams.common import packs
from benchmarks.streams.common.base import LanguageOptions
from benchmarks.streams.common.text_tasks import METRICS, TASKS

_TRACE = "C-STANCE FOMC MeetingBank Py150 ScienceQA NumGLUE-cm NumGLUE-ds 20Minuten"
TASK_LISTS = {
    name: tuple(tasks.split())
    for name, tasks in {
        "trace": _TRACE,
        "math_llm": "ScienceQA NumGLUE-cm NumGLUE-ds",
        "long15": f"{_TRACE} dbpedia amazon yahoo agnews yelp BoolQA QQP",
        "order1": "dbpedia amazon yahoo agnews",
        "order2": "dbpedia amazon agnews yahoo",
        "order3": "yahoo amazon agnews dbpedia",
        "order4": "MNLI CB WiC COPA QQP BoolQA RTE IMDB yelp amazon SST-2 dbpedia agnews MultiRC "
        "yahoo",
        "order5": "MultiRC BoolQA WiC MNLI CB COPA QQP RTE IMDB SST-2 dbpedia agnews yelp amazon "
        "yahoo",
        "order6": "yelp amazon MNLI CB COPA QQP RTE IMDB SST-2 dbpedia agnews yahoo MultiRC BoolQA "
        "WiC",
    }.items()
}


class TextBenchmark(packs.TextStream):
    """Known tasks in a known order; the name among its options says which.

    Its options: `path`, a folder or archive that has the tasks instead of the data directory;
    `size`, the items of a task for training, of the pack of 500, the default, or of 5000; `scoring:
    released` for the metrics of the paper's code; `keep_leaks`, whether training items whose prompt
    is in the test set stay.
    """

    @dataclass(frozen=True, kw_only=True)
    class Options(LanguageOptions):
        path: str | None = None
        size: Literal[500, 5000] | None = None
        scoring: Literal["released"] | None = None
        keep_leaks: bool | None = None

    content_options = ("path", "size", "scoring", "keep_leaks")

    def __init__(self, options: Options, data_dir: Path | None = None):
        super().__init__(options, data_dir)
        tasks = {name: TASKS[name] for name in TASK_LISTS[options.name]}
        self.size, released = options.size, options.scoring == "released"
        self.metrics = {name: METRICS[task.kind][released] for name, task in tasks.items()}
        self.n_tokens = [task.tokens for task in tasks.values()]
        if options.size != 5000:
            n_train, n_test = map(sum, zip(*(t.n_items for t in tasks.values()), strict=True))
            self.n_items = {"train": n_train, "test": n_test}
