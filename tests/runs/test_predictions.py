"""What runs answered: kept, collected, published, scored again."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from analysis.records import predictions, reading
from benchmarks.common.errors import DataError
from benchmarks.common.files import read_json, write_json
from benchmarks.runs import kept, learning, rescore, results
from benchmarks.runs.plan import load_plan
from benchmarks.runs.status import describe
from tests.small_runs import make, plan_of

pytestmark = pytest.mark.slow
METHODS = {"seqlora": {}, "hidelora": {}, "joint": {}}
ENDS = {(0, 0), (1, 1), (2, 0), (2, 1), (2, 2)}  # the diagonal and the final row


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory):
    """A folder in which runs of three methods have been made and collected."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = plan_of(METHODS, seeds=(0, 1), epochs=1)
        for one in plan.runs:
            assert make(one)["status"] == "done"
        results.collect(plan, Path("results/own/runs.jsonl"))
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "PUBLISHED", tmp_path / "published")
    rescore._gold.cache_clear()
    return tmp_path


def the_plan(keep=()):
    """That of the fixture, or with more to keep."""
    return plan_of(METHODS, seeds=(0, 1), keep=keep, epochs=1)


def seqlora(keep=()):
    """The first run of one method."""
    return next(one for one in the_plan(keep).runs if one.label == "seqlora")


def answers(one):
    """The file of what a run answered."""
    return kept.predictions(Path(one.record))


def stopped(monkeypatch, one, after):
    """Make a run up to the state after some tasks."""
    save, saved = learning.save_state, []

    def stop(*arguments):
        save(*arguments)
        saved.append(arguments)
        if len(saved) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learning, "save_state", stop)
        make(one)


def test_the_diagonal_and_the_final_row_are_kept(folder):
    for one in the_plan().runs:
        (own,) = predictions.read(answers(one))
        record = read_json(Path(one.record))
        assert own.key == one.key and own.tasks == record["stream"]["tasks"]
        assert own.cells.keys() == (ENDS if one.label != "joint" else {(2, 0), (2, 1), (2, 2)})
        assert own.belong_to(record)
        for (after, task), cell in own.cells.items():
            assert len(cell.outputs) == len(own.items[task]) == 4
            shares = record["tasks"][after]["task_accuracy"] if one.label == "hidelora" else None
            assert (cell.inferred is None) == (shares is None)
            if shares:
                assert np.mean(np.equal(cell.inferred, task)) == pytest.approx(shares[task])


