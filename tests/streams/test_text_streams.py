"""Streams of text tasks: the same items whatever the source, defects found, broken input named."""

import functools
import json
import os
import shutil
import tarfile
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.costs import training_time
from benchmarks.runs import plan
from benchmarks.runs.suite import load_suite
from benchmarks.scoring import text_metrics
from benchmarks.streams import __main__ as command_line
from benchmarks.streams import text
from benchmarks.streams.common import sources
from benchmarks.streams.common.defects import inspect
from benchmarks.streams.common.items import prompt
from benchmarks.streams.common.task_lists import TASK_LISTS
from benchmarks.streams.common.text_tasks import METRICS, TASKS
from tests.containers import archive_of
from tests.own_suite import own_suite

ORDER1 = ("dbpedia", "amazon", "yahoo", "agnews")
TRACE = "C-STANCE FOMC MeetingBank Py150 ScienceQA NumGLUE-cm NumGLUE-ds 20Minuten".split()
PARTS = ("train", "eval", "test")
TYPES = {"dbpedia": "TC", "amazon": "SC", "yahoo": "TC", "agnews": "TC", "COPA": "COPA"}
HEADS = {"TC": "Name the topic.\n", "SC": "Name the mood.\n"}
LABELS = ["Bad", "Very good"]


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "DIGESTS", tmp_path / "digests")


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False), encoding="utf-8")


def sentences(task):
    """Items as O-LoRA has them, with line breaks at the end and in the middle."""
    return {
        part: [
            {"sentence": f"Text: {task} über {part} {i}{end}", "label": LABELS[i % 2]}
            for i, end in enumerate(["", "\n", "\n\nmore"])
        ]
        for part in PARTS
    }


def items(task):
    """The same as prompts, written out by hand."""
    head = "" if task == "COPA" else f"{HEADS[TYPES[task]]}Option: Bad, Very good \n"
    return {
        part: [
            {"prompt": f"{head}Text: {task} über {part} 0\nAnswer:", "answer": "Bad"},
            {"prompt": f"{head}Text: {task} über {part} 1\nAnswer:", "answer": "Very good"},
            {"prompt": f"{head}Text: {task} über {part} 2\n\nmore\nAnswer:", "answer": "Bad"},
        ]
        for part in PARTS
    }


def pack(folder, tasks=ORDER1, of=items):
    for task in tasks:
        for part, own in of(task).items():
            write(folder / task / f"{part}.json", own)
        write(folder / task / "labels.json", LABELS)
    return folder


def olora(root, tasks=ORDER1, wrapped=False):
    for task in tasks:
        folder = root / "CL_Benchmark" / TYPES[task] / task
        for part, own in sentences(task).items():
            file = folder / f"{'dev' if part == 'eval' else part}.json"
            write(file, {"Definition": [""], "Instances": own} if wrapped else own)
        write(folder / "labels.json", LABELS)
    other = {"instruction_type": "few-shot", "instruction": "not this one"}
    config = {kind: [other, {"instruction_type": "zero-shot", "instruction": head}]
              for kind, head in HEADS.items()}  # fmt: skip
    write(root / "configs/instruction_config.json", config)


def packed(folder, file):
    """The folder becomes an archive of the kind that the file's name says."""
    members = [(str(own.relative_to(folder.parent)), own.read_bytes())
               for own in sorted(folder.rglob("*.json"))]  # fmt: skip
    archive_of(file, members)
    shutil.rmtree(folder)


def prepared(out, name="order1", data_dir=None, **options):
    """The manifest, and the tasks of data.json by name."""
    manifest = streams.prepare(name, out, data_dir, **options)
    assert manifest["n_bytes"] == (out / "data.json").stat().st_size
    return manifest, json.loads((out / "data.json").read_text(encoding="utf-8"))


def fingerprint(data_dir=None, name="order1", **options):
    return streams.make({"name": name, **options}, data_dir).fingerprint()


def mine(path, *tasks, metric="exact"):
    """The options of a user's own tasks."""
    return {"path": str(path), "tasks": dict.fromkeys(tasks or "t", metric)}


def edit(path, change):
    write(path, change(json.loads(path.read_text(encoding="utf-8"))))


# ---------------------------------------------------------------------------- sources


