"""Suites from Python: what a dict becomes, what comes back, and what is refused."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common.errors import DataError
from benchmarks.runs import replicate as module
from benchmarks.runs import results, suite_text
from benchmarks.runs.replicate import replicate
from tests.small_runs import make, plan_of


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that stands for the checkout."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def test_a_dict_is_read_back_as_it_was(here, monkeypatch):
    monkeypatch.chdir(here)
    rows = {"010": "no", "é🌳": "1e-3", "1": [1e-05, 1e22, 3, -0.5, True, None, "x: y # z"]}
    mine = {"path": Path("mine.py"), "seeds": np.arange(2), "rate": np.float32(0.5)}
    plain = {"path": str(here / "mine.py"), "seeds": [0, 1], "rate": 0.5}
    path = module._saved({"label": "a\n'b'", **rows, **mine}, "try")
    assert path == here / "results/try.yaml"
    assert suite_text.read(path) == {"label": "a\n'b'", **rows, **plain}


@pytest.mark.parametrize("name", ["../try", "a/b", "", "/try", "runs"])
def test_a_name_that_leads_elsewhere_is_refused(here, name):
    with pytest.raises(DataError, match="name"):
        replicate({"label": "x"}, name)
    assert not list(here.iterdir())


def test_what_no_file_can_say_is_refused(here):
    with pytest.raises(DataError, match="holds a function"):
        replicate({"label": "x", "seeds": lambda: 0})


@pytest.mark.slow
def test_a_bad_suite_is_one_sentence_before_anything_is_made(here, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(module, "_make", None)
    with pytest.raises(DataError, match="^try.yaml: .*experiments") as error:
        replicate({"label": "x", "seeds": [0]}, "try")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_row_says_where_its_record_lies(project, monkeypatch):
    plan = plan_of({"seqlora": {}, "fix": {}})
    record = make(plan.runs[0])
    asked = []
    monkeypatch.setattr(module, "ROOT", project)
    monkeypatch.setattr(module, "_check", asked.append)
    monkeypatch.setattr(module, "_make", lambda out, *_, **__: results.collect(plan, Path(out)))
    runs = replicate("own.yaml").set_index("method")
    assert asked == [str(project / "own.yaml")]
    assert runs["path"]["seqlora"] == project / plan.runs[0].record
    assert runs["path"]["fix"] is None and runs["status"]["fix"] == "skipped"
    assert runs["R"]["seqlora"][-1].tolist() == record["R"][-1]


def test_what_could_not_be_made_is_said(here, capsys):
    """What stands for Snakemake here is found first, as the commands run in the checkout."""
    (here / "snakemake.py").write_text("raise SystemExit('no space left')")
    with pytest.raises(DataError, match="look above"):
        module._make()
    assert capsys.readouterr().out == "no space left\n"


def test_an_interrupt_reaches_the_runs(here, monkeypatch):
    run = "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    run += "try:\n    print('made', flush=True)\n    time.sleep(60)\n"
    run += "except KeyboardInterrupt:\n    open('stopped', 'w')\n"
    (here / "run.py").write_text(run)
    workflow = "import subprocess, sys\nsubprocess.call([sys.executable, 'run.py'])\n"
    (here / "snakemake.py").write_text(workflow)

    def interrupted(*shown, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "print", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        module._make()
    for _ in range(400):  # the run ends on its own
        if not (here / "stopped").exists():
            time.sleep(0.05)
    assert (here / "stopped").exists()