def test_an_item_has_one_id_and_a_class_one_label_whatever_the_seed(folder):
    """In the stream of the fixture, item i is of class i // 2, and two classes make a task."""
    orders = set()
    for one in the_plan().runs:
        (own,) = predictions.read(answers(one))
        for name, items in zip(own.tasks, own.items, strict=True):
            task = int(name.removeprefix("script"))
            assert items == [*range(4 * task, 4 * task + 4)]
        labels = {item // 2 for items in own.items for item in items}
        for (_, task), cell in own.cells.items():
            assert set(cell.outputs) <= labels
            right = np.equal(np.array(own.items[task]) // 2, cell.outputs)
            assert cell.scores == right.tolist()
        orders.add((one.seed, *own.tasks))
    assert len(orders) == 2  # the same for all methods, and another for another seed


def test_a_run_that_lacks_what_is_to_be_kept_is_open_and_made_again(folder, capsys):
    one = seqlora(keep=["all"])
    assert one.status() == "open" and one.earlier() == []
    assert "keep asks for all, which" in describe(the_plan(keep=["all"]))
    before, ends = read_json(Path(one.record)), predictions.read(answers(one))[0].cells
    record = make(one)
    assert "made again, to keep all" in capsys.readouterr().err
    assert record["R"] == before["R"] and one.status() == "done"
    every = predictions.read(answers(one))[0].cells
    assert len(every) == 6 and {place: every[place] for place in ends} == ends
    assert seqlora().status() == "done"
    assert read_json(Path(one.directory) / "spec.json")["keep"] == ["all"]
    answers(one).unlink()
    assert one.status() == "open" and seqlora().status() == "done"
    answers(one).write_bytes(b"no gzip")
    with pytest.raises(DataError, match="predictions-.*holds no predictions or is damaged"):
        one.status()
    with pytest.raises(DataError, match="predictions-.*holds no predictions or is damaged"):
        results.collect(the_plan(), Path("damaged.jsonl"))
    assert not Path("damaged.jsonl").exists()


def test_a_run_that_is_to_keep_more_than_its_state_has_starts_over(folder, monkeypatch, capsys):
    """Also one whose state is older than predictions."""
    one = seqlora()
    whole = answers(one).read_bytes()
    Path(one.record).unlink()
    stopped(monkeypatch, one, after=2)
    (half,) = predictions.read(one.state.with_suffix(".jsonl.gz"))
    assert half.cells.keys() == {(0, 0), (1, 1)}
    every = seqlora(keep=["all"])
    make(every)
    assert "kept less: it starts over" in capsys.readouterr().err
    assert every.status() == "done" and answers(one).read_bytes() != whole


def test_a_damaged_file_beside_a_state_is_named(folder, monkeypatch):
    one = seqlora()
    Path(one.record).unlink()

    stopped(monkeypatch, one, after=1)
    one.state.with_suffix(".jsonl.gz").write_bytes(b"\x1f\x8b")
    record = make(one)
    assert record["status"] == "failed" and "holds no predictions or is damaged" in record["error"]


def test_scoring_again_gives_what_was_recorded(folder):
    cells, table = rescore.rescore("own")
    assert len(cells) == 2 * (5 + 5 + 3) and (cells["score"] == cells["recorded"]).all()
    assert {row["method"] for row in table.rows} == set(METHODS)
    assert "All 26 scores of R that were kept are the recorded ones exactly" in table.markdown()


def test_items_that_training_left_out_are_scored_again_too(folder):
    plan_of({"seqlora": {}}, epochs=1)
    document = yaml.safe_load(Path("own.yaml").read_text())
    document["experiments"][0]["stream"]["holdout"] = 2
    Path("own.yaml").write_text(yaml.safe_dump(document))
    plan = load_plan("own.yaml")
    assert make(plan.runs[0])["status"] == "done"
    results.collect(plan, Path("results/own/runs.jsonl"))
    cells, _ = rescore.rescore("own")
    assert len(cells) == 5 and (cells["score"] == cells["recorded"]).all()


def test_another_metric_may_be_a_file(folder):
    Path("mine.py").write_text("def score(output, answer, prompt):\n    return output != answer\n")
    cells, table = rescore.rescore("own", "mine.py")
    assert (cells["score"] < 1).any() and "by mine" in table.markdown()
    named, _ = rescore.rescore("own", "exact")  # of the names of classes
    assert (named["score"] + cells["score"]).tolist() == pytest.approx([1] * len(cells))
    for text, sentence in [
        ("score = 1", "mine.py fails .*not callable.*: correct score"),
        ("def score(output, answer, prompt): return 2", "from 0 to 1, but mine.py gives 2.0"),
        ("scores = None", "mine.py cannot be used"),
        ("def score(", "mine.py cannot be used"),
    ]:
        Path("mine.py").write_text(text)
        with pytest.raises(DataError, match=sentence):
            rescore.rescore("own", "mine.py")
    with pytest.raises(DataError, match="did you mean 'exact'"):
        rescore.rescore("own", "exactly")
    with pytest.raises(DataError, match="METRIC none.py is no file, as /.*none.py"):
        rescore.rescore("own", "none.py")


def test_what_cannot_be_scored_again_is_one_sentence(folder):
    file = Path("results/own/runs.predictions.jsonl.gz")
    whole = file.read_bytes()
    lines = gzip.decompress(whole).splitlines()
    other = json.loads(lines[1])
    other["outputs"] = [19 - label for label in other["outputs"]]
    lines[1] = json.dumps(other).encode()
    file.write_bytes(gzip.compress(b"\n".join(lines)))
    with pytest.raises(DataError, match="1 of 26 scores are not the recorded ones.*task 1 after 1"):
        rescore.rescore("own")
    file.write_bytes(answers(seqlora()).read_bytes())
    assert "5 of 6 runs have kept no predictions" in rescore.rescore("own")[1].markdown()
    file.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="runs.predictions.jsonl.gz holds no predictions or is dam"):
        rescore.rescore("own")
    file.unlink()
    with pytest.raises(DataError, match="own have kept no predictions: make them again"):
        rescore.rescore("own")
    file.write_bytes(whole)
    manifest = Path("resources/streams/glyphs/manifest.json")
    write_json(manifest, read_json(manifest) | {"fingerprint": "0"})
    rescore._gold.cache_clear()
    with pytest.raises(DataError, match="data in resources/streams/glyphs is not that of these"):
        rescore.rescore("own")
    shutil.rmtree(manifest.parent)
    with pytest.raises(DataError, match="the data of glyphs is not here: make restore"):
        rescore.rescore("own")
    with pytest.raises(DataError, match="other has no results here: make replicate SUITE=other"):
        rescore.rescore("other")


def test_predictions_are_published_and_restored_with_their_records(folder, monkeypatch):
    plan = the_plan()
    for one in plan.runs:
        record = read_json(Path(one.record))
        record["provenance"]["dirty"] = False
        write_json(Path(one.record), record)
    before = {one.key: answers(one).read_bytes() for one in plan.runs}
    files = results.publish(plan, Path("results/own/runs.jsonl"))
    assert [file.name for file in files] == ["own.runs.jsonl.xz", "own.predictions.jsonl.xz"]
    assert "own.predictions.jsonl.xz" in Path("published/SHA256SUMS").read_text()
    shutil.rmtree("results")
    assert "6 of 6 runs restored" in results.restore(plan)
    assert {one.key: answers(one).read_bytes() for one in plan.runs} == before
    same, other = plan.runs[:2]  # two that are done without their answers, one with other scores
    scores = read_json(Path(other.record))
    scores["R"][-1][0] += 0.5
    write_json(Path(other.record), scores)
    for one in (same, other):
        answers(one).unlink()
    assert "0 of 6 runs restored" in results.restore(plan)
    assert answers(same).read_bytes() == before[same.key] and not answers(other).exists()
    shutil.rmtree("results")
    assert len(rescore.rescore("own")[0]) == 26  # from those that are published
    results.restore(plan)
    held_out = plan.runs[0].spec["stream"]
    held_out["holdout"] = 1  # a trial, which is no result
    assert len(results.publish(plan, Path("results/own/runs.jsonl"))) == 1
    del held_out["holdout"]
    assert len(results.publish(plan, Path("results/own/runs.jsonl"))) == 2
    monkeypatch.setattr(results, "MOST_PUBLISHED", 10)
    assert len(results.publish(plan, Path("results/own/runs.jsonl"))) == 1
    shutil.rmtree("results")
    assert "6 of 6 runs restored" in results.restore(plan)
    assert not list(Path("results").rglob("predictions-*"))


def test_collected_runs_are_packed_together(folder):
    own = list(Path("results/runs").rglob("predictions-*.jsonl.gz"))
    whole = predictions.file_of(Path("results/own/runs.jsonl"))
    assert len(predictions.read(whole)) == len(own) > 1
    assert whole.stat().st_size < 0.9 * sum(path.stat().st_size for path in own)