def trace_zip(root):
    """Both sizes in one archive."""
    trace = root / "TRACE-Benchmark"
    pack(trace / "LLM-CL-Benchmark_500")
    pack(trace / "LLM-CL-Benchmark_5000", of=lambda task: {"train": []})
    packed(trace, root / "TRACE-Benchmark.zip")


def olora_zip(root):
    olora(root / "O-LoRA-main")
    packed(root / "O-LoRA-main", root / "O-LoRA-main.zip")


def pack_as(name):
    return lambda root: packed(pack(root / name.partition(".")[0]), root / name)


LAYOUTS = {
    "folder": lambda root: pack(root / "llm_cl_benchmark_500"),
    "tar.xz": pack_as("llm_cl_benchmark_500.tar.xz"),
    "tar.gz": pack_as("llm_cl_benchmark_500.tar.gz"),
    "zip": pack_as("LLM-CL-Benchmark_500.zip"),
    "TRACE": lambda root: pack(root / "TRACE-Benchmark/LLM-CL-Benchmark_500"),
    "TRACE zip": trace_zip,
    "O-LoRA": lambda root: olora(root),
    "O-LoRA wrapped": lambda root: olora(root / "O-LoRA", wrapped=True),
    "O-LoRA zip": olora_zip,
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_gives_the_same_items(kind, tmp_path):
    root = tmp_path / "data"
    LAYOUTS[kind](root)
    manifest, tasks = prepared(tmp_path / "out", data_dir=root)
    assert [task["name"] for task in tasks] == list(ORDER1)
    for task in tasks:
        assert task["train"] == items(task["name"])["train"]
        assert task["test"] == items(task["name"])["test"]
    amazon = {"name": "amazon", "group": "sentiment", "metric": "first_line"}
    assert manifest["tasks"][1] == amazon | {"n_train": 3, "n_test": 3}
    assert manifest["fingerprint"] == fingerprint(root)
    assert str(tmp_path) not in json.dumps(manifest)
    assert manifest["defects"] == []
    by_path, same = prepared(tmp_path / "again", path=str(root))
    assert same == tasks and by_path["fingerprint"] == manifest["fingerprint"]


def test_the_fingerprint_is_that_of_the_files_not_of_their_place(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pack(first / "llm_cl_benchmark_500")
    shutil.copytree(first, second)
    packed(second / "llm_cl_benchmark_500", second / "llm_cl_benchmark_500.tar.xz")
    known = fingerprint(first)
    assert fingerprint(second) == fingerprint(first, size=500) == known
    for path in (first / "llm_cl_benchmark_500", second / "llm_cl_benchmark_500.tar.xz"):
        assert fingerprint(path=str(path)) == known
    others = [
        fingerprint(first, scoring="released"),
        fingerprint(first, keep_leaks=True),
        fingerprint(first, "order2"),  # the same tasks in another order
    ]
    for part in ("train", "test", "eval", "labels"):
        file = first / f"llm_cl_benchmark_500/yahoo/{part}.json"
        file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
        others.append(fingerprint(first))
    assert len({known, *others}) == 1 + len(others)
    write(first / "llm_cl_benchmark_500/COPA/train.json", [])  # no task of this stream
    assert fingerprint(first) == others[-1]


def test_digests_are_those_of_published_records(tmp_path):
    trace = "f6402bdfdcc4c1c38ce6e40b36930455746101716cad1fbd9d883fec4a60f13b"
    assert fingerprint(name="trace") == trace
    pack(tmp_path / "llm_cl_benchmark_500")
    assert fingerprint(tmp_path).startswith("f461d33cbd3c")
    shutil.rmtree(tmp_path / "llm_cl_benchmark_500")
    olora(tmp_path)
    assert fingerprint(tmp_path).startswith("b1e63a5e0482")


def test_a_size_is_that_of_a_pack(tmp_path):
    olora(tmp_path)
    with pytest.raises(DataError, match="llm_cl_benchmark_5000"):
        prepared(tmp_path / "out", data_dir=tmp_path, size=5000)
    twice = lambda task: items(task) | {"train": items(task)["train"] * 2}  # noqa: E731
    pack(tmp_path / "llm_cl_benchmark_5000", of=twice)
    manifest, _ = prepared(tmp_path / "out", data_dir=tmp_path, size=5000)
    assert {task["n_train"] for task in manifest["tasks"]} == {6}
    assert fingerprint(tmp_path, size=5000) != fingerprint(tmp_path)


def test_what_a_pack_lacks_is_read_from_the_original(tmp_path):
    pack(tmp_path / "llm_cl_benchmark_500", ORDER1[:2])
    olora(tmp_path, ORDER1[1:])
    manifest, tasks = prepared(tmp_path / "out", data_dir=tmp_path)
    assert [task["train"] for task in tasks] == [items(task)["train"] for task in ORDER1]
    assert manifest["source"] == "llm_cl_benchmark_500, O-LoRA's CL_Benchmark"


@pytest.mark.parametrize(
    "head, sentence, task, asked",
    [
        ("", "A: this\nB: that", "COPA", "A: this\nB: that\nAnswer:"),
        ("I\n", r"one\ntwo", "yelp", "I\none\ntwo\nAnswer:"),
        ("I\n", "Question: why?\nAnswer: so\n", "yahoo", "I\nQuestion: why?\nso\nAnswer:"),
        ("I\n", r"earnings\news", "agnews", "I\nearnings\\news\nAnswer:"),
        ("I\n", "Answer: so", "IMDB", "I\nAnswer: so\nAnswer:"),
    ],
)
def test_prompts_of_the_original(head, sentence, task, asked):
    assert prompt(head, sentence, task) == asked


def test_without_the_data_a_plan_can_be_made_and_nothing_prepared(tmp_path):
    assert fingerprint(None) == fingerprint(tmp_path) == fingerprint(size=500)
    assert fingerprint(None) != fingerprint(size=5000)
    for folder in (None, tmp_path):
        with pytest.raises(DataError, match="llm_cl_benchmark_500 .*TREELORA_DATA .*TRACE"):
            prepared(tmp_path / "out", data_dir=folder)


# ---------------------------------------------------------------------------- known tasks


def test_the_streams_have_the_tasks_of_the_papers_in_their_order():
    lists = TASK_LISTS
    assert set(lists) == {"trace", "math_llm", "long15", *(f"order{i}" for i in range(1, 7))}
    assert list(lists["trace"]) == list(lists["long15"][:8]) == TRACE
    assert {frozenset(lists[f"order{i}"]) for i in (1, 2, 3)} == {frozenset(ORDER1)}
    fifteen = {frozenset(lists[f"order{i}"]) for i in (4, 5, 6)}
    assert len(fifteen) == 1 and len(*fifteen) == 15
    assert len(set(lists.values())) == 9
    for name, tasks in lists.items():
        assert streams.make({"name": name}).n_tasks == len(set(tasks))
        assert set(tasks) <= TASKS.keys()
    assert streams.make({"name": "trace"}).n_items == {"train": 4000, "test": 781}
    assert streams.make({"name": "order4"}).n_items == {"train": 7150, "test": 1456}


def test_metrics_are_known_and_chosen_by_scoring(tmp_path):
    assert {m for pair in METRICS.values() for m in pair} <= text_metrics.METRICS.keys()
    pack(tmp_path / "llm_cl_benchmark_500", TRACE, of=lambda task: items("COPA"))
    expected = {
        None: "first_line first_line rouge_l edit_similarity letter first_line first_line sari",
        "released": "prefix prefix rouge_l_released edit_similarity_released first_character "
        "prefix prefix sari",
    }
    for scoring, metrics in expected.items():
        manifest, _ = prepared(tmp_path / "out", "trace", tmp_path, scoring=scoring)
        assert [task["metric"] for task in manifest["tasks"]] == metrics.split()


# ---------------------------------------------------------------------------- defects


def qa(*pairs):
    return [{"prompt": prompt, "answer": answer} for prompt, answer in pairs]


CLEAN = {
    "train": qa(("q1", "a"), ("q2", "b"), ("q3", "a")),
    "eval": qa(("e1", "a")),
    "test": qa(("t1", "a"), ("t2", "b")),
}
PLANTED = {
    "eval is test": ({"eval": qa(("t2", "b"), ("t1", "a"))}, 2),
    "train prompt in test": ({"train": qa(("q", "a"), ("t1", "b"), ("t1", "c"))}, 1),
    "train prompt in eval": ({"train": qa(("q", "a"), ("e1", "a"))}, 1),
    "train twice": ({"train": qa(("q", "a"), ("q", "a"), ("q", "a"))}, 2),
    "train contradicts itself": ({"train": qa(("q", "a"), ("q", "b"), ("r", "a"))}, 1),
    "test twice": ({"test": qa(("t1", "a"), ("t1", "a"))}, 1),
    "empty prompt": ({"train": qa(("", "a"), ("q2", "b"), (" \n", "a"))}, 2),
    "empty answer": ({"test": qa(("t1", ""), ("t2", "b"))}, 1),
    "trailing space": ({"train": qa(("q1", "a\n"), ("q2", "b "), ("q3", " a"))}, 2),
    "unknown label": ({"test": qa(("t1", "-"), ("t2", "b"))}, 1),
    "short training prompts": ({"test": qa(("long enough", "a"))}, 3),
}
ALSO = {
    "train contradicts itself": {"train twice"},
    "train prompt in test": {"train twice", "train contradicts itself"},
}


@pytest.mark.parametrize("kind", PLANTED)
def test_each_defect_is_found_where_it_is_planted(kind):
    change, count = PLANTED[kind]
    labels = ["a", "b", "c", ""]
    assert inspect("task", CLEAN, labels, False) == ([], CLEAN["train"])
    defects, _ = inspect("task", CLEAN | change, labels, False)
    found = {defect["kind"]: defect["count"] for defect in defects}
    assert found[kind] == count and set(found) <= {kind, *ALSO.get(kind, ())}
    assert all(defect["task"] == "task" and defect["note"] for defect in defects)
    if kind == "unknown label":  # checked where labels are known
        assert inspect("task", CLEAN | change, None, False)[0] == []


@pytest.mark.parametrize("part", ["train", "test"])
def test_empty_prompts_are_dropped_and_said(part, tmp_path, capsys):
    folder = pack(tmp_path / "llm_cl_benchmark_500")
    edit(folder / f"amazon/{part}.json", lambda rows: [*qa(("", "Bad"), ("\n", "Bad")), *rows])
    command_line.main(["order1", "--out", str(tmp_path / "o"), "--data-dir", str(tmp_path)])
    said = f"amazon: empty prompt, 2 (of 5 prompts in {part}.json: dropped)"
    assert said in capsys.readouterr().out
    manifest, tasks = prepared(tmp_path / "out", data_dir=tmp_path)
    assert tasks[1][part] == items("amazon")[part] and manifest["tasks"][1][f"n_{part}"] == 3


def test_a_task_that_asks_for_any_text_keeps_its_empty_prompts(tmp_path):
    for part in PARTS:
        write(tmp_path / f"t/{part}.json", qa(("", "once")))
    manifest, [task] = prepared(tmp_path / "out", "text", keep_leaks=True, **mine(tmp_path))
    assert task["train"] == task["test"] == qa(("", "once"))
    assert "kept" in next(d["note"] for d in manifest["defects"] if d["kind"] == "empty prompt")


@pytest.mark.parametrize("place, name", [(text.Text, "version"), (text_metrics, "VERSION")])
def test_a_new_reader_or_metric_gives_users_tasks_another_name(place, name, tmp_path, monkeypatch):
    """The known streams' scores are those of the first versions, and so are their keys."""
    own_tasks(tmp_path)
    zebra = {"name": "text"} | mine(tmp_path, "zebra", metric="rouge_l")
    before, known = fingerprint(**zebra), fingerprint(name="trace")
    monkeypatch.setattr(place, name, getattr(place, name) + 1)
    assert fingerprint(**zebra) != before and fingerprint(name="trace") == known


def test_leaks_are_dropped_unless_asked_otherwise(tmp_path):
    folder = pack(tmp_path / "llm_cl_benchmark_500")
    leak = items("amazon")["test"][0] | {"answer": "Very good"}
    edit(folder / "amazon/train.json", lambda rows: [leak, *rows, leak])
    for keep, n in ((None, 3), (True, 5)):
        manifest, tasks = prepared(tmp_path / "out", data_dir=tmp_path, keep_leaks=keep)
        assert len(tasks[1]["train"]) == n and (leak in tasks[1]["train"]) is bool(keep)
        [defect] = [d for d in manifest["defects"] if d["kind"] == "train prompt in test"]
        fate = "kept" if keep else "dropped"
        note = f"their 2 training items are {fate}"
        assert (defect["task"], defect["count"], defect["note"]) == ("amazon", 1, note)
    edit(folder / "amazon/train.json", lambda rows: [leak])
    with pytest.raises(DataError, match="'amazon' needs training items that are not in test.json"):
        prepared(tmp_path / "out", data_dir=tmp_path)


# ---------------------------------------------------------------------------- broken input


BROKEN_ITEMS = {  # the content of a train.json -> what its sentence names
    '[{"prompt": "a",': "JSON",
    "not json": "JSON",
    b'[{"prompt": "\xff", "answer": "a"}]': "JSON",
    "": "JSON",
    "[" * 100_000: "JSON",
    f'[{{"prompt": "a", "answer": -{"1" * 5000}}}]': "JSON",
    '[{"prompt": "a", "answer": "b", "answer": "c"}]': "JSON .*'answer'",
    '["a", "b"]': "prompt and answer",
    '[{"prompt": "a", "answer": "b"}, null]': "prompt and answer",
    "null": "prompt and answer",
    '{"Instances": []}': "prompt and answer",
    "[\n]\n": "has none",
    '[{"prompt": "a"}]': "'answer' .* item 1 has None",
    '[{"prompt": "a", "answer": "b"}, {"prompt": "a", "answer": 5}]': "'answer' .* item 2 has 5",
    '[{"prompt": ["a"], "answer": "b"}]': "'prompt' .* item 1",
    '[{"prompt": "a", "answer": "\\ud83d"}]': "'answer' .* item 1 has '.ud83d'",
    b'[{"prompt": "\xed\xa0\xbd", "answer": "a"}]': "'prompt' .* item 1 has",
    f'[{{"prompt": "a", "answer": {10**400}}}]': "'answer' .* item 1 has 1000",
    '[{"prompt": "a", "answer": [1, null]}]': r"item 1 has \[1, None\]",
    '[{"prompt": "a", "answer": NaN}]': "'answer' .* item 1 has nan",
    '[{"prompt": "a", "answer": ' + "[" * 900 + "]" * 900 + "}]": "item 1 has",
}


@pytest.mark.parametrize(("content", "named"), BROKEN_ITEMS.items(), ids=range(len(BROKEN_ITEMS)))
def test_broken_items_are_one_sentence_with_the_file(content, named, tmp_path):
    for part, own in CLEAN.items():
        write(tmp_path / f"t/{part}.json", own)
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "t/train.json").write_bytes(content)
    with pytest.raises(DataError, match=f"t/train.json .*{named}") as error:
        prepared(tmp_path / "out", "text", **mine(tmp_path))
    assert len(str(error.value)) < 500
    assert not list((tmp_path / "out").iterdir())


def test_items_of_another_form_in_the_original_are_refused(tmp_path):
    olora(tmp_path)
    yahoo, configs = tmp_path / "CL_Benchmark/TC/yahoo", tmp_path / "configs"
    for file, value, named in (
        (yahoo / "test.json", [{"text": "a", "label": "b"}], "yahoo/test.json .*'sentence'"),
        (yahoo / "test.json", {"rows": []}, "yahoo/test.json .*sentence and label"),
        (yahoo / "labels.json", {"a": 1}, "labels.json needs a list"),
        (yahoo / "labels.json", None, "'yahoo' needs labels.json"),
        (configs / "instruction_config.json", {"SC": []}, "for 'TC'"),
        (configs / "instruction_config.json", None, "'dbpedia', .* configs/instruction_config"),
    ):
        before = file.read_bytes()
        file.unlink() if value is None else write(file, value)
        with pytest.raises(DataError, match=named):
            prepared(tmp_path / "out", data_dir=tmp_path)
        file.write_bytes(before)
    prepared(tmp_path / "out", data_dir=tmp_path)


OWN = qa(("2020-01-01", "007"), ("größer?", "ja 😀"), ("1", "1.0"))
# Of one item a number, of the next a text, or a number that no table can hold.
MORE = ({"id": 1}, {"id": "one", "weight": 10**400}, {"id": None, "more": {"1": [1, "2"]}})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("more", [({},) * 3, MORE], ids=["", "more"])
def test_texts_stay_what_they_are(encoding, more, tmp_path):
    rows = [row | beside for row, beside in zip(OWN, more, strict=True)]
    write(tmp_path / "ä/test.json", qa(("t", "true")))
    (tmp_path / "ä/train.json").write_bytes(json.dumps(rows, ensure_ascii=False).encode(encoding))
    _, [task] = prepared(tmp_path / "out", "text", **mine(tmp_path, "ä"))
    assert task["train"] == OWN and task["test"] == qa(("t", "true"))


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_task_is_found_however_its_letters_are_composed(archived, forms, tmp_path):
    on_disk, in_suite = (unicodedata.normalize(form, "größe") for form in forms)
    path = pack(tmp_path / "all", [on_disk], of=lambda task: CLEAN)
    if archived:
        members = [(f"{on_disk}/{part}.json", json.dumps(own)) for part, own in CLEAN.items()]
        path = archive_of(tmp_path / "all.zip", members)
    options = mine(path, in_suite)
    _, [task] = prepared(tmp_path / "out", "text", **options)
    assert task["name"] == unicodedata.normalize("NFC", "größe") and task["train"] == CLEAN["train"]
    with pytest.raises(DataError, match="names a task twice"):
        prepared(tmp_path / "out", "text", **mine(path, on_disk, in_suite))
    if not archived:
        pack(path, [in_suite], of=lambda task: CLEAN)
        with pytest.raises(DataError, match="holds the task 'größe' twice"):
            prepared(tmp_path / "out", "text", **options)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_device_for_a_file_is_named(name, tmp_path):
    folder = pack(tmp_path / "llm_cl_benchmark_500")
    (folder / f"yahoo/{name}.json").unlink()
    (folder / f"yahoo/{name}.json").symlink_to("/dev/null")
    for call in (fingerprint, lambda p: prepared(tmp_path / "out", data_dir=p)):
        with pytest.raises(DataError, match=f"yahoo/{name}.json is a folder, a pipe, .* a device"):
            call(tmp_path)
    with pytest.raises(DataError, match="/dev/null is a folder, a pipe, .* a device"):
        fingerprint(name="text", **mine("/dev/null"))


def test_a_name_that_steers_a_terminal_is_refused(tmp_path):
    write(tmp_path / "\033[2J/train.json", CLEAN["train"])
    with pytest.raises(DataError, match="holds the name .*cannot be printed"):
        fingerprint(name="text", **mine(tmp_path))


@pytest.mark.parametrize("part", ["train", "test"])
def test_missing_files_and_tasks_are_named(part, tmp_path):
    folder = pack(tmp_path / "llm_cl_benchmark_500")
    (folder / f"yahoo/{part}.json").unlink()
    with pytest.raises(DataError, match=f"'yahoo' needs {part}.json"):
        fingerprint(tmp_path)
    (folder / "yahoo").rename(folder / "yahooo")
    with pytest.raises(DataError, match="needs the task 'yahoo', .* did you mean 'yahooo'"):
        fingerprint(tmp_path)


def test_a_member_that_no_task_uses_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    folder, file = tmp_path / "llm_cl_benchmark_500", tmp_path / "mine.zip"
    for part, own in CLEAN.items():
        write(folder / f"a/{part}.json", own)
        write(folder / f"b/{part}.json", " " * (1 << 21))
    packed(folder, file)
    _, [task] = prepared(tmp_path / "out", "text", **mine(file, "a"))
    assert task["train"] == CLEAN["train"]
    with pytest.raises(DataError, match="b/.*.json in .* 1 MiB"):
        fingerprint(name="text", **mine(file, "a", "b"))


# ---------------------------------------------------------------------------- suite files


def suite_of(tmp_path, stream):
    return own_suite(tmp_path, stream, "micro-llama")


def own_tasks(folder):
    for task in ("zebra", "ant"):
        for part in ("train", "test"):
            rows = qa((f"{task} {part} 'q'", "ö"), (f"{part} 2", "b"))
            write(folder / task / f"{part}.json", rows)


def test_a_stop_is_kept_with_its_task(tmp_path):
    own_tasks(tmp_path / "mine")
    asked = {"zebra": {"metric": "exact", "stop": "\n"}, "ant": "exact"}
    _, tasks = prepared(tmp_path, "text", path=str(tmp_path / "mine"), tasks=asked)
    assert [task.get("stop") for task in tasks] == ["\n", None]


def test_a_users_own_tasks_from_the_suite_file_alone(tmp_path, monkeypatch):
    own_tasks(tmp_path / "my tasks")
    tasks = {"zebra": "rouge_l", "ant": "exact"}
    stream = {"name": "text", "path": str(tmp_path / "my tasks"), "tasks": tasks, "order": "fixed"}
    [run] = plan.load_plan(suite_of(tmp_path, stream)).runs
    assert run.spec["stream"]["n_tasks"] == 2
    assert training_time.items(run.spec) is None
    # By the command line of the workflow, and back into the runner.
    monkeypatch.chdir(tmp_path)
    out = Path("resources/streams") / run.stream
    command_line.main([*streams.of(run.spec["stream"]).arguments, "--out", str(out)])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["fingerprint"] == run.spec["stream"]["digest"]
    assert [t["name"] for t in manifest["tasks"]] == ["zebra", "ant"]
    written = json.loads((out / "data.json").read_text(encoding="utf-8"))
    assert [t["metric"] for t in written] == ["rouge_l", "exact"]
    assert written[0]["train"][0] == {"prompt": "zebra train 'q'", "answer": "ö"}
    # The place is not in the key; order, metrics and leaks are.
    (tmp_path / "my tasks").rename(tmp_path / "moved")
    moved = stream | {"path": str(tmp_path / "moved")}
    keys = [run.key]
    for change in (
        {"tasks": dict(reversed(tasks.items()))},
        {"tasks": tasks | {"ant": "prefix"}},
        {"tasks": {"ant": "exact"}},
        {"tasks": tasks | {"ant": {"metric": "exact", "stop": "\n"}}},
        {"tasks": tasks | {"ant": {"metric": "exact", "stop": "."}}},
        {"keep_leaks": True},
        {"n_tasks": 1},
    ):
        keys.append(load_suite(str(suite_of(tmp_path, moved | change))).runs[0].key)
    assert len(set(keys)) == len(keys)
    spelt_out = moved | {"tasks": tasks | {"ant": {"metric": "exact"}}}
    for same in (moved, moved | {"keep_leaks": False}, moved | {"n_tasks": 2}, spelt_out):
        assert load_suite(str(suite_of(tmp_path, same))).runs[0].key == run.key


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"path": None}, "path"),
        ({"path": "no-such"}, "no-such is not there"),
        ({"tasks": None}, "tasks"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": ["ant"]}, "tasks .*'ant'"),
        ({"tasks": {"ant": 5}}, "tasks.*5"),
        ({"tasks": {"ant": "rouge"}}, "ant: .*'rouge' .*rouge_l"),
        ({"tasks": {"ant": {"metric": "rouge"}}}, "ant: .*'rouge' .*rouge_l"),
        ({"tasks": {"ant": {"stop": "x"}}}, "ant: metric is missing"),
        ({"tasks": {"ant": {"metric": "exact", "stop": ""}}}, "ant: stop must"),
        ({"tasks": {"ant": {"metric": "exact", "stops": "x"}}}, "ant: 'stops'.*'stop'"),
        ({"tasks": {"aunt": "exact"}}, "'aunt', .*'ant'"),
        ({"n_tasks": 3}, "n_tasks .* 2, but is 3"),
        ({"size": 500}, "size"),
        ({"keep_leaks": "no"}, "keep_leaks .*'no'"),
        ({"name": "trace"}, "tasks"),
        ({"name": "trace", "tasks": None, "size": 1000}, "500 or 5000.* 1000"),
        ({"name": "trace", "tasks": None, "scoring": "x"}, "released.* 'x'"),
    ],
)
def test_wrong_options_are_one_sentence(change, named, tmp_path):
    own_tasks(tmp_path)
    stream = {"name": "text", "path": str(tmp_path), "tasks": {"zebra": "sari", "ant": "exact"}}
    with pytest.raises(DataError, match=f"own.yaml.*{named}"):
        load_suite(str(suite_of(tmp_path, stream | change)))


