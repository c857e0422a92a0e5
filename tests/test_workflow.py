"""The workflow from end to end, on a copy of the working tree."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.xdist_group("checkout")  # all tests share one, in their order

ROOT = Path(__file__).parents[1]
TRAIN = re.compile(r"train (\S+) on (\S+), seed (\d+)")


class Checkout:
    """A copy of the working tree in which commands are run."""

    def __init__(self, folder: Path):
        self.folder = folder
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, names.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess:
        """Run a command here; standard output and error come back as one text."""
        keep = {k: v for k, v in os.environ.items() if k not in ("TREELORA_DATA", "MAKEFLAGS")}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=keep | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def snakemake(self, *options: str, suite: str = "smoke") -> str:
        """Run the workflow of a suite, which must succeed, and return what it prints."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *options]
        done = self.run(*command, "--config", f"suite={suite}")
        assert done.returncode == 0, done.stdout
        return done.stdout

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))


def smoke() -> dict:
    """The smoke suite, for a test to change."""
    return yaml.safe_load((ROOT / "benchmarks/suites/smoke.yaml").read_text())


def scheduled(shown: str) -> dict[str, int]:
    """Rules and numbers of jobs in what Snakemake prints."""
    table = shown.partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout in which the smoke suite has been run, in a folder whose name has a space."""
    checkout = Checkout(tmp_path_factory.mktemp("a checkout"))
    checkout.snakemake()
    return checkout


def test_smoke(checkout):
    """Data, training and analysis leave every declared file, and no run failed."""
    suite = smoke()
    methods = sum(len(experiment["methods"]) for experiment in suite["experiments"])
    records = (checkout.folder / "results/smoke/runs.jsonl").read_text().splitlines()
    assert len(records) == methods * len(suite["seeds"])
    assert [line for line in records if '"status": "done"' not in line] == []
    for pattern in ("summary.csv", "tables/*.md", "tables/*.tex", "tables/*.csv", "figures/*.svg"):
        found = checkout.files(f"results/smoke/{pattern}")
        assert found and all(path.stat().st_size for path in found), pattern
    page = (checkout.folder / "results/smoke/report/index.html").read_text()
    assert all(method in page for e in suite["experiments"] for method in e["methods"])


def test_a_second_run_schedules_nothing(checkout):
    started = time.monotonic()
    shown = checkout.snakemake()
    assert "Nothing to be done" in shown and scheduled(shown) == {}
    assert time.monotonic() - started < 30


def test_a_changed_hyper_parameter_schedules_its_method_alone(checkout):
    """In a user's copy of the suite, under another name and outside `benchmarks/suites`."""
    suite = smoke()
    (checkout.folder / "mine.yaml").write_text(yaml.safe_dump(suite))
    assert "train" not in scheduled(checkout.snakemake("--dry-run", suite="mine.yaml"))
    experiment = suite["experiments"][0]
    experiment["methods"]["seqlora"] = {"learning_rate": 0.00123}
    (checkout.folder / "mine.yaml").write_text(yaml.safe_dump(suite))
    shown = checkout.snakemake("--dry-run", suite="mine.yaml")
    stream = experiment["stream"]["name"]
    assert set(TRAIN.findall(shown)) == {("seqlora", stream, str(s)) for s in suite["seeds"]}
    assert {"prepare", "backbone"}.isdisjoint(scheduled(shown))


def test_open_runs_are_made_whatever_must_be_prepared_anew(checkout):
    """Of the runs that are done none is made again, though their stream is gone as well."""
    moved = {
        checkout.files("results/runs/glyphs/seqlora/*/result.json")[0]: "glyphs.json",
        checkout.files("results/runs/docs/olora/*/result.json")[0]: "docs.json",
        checkout.folder / "resources/streams/docs/manifest.json": "manifest.json",
    }
    for path, name in moved.items():
        path.rename(checkout.folder / name)
    shown = checkout.snakemake("--dry-run", "--forcerun", "prepare", "backbone")
    status = checkout.run(sys.executable, "-m", "benchmarks.plan", "smoke", "--complete")
    for path, name in moved.items():
        (checkout.folder / name).rename(path)
    assert set(TRAIN.findall(shown)) == {("seqlora", "glyphs", "0"), ("olora", "docs", "0")}
    made = scheduled(shown)
    assert (made["prepare"], made["backbone"], made["train"]) == (2, 2, 2)
    assert status.returncode == 1 and "2 of 7 runs are still open" in status.stdout
    status = checkout.run(sys.executable, "-m", "benchmarks.plan", "smoke", "--complete")
    assert status.returncode == 0 and "7 runs: 7 done" in status.stdout


def test_deleted_exhibits_are_redrawn_without_training(checkout):
    deleted = [checkout.files(f"results/smoke/{kind}/*")[0] for kind in ("tables", "figures")]
    before = [path.read_bytes() for path in deleted]
    for path in deleted:
        path.unlink()
    assert scheduled(checkout.snakemake()) == {"analyse": 1, "all": 1}
    assert [path.read_bytes() for path in deleted] == before


