"""Results made here beside the published ones, and what commands say on a terminal."""

import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_records import SMALL, failed, seeds, set_paths, short, suite_of, write

from analysis import outcome, verify
from analysis.records import reading
from analysis.terminal import columns
from analysis.verify import compare

ROOT = Path(__file__).parents[2]
# Of two methods, whose scores scatter by about 0.9 points over four seeds.
PUBLISHED = [*seeds("seqlora", 0.5), *seeds("treelora", 0.6)]


def made(run: dict, gain: float = 0.0) -> dict:
    """The run made again, at another time and with a score better by `gain`."""
    again = set_paths(run, provenance__started="2026-02-02T00:00:00Z")
    again["R"][-1] = [score + gain for score in again["R"][-1]]
    return again


@pytest.fixture
def comparison(tmp_path):
    """What is said of records beside the published ones."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    published = suite_of(tmp_path / "there", PUBLISHED)
    return lambda records: compare(suite_of(tmp_path / "here", records), published)


def test_the_same_bits_are_equal_and_hold(comparison):
    found = comparison(list(map(made, PUBLISHED)))
    assert found.holds and found.runs["equal"].all() and not found.runs["difference"].any()
    said = found.text()
    assert said.startswith("8 of 8 runs of demo are equal to the published ones to the bit.\n")
    assert len(said.splitlines()) == 4


def test_a_limit_is_the_pooled_spread_of_the_published_seeds(comparison):
    """By hand, of the eight published scores: 6 degrees of freedom."""
    spread = np.std([0.0, 0.01, -0.01, 0.005], ddof=1)
    found = comparison(list(map(made, PUBLISHED)))
    assert found.methods["limit"].tolist() == pytest.approx(
        [2.4469 * 2**0.5 * spread] * 2, rel=1e-4
    )


def test_what_another_processor_does_is_told_and_holds(comparison):
    gains = [0.002, -0.003, *6 * [0.0]]
    found = comparison([made(run, gain) for run, gain in zip(PUBLISHED, gains, strict=True)])
    assert found.holds
    assert "6 of 8 runs" in found.text() and "lie within 0.3 points" in found.text()
    row = found.methods.xs("seqlora", level="method").iloc[0]
    assert (row["n"], row["equal"]) == (4, 2)
    assert (row["mean"], row["furthest"]) == pytest.approx((-0.00025, -0.003))


@pytest.mark.parametrize(
    "gains",
    [
        pytest.param([0.05, 0, 0, 0], id="a run"),
        pytest.param([0.02, 0.02, 0.02, 0.02], id="the mean, though no run alone"),
    ],
)
def test_what_the_spread_does_not_explain_is_named(comparison, gains):
    found = comparison(
        [made(run, gain) for run, gain in zip(PUBLISHED, gains + 4 * [0], strict=True)]
    )
    assert not found.holds
    assert found.methods["too_far"].tolist() == [True, False]
    assert "spread over seeds explains: seqlora on glyphs" in found.text()


def test_a_run_that_failed_or_that_nobody_made_is_no_proof(comparison):
    """Copies of published records say nothing of this machine, other settings nothing at all."""
    copies = comparison(PUBLISHED)
    assert copies.n_restored == 8 and not copies.holds
    assert "8 restored from them and left out" in copies.text()
    one_failed = comparison([failed(made(PUBLISHED[0])), *map(made, PUBLISHED[1:])])
    assert one_failed.n_failed == 1 and not one_failed.holds
    other = comparison([set_paths(made(run), key=f"{n:012x}") for n, run in enumerate(PUBLISHED)])
    assert other.n_absent == 8 and other.runs.empty and not other.holds
    assert "another content" not in other.text()
    data = [
        set_paths(run, key=f"{n:012x}", spec__stream__digest="e" * 64)
        for n, run in enumerate(PUBLISHED)
    ]
    assert "of another content here: stream glyphs" in comparison(data).text()
    part = comparison(list(map(made, PUBLISHED[:4])))
    assert part.n_absent == 4 and part.holds


def test_one_published_seed_sets_no_limit(tmp_path):
    published = suite_of(tmp_path, [short("seqlora", 0, 0.5)])
    found = compare(suite_of(tmp_path, [made(short("seqlora", 0, 0.5), 0.3)]), published)
    assert np.isnan(found.methods["limit"].iloc[0]) and found.holds
    assert "±" not in found.text()


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command in a folder of its own: its exit status and what it says."""
    (tmp_path / "published").mkdir()
    plain = write(tmp_path / "demo.jsonl", PUBLISHED)
    packed = lzma.compress(plain.read_bytes())
    (tmp_path / "published/demo.runs.jsonl.xz").write_bytes(packed)
    monkeypatch.setattr(reading, "PUBLISHED", tmp_path / "published")
    monkeypatch.chdir(tmp_path)

    def command(suite: str) -> tuple[int, str]:
        code = verify.main([suite])
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_the_command_fails_where_something_is_too_far(command):
    assert command("demoo") == (
        2,
        "No results of 'demoo' are published: did you mean 'demo'?\n",
    )
    assert command("demo") == (
        2,
        "results/demo/runs.jsonl is missing: make replicate SUITE=demo makes it\n",
    )
    Path("results/demo").mkdir(parents=True)
    own = Path("results/demo/runs.jsonl")
    write(own, list(map(made, PUBLISHED)))
    assert command("demo")[0] == command("some/where/demo.yaml")[0] == 0
    write(own, [made(run, 0.2) for run in PUBLISHED])
    code, said = command("demo")
    assert code == 1 and said.count("too far") == 2


def test_an_outcome_has_leaderboards_verdicts_and_the_comparison(tmp_path, monkeypatch):
    runs = write(tmp_path / "runs.jsonl", SMALL)
    name = SMALL[0]["suite"]["name"]
    monkeypatch.setattr(reading, "published", lambda: {name: runs})
    said = outcome.text(runs)
    board, verdicts, comparison = said.split("\n\n")
    lines = board.splitlines()
    assert lines[0] == "glyphs on vit-micro-glyphs:" and lines[1].split()[:2] == ["method", "ACC"]
    labels = [line.split()[0].lower() for line in lines[2:]]
    assert labels == ["treelora*", "seqlora", "joint"]
    assert lines[2].split()[1:3] == ["72.5", "+0.0"]
    assert "supported" in verdicts
    assert comparison.startswith("No run of demo was compared with a published one (5 restored")


def test_columns_are_aligned_and_show_what_does_not_print():
    rows = [{"name": "a", "n": "1"}, {"name": "long\x1b", "n": "12"}]
    assert columns(rows).splitlines() == ["name       n", "a          1", "long\\x1b  12"]
    assert columns([]) == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path, unbuffered):
    """And what the command is there for is made all the same."""
    code = """
from analysis.terminal import ends_in_one_sentence, say
@ends_in_one_sentence
def main():
    say("begins")
    open("made", "w")
    print("ends")
    return 0
raise SystemExit(main())
"""
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        stdout=written,
        stderr=subprocess.PIPE,
    )
    os.close(written)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "made").exists()