def test_options_of_a_benchmark_travel_over_the_command_line(tmp_path, capsys):
    pack(tmp_path / "pack", of=lambda t: items(t) | {"train": items(t)["train"] * 2})
    (tmp_path / "pack").rename(tmp_path / "LLM-CL-Benchmark_5000")
    options = {"size": 5000, "scoring": "released", "keep_leaks": True, "path": str(tmp_path)}
    [run] = plan.load_plan(suite_of(tmp_path, {"name": "order1"} | options)).runs
    assert training_time.items(run.spec) is None  # known of the pack of 500 only
    out = tmp_path / "out"
    command_line.main([*streams.of(run.spec["stream"]).arguments, "--out", str(out)])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["fingerprint"] == run.spec["stream"]["digest"]
    assert manifest["keep_leaks"] is True
    assert {task["metric"] for task in manifest["tasks"]} == {"prefix"}
    for wrong in ("size=many", "keep_leaks=5", "tasks=5"):
        with pytest.raises(SystemExit, match=wrong.partition("=")[0]):
            command_line.main(["order1", wrong, "--out", str(out)])


# ---------------------------------------------------------------------------- the real pack


@pytest.fixture
def real_tasks():
    """All 24 known tasks of the real pack."""
    folder = Path(os.environ.get("TREELORA_DATA") or "nowhere")
    if not (folder / "llm_cl_benchmark_500.tar.xz").exists():
        pytest.skip("TREELORA_DATA names no folder with the pack of 500")
    return functools.partial(streams.make, {"name": "text"} | mine(folder, *TASKS))