def test_a_changed_label_reaches_the_report_without_training(checkout):
    path = checkout.folder / "benchmarks/suites/smoke.yaml"
    written = path.read_text()
    path.write_text(written.replace("label: smoke test", "label: another test"))
    made = scheduled(checkout.snakemake("--dry-run"))
    path.write_text(written)
    assert made == {"collect": 1, "analyse": 1, "all": 1}


def test_changed_analysis_code_redraws_and_does_not_train(checkout):
    code = checkout.folder / "analysis/figures/style.py"
    code.write_text(code.read_text() + "\n# another look\n")
    assert scheduled(checkout.snakemake("--dry-run")) == {"analyse": 1, "all": 1}
    code.write_text((ROOT / "analysis/figures/style.py").read_text())


def test_figures_are_drawn_without_torch(checkout, tmp_path):
    """In seconds, and with every package of the models blocked."""
    for package in (
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "peft",
        "avalanche",
        "datasets",
    ):
        (tmp_path / f"{package}.py").write_text("raise ImportError('blocked')")
    blocked = {"PYTHONPATH": str(tmp_path)}
    assert checkout.run(sys.executable, "-c", "import torch", **blocked).returncode == 1
    started = os.times()
    done = checkout.run(
        *(sys.executable, "-m", "analysis", "results/smoke/runs.jsonl", "--out", "drawn"), **blocked
    )
    ended = os.times()
    assert done.returncode == 0, done.stdout
    drawn = {path.relative_to(checkout.folder / "drawn") for path in checkout.files("drawn/**/*.*")}
    made = checkout.folder / "results/smoke"
    assert (
        drawn >= {p.relative_to(made) for p in checkout.files("results/smoke/figures/*")} != set()
    )
    assert ended.children_user - started.children_user < 10


def test_a_failed_run_is_reported_and_made_again_on_request(checkout):
    """The other runs go on, and the failure is shown with its reason.

    In a suite whose name has what a shell would not take for one word.
    """
    name = "my suite's (1).yaml"
    suite = smoke()
    experiment = suite["experiments"][0]
    suite["experiments"] = [experiment]
    diverging = {"method": "seqlora", "learning_rate": 1e30, "clip_norm": None}
    experiment["methods"] = {"diverging": diverging, "seqlora": experiment["methods"]["seqlora"]}
    (checkout.folder / name).write_text(yaml.safe_dump(suite))
    assert scheduled(checkout.snakemake(suite=name))["train"] == len(suite["seeds"])
    page = (checkout.folder / "results/my suite's (1)/report/index.html").read_text()
    assert "diverging" in page and "failed" in page and "lower learning_rate" in page
    assert scheduled(checkout.snakemake(suite=name)) == {}
    shown = checkout.run(sys.executable, "-m", "benchmarks.plan", name, "--status").stdout
    assert (
        "lower learning_rate" in shown
        and "report: results/my suite's (1)/report/index.html" in shown
    )
    done = checkout.run(sys.executable, "-m", "benchmarks.results", "forget-failed", name)
    assert done.returncode == 0, done.stdout
    shown = checkout.snakemake("--dry-run", suite=name)
    assert {label for label, _, _ in TRAIN.findall(shown)} == {"diverging"}


def test_the_paper_suite_is_planned_whole(checkout):
    shown = scheduled(checkout.snakemake("--dry-run", suite="paper"))
    assert (shown["train"], shown["prepare"], shown["backbone"]) == (654, 12, 6)


def test_a_backbone_is_pretrained_on_its_stream_without_options(checkout):
    suite = yaml.safe_load((ROOT / "benchmarks/suites/trace_micro.yaml").read_text())
    suite["experiments"][0]["stream"]["scoring"] = "released"
    (checkout.folder / "released.yaml").write_text(yaml.safe_dump(suite))
    for name, prepared in (("trace_micro", 1), ("released.yaml", 2)):
        shown = scheduled(checkout.snakemake("--dry-run", suite=name))
        assert (shown["prepare"], shown["pretrain"], shown["backbone"]) == (prepared, 1, 1)


def test_an_unknown_suite_is_one_sentence(checkout):
    command = [sys.executable, "-m", "snakemake", "--config", "suite=smoek"]
    done = checkout.run(*command)
    assert done.returncode and "did you mean smoke?" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_workflow_runs_from_any_folder(checkout, tmp_path):
    snakefile = checkout.folder / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    done = subprocess.run(
        [*command, "--config", "suite=smoke"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Nothing to be done" in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".snakemake"]  # its log


def test_published_results_count_as_done(checkout):
    """Restored, they need no training, and are what was published to the byte."""
    runs = checkout.folder / "results/smoke/runs.jsonl"
    published = runs.read_bytes()
    folder = checkout.folder / "benchmarks/published"
    (folder / "smoke.jsonl").write_bytes(published)
    with open(folder / "SHA256SUMS", "a") as sums:
        sums.write(f"{hashlib.sha256(published).hexdigest()}  smoke.jsonl\n")
    for record in checkout.files("results/runs/*/*/*/result.json"):
        record.unlink()
    assert "train" in scheduled(checkout.snakemake("--dry-run"))
    shown = checkout.run(sys.executable, "-m", "benchmarks.results", "restore", "smoke").stdout
    n = len(published.splitlines())
    assert f"{n} of {n} runs restored" in shown
    assert "train" not in scheduled(checkout.snakemake())
    assert runs.read_bytes() == published
