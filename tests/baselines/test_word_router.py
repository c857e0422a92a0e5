"""The router on word counts: by hand, whatever the process, on the real tasks."""

import os
import subprocess
import sys

import numpy as np
import pytest

from baselines.common.word_router import WordRouter

TRACE = "C-STANCE FOMC MeetingBank Py150 ScienceQA NumGLUE-cm NumGLUE-ds 20Minuten".split()
OLORA = (
    "MNLI CB WiC COPA QQP BoolQA RTE IMDB yelp amazon SST-2 dbpedia agnews MultiRC yahoo".split()
)


def test_nearest_mean_by_hand():
    """Words in bins of their own: the distances follow from counts."""
    router = WordRouter(2**20)
    router.add(["a a a b"])  # sqrt(3/4), sqrt(1/4)
    router.add(["b", "b c"])  # mean of (b: 1) and (b, c: sqrt(1/2))
    queries = ["a b", "b", "c", "A-B-A", "d"]

    def vector(**counts):
        total = sum(counts.values())
        return np.array([np.sqrt(counts.get(word, 0) / total) for word in "abcd"])

    means = [vector(a=3, b=1), (vector(b=1) + vector(b=1, c=1)) / 2]
    vectors = [vector(a=1, b=1), vector(b=1), vector(c=1), vector(a=2, b=1), vector(d=1)]
    expected = [np.argmin([np.linalg.norm(v - m) for m in means]) for v in vectors]
    found = router.route(queries)
    assert found.dtype == int and found.tolist() == expected == [0, 1, 1, 0, 1]


def test_tasks_that_share_no_word():
    router = WordRouter()
    for words in ("red green blue", "one two three", "文本态度对象"):
        router.add([words, words[::-1] + " " + words])
    assert router.route(["blue, (red)!", "TWO", "对", "three one"]).tolist() == [0, 1, 2, 1]


def test_equal_tasks_give_the_earlier_one_and_no_word_gives_a_task():
    router = WordRouter()
    router.add(["same words"])
    router.add(["same words"])
    assert router.route(["same", "", "?!"]).tolist() == [0, 0, 0]
    assert router.route([]).shape == (0,)


def test_a_later_task_leaves_earlier_means_alone():
    router = WordRouter()
    router.add(["one two"])
    before = router.means[0].copy()
    router.add(["three"])
    assert (router.means[0] == before).all() and len(router.means) == 2


def test_the_process_decides_nothing():
    code = (
        "from baselines.common.word_router import WordRouter\nr = WordRouter(16)\n"
        "r.add(['one two three four', 'five']); r.add(['six seven eight'])\n"
        "print([m.tolist() for m in r.means], r.route(['nine ten', 'two']).tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_misuse():
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        WordRouter(0)
    with pytest.raises(ValueError, match="at least one text"):
        WordRouter().add([])
    with pytest.raises(ValueError, match="no task to choose from"):
        WordRouter().route(["text"])


@pytest.mark.data
@pytest.mark.parametrize(("tasks", "least"), [(TRACE, 0.99), (OLORA, 0.94)], ids=["trace", "olora"])
def test_the_tasks_of_real_prompts(real_items, tasks, least):
    router = WordRouter()
    for task in tasks:
        router.add([item["prompt"] for item in real_items(task, "train")])
    found = {
        task: (router.route([item["prompt"] for item in real_items(task, "test")]) == t).mean()
        for t, task in enumerate(tasks)
    }
    print(np.mean(list(found.values())), found)
    assert np.mean(list(found.values())) >= least