@pytest.mark.data
def test_the_real_pack(real_tasks, tmp_path, monkeypatch):
    every = real_tasks()
    known, folder = every.fingerprint(), Path(every.options.path)
    monkeypatch.setattr(tarfile, "open", None)  # what was read once is remembered
    assert real_tasks().fingerprint() == known
    for name in ("trace", "long15", "order4"):  # all of it is known without the data
        assert fingerprint(folder, name) == fingerprint(None, name)
    monkeypatch.undo()

    (tmp_path / "out").mkdir()
    manifest = every.prepare(tmp_path / "out")
    tasks = json.loads((tmp_path / "out/data.json").read_text(encoding="utf-8"))
    assert len(tasks) == 24
    for task in tasks:
        n_train, n_test = TASKS[task["name"]].n_items
        assert len(task["test"]) == n_test
        leaks = {"FOMC": 3, "Py150": 10, "NumGLUE-ds": 6, "Lima": 1}
        assert len(task["train"]) == n_train - leaks.get(task["name"], 0)
    found = defaultdict(dict)
    for defect in manifest["defects"]:
        found[defect["kind"]][defect["task"]] = defect["count"]
    originals = set(TASK_LISTS["order4"])
    assert set(found["eval is test"]) == originals | {"Lima"}
    counts = {"FOMC": 1, "Py150": 3, "NumGLUE-ds": 6, "Lima": 1}
    assert found["train prompt in test"] == counts
    assert found["train prompt in eval"]["NumGLUE-ds"] == 6
    assert found["train twice"]["NumGLUE-cm"] == 244
    assert found["train twice"]["Py150"] == 18 and found["train twice"]["FOMC"] == 4
    assert found["train contradicts itself"] == {"Py150": 2}
    assert found["test twice"] == {"Py150": 4}
    assert found["unknown label"] == {"MNLI": 2}
    assert set(found["short training prompts"]) == {"MeetingBank"}
    assert found["empty answer"] == {"Lima": 300}
    assert found["trailing space"]["20Minuten"] == 100  # all of the test set, and of the others


@pytest.mark.data
def test_the_real_prompts_are_what_the_rule_for_the_original_makes(real_tasks):
    """The pack's prompts begin with instruction and options, and end as `prompt` ends them."""
    every = real_tasks().found
    found = [every[name] for name in TASK_LISTS["order4"]]
    contents = dict(found[0].place.read([name for task in found for name in task.names]))
    for task in found:
        items, labels = task.read(contents)
        for item in items["train"] + items["test"]:
            head, line, body = item["prompt"].partition(f"\nOption: {', '.join(labels)} \n")
            assert task.name == "COPA" or line
            body = (head if task.name == "COPA" else body).removesuffix("\nAnswer:")
            made = prompt(head + line if line else "", body + "\n", task.name)
            assert made == item["prompt"]
