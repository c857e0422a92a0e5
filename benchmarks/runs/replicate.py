"""A suite from Python, as in a notebook: what is missing of it is made, and its runs are a table.

    from benchmarks.runs.replicate import replicate

    glyphs = {
        "stream": {"name": "glyphs", "train_per_class": 40},
        "backbone": {"name": "micro-vit"},
        "train": {"epochs": 4, "learning_rate": 0.005, "mask": "all"},
        "methods": {"seqlora": {}, "mine": {"method": Path("mine.py")}},
    }
    runs = replicate({"label": "a try", "seeds": [0, 1, 2], "experiments": [glyphs]}, "try")
    runs.groupby("method")[["acc", "bwt_paper", "train_seconds"]].mean()

These are the commands behind `make replicate`, in processes of their own, so that an edit of a
method's file counts in the next call. The records are those that any other suite finds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.reading import suite_name
from analysis.records.runs import load
from analysis.text import quoted
from benchmarks.common.errors import DataError
from benchmarks.common.files import ROOT, write_bytes
from benchmarks.common.options import at
from benchmarks.runs import slurm, sources, suite_text


def replicate(
    suite: dict[str, Any] | str | Path,
    name: str = "notebook",
    cores: int | str = "all",
    profile: str = "profiles/default",
) -> pd.DataFrame:
    """Makes the runs of a suite that are missing, and returns all of them.

    Args:
        suite: what a suite file says, as a dict; or the name or path of one. In a dict a file is
            a Path, from the current folder on.
        name: of a suite that is a dict. It is saved as `results/NAME.yaml` in the checkout, and
            its results are in `results/NAME`.
        cores, profile: as for `make replicate`.

    Returns:
        A row for each run, see `analysis.records.runs`: `stream`, `method`, `seed`, `status`, the
        final score `acc`, `bwt_paper`, `train_seconds`, `R`, the whole `record` and others; and
        `path`, where that lies. One that failed has its `error` and no scores.

    Raises:
        DataError: what is wrong with the suite, before anything is made; or a run cannot be made.
    """
    suite = str(_saved(suite, name) if isinstance(suite, dict) else suite)
    if (name := suite_name(suite)) != suite:  # it is a path
        suite = str(Path(suite).absolute())
    _check(suite)
    runs = f"results/{name}/runs.jsonl"
    _make(runs, "--cores", str(cores), "--config", f"suite={suite}", profile=profile)
    made = load(ROOT / runs)
    return made.assign(path=made["record"].map(_path))


def _saved(document: dict, name: str) -> Path:
    """The file of a suite that is a dict: JSON, which is YAML as suites are read."""
    with at(quoted(name)):
        suite_text.check_name(name)
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, default=_plain)
        data = text.encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"the suite cannot be saved as text ({error}): correct that") from error
    path = ROOT / "results" / f"{name}.yaml"
    write_bytes(path, data)
    return path


def _plain(value: Any) -> Any:
    """A path or a value of NumPy as text, number or list."""
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"it holds a {type(value).__name__}")


def _check(suite: str) -> None:
    """Say what of a suite is done; DataError if something is wrong with it."""
    command = [sys.executable, "-m", "benchmarks.runs.status", suite]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise DataError(done.stderr.strip().rpartition("\n")[2])
    print(done.stdout, end="")


def _make(*options: str, profile: str | None = None) -> None:
    """Run the workflow, and show what it says as it comes; a notebook hears no other process."""
    if profile:
        slurm.check_usable(ROOT / profile)
        options = ("--workflow-profile", profile, *options)
    with subprocess.Popen(
        [sys.executable, "-m", "snakemake", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGINT)  # the runs, too
            process.communicate()
            raise
    if process.returncode:
        raise DataError("not all runs could be made: look above or in results/batches for why")


def _path(record: dict) -> Path | None:
    """Where a run's own record lies; None of one that was skipped."""
    code = (record.get("provenance") or {}).get("sources")
    if code is None:
        return None
    label, seed = record["spec"]["method"]["label"], record["spec"]["seed"]
    place = f"{label}/s{seed}-{record['key']}/result-{sources.version(code)}.json"
    return next(ROOT.glob(f"results/runs/*/{place}"), None)
