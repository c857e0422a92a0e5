"""Scores of what runs have answered, computed anew without a model.

`python -m benchmarks.runs.rescore SUITE` scores the predictions beside a suite's collected records,
or beside its published ones if none are here, and fails unless that gives the recorded R. With
`--metric` it is another metric: a name in `scoring.text_metrics`, or a file with a function
`score(output, answer, prompt)`, from 0 to 1. The output is a text, of images the name of a class.
What is right is read from the prepared stream.

`results/SUITE/rescored-METRIC.csv` has the score of each cell of R that was kept, a table beside it
those of the methods.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.records import predictions, reading
from analysis.records.metrics import estimate
from analysis.records.predictions import Predictions
from analysis.tables.table import Column, Table, csv, percent
from benchmarks import streams
from benchmarks.common.errors import DataError, as_exit, one_sentence
from benchmarks.common.files import read_json, write_bytes
from benchmarks.scoring import text_metrics

OWN = "own"  # of each task
Measure = Callable[[list[str], list[str], list[str]], list[float]]  # of outputs, answers, prompts


class Gold(NamedTuple):
    """What is right for the test items of a prepared stream, by their ids.

    Attributes:
        answers: texts, or on vision labels.
        prompts: empty on vision.
        metrics: of the tasks, by name, on language.
        classes: the names of the labels, on vision.
    """

    answers: list
    prompts: list[str]
    metrics: dict[str, str]
    classes: list[str]


def rescore(suite: str, metric: str = OWN) -> tuple[pd.DataFrame, Table]:
    """The score of each kept cell of R, and of each method those of its tasks, learnt and final.

    Args:
        suite: its name or the path of its file.

    Raises:
        DataError: nothing was kept, data is missing, the metric is unknown or fails, or the tasks'
            own metrics do not give the recorded scores.
    """
    measure, runs = _measure(metric), _runs(suite)
    cells = pd.DataFrame(
        [row for record, own in runs if own for row in _cells(record, own, measure)]
    )
    if cells.empty:
        raise DataError(f"the runs of {suite} have kept no predictions: make them again")
    unlike = cells[cells["score"] != cells["recorded"]]
    if metric == OWN and len(unlike):
        one = unlike.iloc[0]
        raise DataError(
            f"{len(unlike)} of {len(cells)} scores are not the recorded ones, as {one['score']} is "
            f"not {one['recorded']} ({one['method']} on {one['stream']}, seed {one['seed']}, task "
            f"{one['task']} after {one['after']}): make that run again"
        )
    table = _table(suite, metric, cells)
    if without := sum(not own for _, own in runs):
        table.notes.append(f"{without} of {len(runs)} runs have kept no predictions.")
    return cells, table


def _runs(suite: str) -> list[tuple[dict, Predictions | None]]:
    """The finished runs of a suite, each with what it answered if that was kept."""
    name = reading.suite_name(suite)
    own = Path("results", name, "runs.jsonl")
    path = own if own.is_file() else reading.published().get(name)
    if path is None:
        raise DataError(f"{suite} has no results here: make replicate SUITE={suite} makes them")
    records, _ = reading.read(path)
    found = predictions.by_key(predictions.file_of(path))
    done = [record for record in records if record["status"] == "done"]
    return [(record, predictions.of_record(found, record)) for record in done]


def _measure(metric: str) -> Measure | None:
    """A metric by its name or file; None for each task's own."""
    if metric == OWN:
        return None
    if not metric.endswith(".py"):
        text_metrics.check(metric)
        return lambda *texts: text_metrics.scores(metric, *texts)
    if not Path(metric).is_file():
        raise DataError(
            f"METRIC {metric} is no file, as {Path(metric).resolve()}: correct the path"
        )
    remedy = "correct score(output, answer, prompt) in it"
    with one_sentence(f"{metric} cannot be used", remedy):
        function = runpy.run_path(metric)["score"]

    def measure(*texts: list[str]) -> list[float]:
        with one_sentence(f"{metric} fails", remedy):
            scores = list(map(float, map(function, *texts)))
        if bad := [score for score in scores if not 0 <= score <= 1]:
            raise DataError(f"a score is from 0 to 1, but {metric} gives {bad[0]}: {remedy}")
        return scores

    return measure


