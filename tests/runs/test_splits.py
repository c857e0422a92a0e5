"""Which classes and tasks a run learns when: base-plus-increment splits, and orders."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.runs.plan import load_plan
from benchmarks.streams import glyphs
from benchmarks.streams.common.tasks import load_stream
from tests.own_suite import own_suite
from tests.small_runs import make

SPLIT = {"n_tasks": 3, "first_task_classes": 12}  # of the 20 classes of the miniature


def learnt(seed=0, **options):
    """The original classes of each task, in the order of the labels that they are learnt under."""
    spec = {"name": "glyphs", "digest": glyphs.DIGEST, **options}
    tasks, task_of_class = load_stream(spec, seed)
    first, classes = 0, []
    for t, task in enumerate(tasks):
        own = (task_of_class == t).sum().item()
        for x, y in ((task.train.x, task.train.y), (task.test_x, task.gold)):
            pairs = sorted(set(zip(y.tolist(), (x[:, 0, 0] // 12).tolist(), strict=True)))
            assert [label for label, _ in pairs] == list(range(first, first + own))
        classes.append([original for _, original in pairs])
        first += own
    return classes


def test_the_first_task_of_a_split_may_have_more_classes_than_the_others(project):
    small, large = learnt(n_tasks=5, first_task_classes=4), learnt(**SPLIT)
    assert [len(classes) for classes in small] == [4] * 5
    assert [len(classes) for classes in large] == [12, 4, 4]
    assert sum(small, []) == sum(large, [])  # the order is another matter
    assert sorted(sum(large, [])) == list(range(20))


def test_an_order_is_drawn_from_the_run_or_from_a_seed_of_its_own_or_written_down(project):
    orders = {
        order: [sum(learnt(seed, order=order, **SPLIT), []) for seed in range(2)]
        for order in ("seed", "fixed", 1993)
    }
    assert orders["seed"][0] != orders["seed"][1]
    assert orders["fixed"] == [list(range(20))] * 2
    assert orders[1993] == [np.random.RandomState(1993).permutation(20).tolist()] * 2
    listed = [7, 2, 19, 0]
    assert learnt(order=listed, n_tasks=2, first_task_classes=3) == [[7, 2, 19], [0]]


def test_tasks_of_a_stream_s_own_are_listed_by_name_and_may_differ_in_size(project):
    file = Path("resources/streams/glyphs/manifest.json")
    manifest = json.loads(file.read_text())
    tasks = manifest["tasks"][:8]
    tasks[1]["classes"] = list("abcdef")
    file.write_text(json.dumps(manifest | {"tasks": tasks}))
    order = ["script2", "script1", "script0"]
    assert learnt(order=order, n_tasks=3) == [[8, 9], [2, 3, 4, 5, 6, 7], [0, 1]]
    with pytest.raises(DataError, match="glyphs has 8 tasks, not 9"):
        learnt(n_tasks=9)
    with pytest.raises(DataError, match="item 2 of order is 'skript1'.*'script1'"):
        learnt(order=["script2", "skript1"], n_tasks=2)


def test_held_out_training_images_are_tested_and_not_learnt(project):
    spec = {"name": "glyphs", "digest": glyphs.DIGEST, "n_tasks": 10}
    whole, _ = load_stream(spec, 0)
    held_out, _ = load_stream(spec | {"holdout": 1, "train_per_class": 2}, 0)
    for every, task in zip(whole, held_out, strict=True):
        images = every.train.x.flatten(1).tolist()
        learnt, tested = (x.flatten(1).tolist() for x in (task.train.x, task.test_x))
        assert (len(images), len(learnt), len(tested)) == (8, 4, 2)
        assert all(image in images for image in learnt + tested)
        assert not any(image in learnt for image in tested)
        assert sorted(set(task.train.y.tolist())) == sorted(task.gold.tolist())
    with pytest.raises(DataError, match="train_per_class asks for 4 items, but class .* has 3"):
        load_stream(spec | {"holdout": 1, "train_per_class": 4}, 0)


def test_a_run_learns_tasks_of_different_sizes(project):
    [run] = load_plan(own_suite(project, {"name": "glyphs", **SPLIT}, mask="seen")).runs
    record = make(run)
    assert record["status"] == "done", record["error"]
    assert [task["n_train"] for task in record["tasks"]] == [48, 16, 16]
    assert [task["n_test"] for task in record["tasks"]] == [24, 8, 8]
    assert record["spec"]["stream"]["first_task_classes"] == 12
    assert [len(row) for row in record["R"]] == [3] * 3


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"name": "cifar100"}, [10] * 10),
        ({"name": "cifar100", "n_tasks": 6, "first_task_classes": 50}, [50] + [10] * 5),
        ({"name": "cifar100", "n_tasks": 2, "order": ["bear", "bed", "bee", "beetle"]}, [2, 2]),
        ({"name": "cub200", "n_tasks": 11, "first_task_classes": 100}, [100] + [10] * 10),
        ({"name": "glyphs", "order": ["greek", "arabic"]}, [1, 1]),
        ({"name": "trace", "order": ["Py150", "FOMC", "C-STANCE"]}, [1, 1, 1]),
        ({"name": "cifar100", "first_task_classes": 50}, "first_task_classes .* 50 for 9"),
        ({"name": "cifar100", "n_tasks": 2, "first_task_classes": 100}, "leave 0 for 1"),
        ({"name": "cifar100", "n_tasks": 1, "first_task_classes": 100}, "leave 0 for 0"),
        ({"name": "cifar100", "n_tasks": 2, "order": ["bear", "bed", "bee"]}, "its 3 classes"),
        ({"name": "cifar100", "order": ["bear", "be"]}, "item 2 of order is 'be'.*'bee'"),
        ({"name": "cifar100", "order": ["bear", "bear"]}, "'bear' twice"),
        (
            {"name": "cifar100", "holdout": 5, "test_per_class": 6},
            "holdout, 5, .*test_per_class, 6",
        ),
        ({"name": "trace", "holdout": 5, "test_per_task": 6}, "holdout, 5, .*test_per_task, 6"),
        ({"name": "cub200", "order": [0, 200]}, "item 2 of order is 200.* the last is 199"),
        ({"name": "trace", "order": ["FOMC"], "n_tasks": 2}, "n_tasks .* at most 1"),
        ({"name": "trace", "first_task_classes": 2}, "'first_task_classes' is no setting here"),
        ({"name": "glyphs", "order": ["greek", 1]}, "order must be .*'greek', 1"),
        ({"name": "glyphs", "order": []}, "order must be"),
        ({"name": "glyphs", "order": -1}, "order must be"),
    ],
    ids=str,
)
def test_a_split_is_known_or_refused_before_anything_is_prepared(options, sizes):
    def split():
        return streams.make(options).task_sizes()

    if isinstance(sizes, list):
        assert split() == sizes
    else:
        with pytest.raises(DataError, match=sizes):
            split()