def _cells(record: dict, kept: Predictions, measure: Measure | None) -> list[dict]:
    """A row for each cell of a run."""
    spec = record["spec"]
    gold = _gold(json.dumps(spec["stream"], sort_keys=True))
    rows = []
    for (after, task), cell in sorted(kept.cells.items()):
        items, name = kept.items[task], kept.tasks[task]
        row = {"stream": spec["stream"]["name"], "backbone": spec["backbone"]["name"]}
        row |= {"method": spec["method"]["label"], "seed": spec["seed"]}
        row |= {"after": after + 1, "task": task + 1, "name": name, "items": len(items)}
        row["score"] = fmean(_scores(cell.outputs, items, gold, gold.metrics.get(name), measure))
        rows.append(row | {"recorded": record["R"][after][task]})
    return rows


def _scores(
    outputs: list, items: list[int], gold: Gold, own: str | None, measure: Measure | None
) -> list[float]:
    answers = [gold.answers[i] for i in items]
    if not measure and not own:
        return [float(a == b) for a, b in zip(outputs, answers, strict=True)]
    if gold.classes:
        outputs, answers = ([gold.classes[i] for i in part] for part in (outputs, answers))
    prompts = [gold.prompts[i] for i in items] if gold.prompts else [""] * len(items)
    if measure:
        return measure(outputs, answers, prompts)
    return text_metrics.scores(own, outputs, answers, prompts)


@cache
def _gold(spec: str) -> Gold:
    """Of the stream that a record's `spec["stream"]`, as JSON, says."""
    asked = json.loads(spec)
    folder = Path("resources/streams") / streams.place(asked)
    remedy = f"make restore SUITE=... of its suite prepares it in {folder}"
    if not (folder / "manifest.json").exists():
        raise DataError(f"the data of {asked['name']} is not here: {remedy}")
    manifest = read_json(folder / "manifest.json")
    tested = "train" if asked.get("holdout") else "test"
    if manifest["fingerprint"] != asked["digest"]:
        raise DataError(f"the data in {folder} is not that of these runs: delete it, {remedy}")
    with one_sentence(f"the data in {folder} cannot be read", f"delete it, {remedy}"):
        if manifest["modality"] == "vision":
            own = [name for task in manifest.get("tasks", ()) for name in task["classes"]]
            with np.load(folder / "data.npz", allow_pickle=False) as arrays:
                labels = arrays[f"{tested}_labels"].tolist()
            return Gold(labels, [], {}, manifest.get("classes") or own)
        tasks = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    items = [item for task in tasks for item in task[tested]]
    answers, prompts = ([item[part] for item in items] for part in ("answer", "prompt"))
    return Gold(answers, prompts, {task["name"]: task["metric"] for task in tasks}, [])


def _table(suite: str, metric: str, cells: pd.DataFrame) -> Table:
    """The mean over tasks right after each was learnt and at the end, beside those recorded."""
    run = ["stream", "backbone", "method", "seed"]
    n_tasks = cells.groupby(run)["after"].transform("max")
    diagonal = cells["after"] == cells["task"]
    diagonal &= diagonal.groupby([cells[key] for key in run]).transform("sum") == n_tasks
    parts = {"final": cells[cells["after"] == n_tasks], "learnt": cells[diagonal]}
    titles = {"score": f"by {Path(metric).stem}", "recorded": "recorded"}
    if metric == OWN:
        del titles["recorded"]
    means = pd.DataFrame(
        {
            f"{when}_{which}": part.groupby(run, sort=False)[which].mean()
            for when, part in parts.items()
            for which in titles
        }
    )
    seeds = means.groupby(run[:3], sort=False).size()
    columns = [Column("stream", "Stream"), Column("backbone", "Backbone")]
    columns += [Column("method", "Method"), Column("seeds", "Seeds")]
    columns += [
        Column(f"{when}_{which}", f"{when.capitalize()}, {title}", percent)
        for when in parts
        for which, title in titles.items()
    ]
    rows = [
        dict(zip(run, group, strict=False)) | {"seeds": int(seeds[group])} | cell
        for group, cell in estimate(means, run[:3]).items()
    ]
    note = "Scores in percent: mean ± sample standard deviation over seeds."
    if metric == OWN:
        note += f" All {len(cells)} scores of R that were kept are the recorded ones exactly."
    return Table("rescored", f"{suite}: scores of kept predictions", columns, rows, notes=[note])


@as_exit()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", help="a suite's name, or the path of a suite file")
    parser.add_argument("--metric", default=OWN, help="default: each task's own")
    options = parser.parse_args()
    cells, table = rescore(options.suite, options.metric)
    stem = f"rescored-{Path(options.metric).stem}"
    folder = Path("results") / reading.suite_name(options.suite)
    write_bytes(folder / f"{stem}.csv", csv(cells).encode())
    write_bytes(folder / f"{stem}.md", table.markdown().encode())
    print(table.markdown(), end="")
    print(f"\n{folder / stem}.md, .csv")


if __name__ == "__main__":
    main()
