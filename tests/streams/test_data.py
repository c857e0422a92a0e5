"""From prepared streams to tensors."""

import numpy as np
import pytest
import torch

from baselines.common.text import pad_left
from benchmarks.backbones.tokenizer import Tokenizer
from benchmarks.common.errors import DataError
from benchmarks.common.files import write_json
from benchmarks.streams.common import tasks as data
from benchmarks.streams.common.pictures import write_npz
from benchmarks.streams.common.tasks import Samples, union, union_epochs

TOKENIZER = Tokenizer(lambda text: [int(word) for word in text.split()], None, 1, 2)


def test_sequences_are_padded_on_the_left_and_only_answers_are_asked():
    x, y = pad_left([([1, 5, 8, 2], 2), ([1, 8, 2], 2)])
    assert x[:, 0].tolist() == [[1, 5, 8, 2], [0, 1, 8, 2]]
    assert x[:, 1].tolist() == [[1, 1, 2, 2], [0, 1, 2, 2]]
    assert y.tolist() == [[-100, -100, 8, 2], [-100, -100, 8, 2]]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [([3, 3], (3, [1, 1])), ([2, 4], (2, [1, 2])), ([2, 3], (1, [2, 3]))],
)
def test_the_union_shows_every_sample_as_often_as_its_task_would(epochs, expected):
    assert union_epochs(epochs) == expected


def test_a_union_of_texts_keeps_their_alignment():
    short, long = pad_left([([1, 8, 2], 2)]), pad_left([([1, 5, 6, 9, 2], 2)])
    joined = union([Samples(*short), Samples(*long)], [2, 1])
    assert joined.x[:, 0].tolist() == [[0, 0, 1, 8, 2]] * 2 + [[1, 5, 6, 9, 2]]
    assert joined.y.tolist() == [[-100, -100, -100, 8, 2]] * 2 + [[-100, -100, -100, 9, 2]]


def test_grey_and_colour_images_become_three_channels_in_zero_to_one():
    grey = Samples(torch.full((2, 4, 4), 255, dtype=torch.uint8), torch.zeros(2))
    colour = Samples(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2))
    for samples, value in ((grey, 1.0), (colour, 0.0)):
        x, _ = samples.batch(torch.tensor([1, 0]))
        assert x.shape == (2, 3, 4, 4) and (x == value).all()
        assert samples[0][0].shape == (3, 4, 4) and samples[0][2] == 0


def test_a_batch_of_texts_has_no_column_of_padding():
    samples = Samples(*pad_left([([1, 5, 6, 8, 2], 2), ([1, 8, 2], 2), ([1, 5, 9, 2], 2)]))
    x, y = samples.batch(torch.tensor([1, 2]))
    assert x[:, 0].tolist() == [[0, 1, 8, 2], [1, 5, 9, 2]]
    assert y.tolist() == [[-100, -100, 8, 2], [-100, -100, 9, 2]]
    assert samples[1][0].shape == (2, 5)  # single samples can be stacked


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_prompt_that_gives_no_token_is_named(part, tmp_path, monkeypatch):
    """A model whose texts begin without a token has nothing to go on from."""
    monkeypatch.setattr(data, "RESOURCES", tmp_path)
    items = [{"prompt": "5 6", "answer": "7"}]
    task = {"name": "stories", "group": "", "metric": "exact", "train": items, "test": items}
    spec = {"name": "docs", "order": "fixed", "n_tasks": 1, "max_prompt_tokens": 9, "digest": "d"}
    folder = tmp_path / "streams/docs"
    write_json(folder / "manifest.json", {"fingerprint": "d", "modality": "language"})
    write_json(folder / "data.json", [task | {part: [*items, {"prompt": "", "answer": "7"}]}])
    tasks, _ = data.load_stream(spec, 0, TOKENIZER)
    x = tasks[0].train.x if part == "train" else tasks[0].test_x
    assert [[i for i in row if i] for row in x[:, 0].tolist()] == (
        [[1, 5, 6, 7, 2], [1, 7, 2]] if part == "train" else [[1, 5, 6], [1]]
    )
    bare = Tokenizer(TOKENIZER.encode, None, None, 2)
    with pytest.raises(DataError, match="item 2 of stories"):
        data.load_stream(spec, 0, bare)
    write_json(folder / "data.json", [task])
    assert data.load_stream(spec, 0, bare)[0][0].test_x[:, 0].tolist() == [[5, 6]]


def test_held_out_training_items_are_tested_and_not_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "RESOURCES", tmp_path)
    items = [{"prompt": f"5 {i}", "answer": str(6 + i % 2)} for i in range(6, 18)]
    task = {"name": "a", "group": "", "metric": "exact", "train": items, "test": items[:2]}
    spec = {"name": "docs", "order": "fixed", "n_tasks": 2, "max_prompt_tokens": 9, "digest": "d"}
    folder = tmp_path / "streams/docs"
    write_json(folder / "manifest.json", {"fingerprint": "d", "modality": "language"})
    write_json(folder / "data.json", [task, task | {"name": "b"}])
    whole, _ = data.load_stream(spec, 0, TOKENIZER)
    assert [list(own.items) for own in whole] == [[0, 1], [2, 3]]
    tasks, _ = data.load_stream(spec | {"holdout": 3, "train_per_task": 8}, 0, TOKENIZER)
    for own, places in zip(tasks, ([9, 10, 11], [21, 22, 23]), strict=True):
        assert [prompt for prompt, _ in own.examples] == [item["prompt"] for item in items[:8]]
        assert list(own.prompts) == [item["prompt"] for item in items[9:]]
        assert own.gold == [item["answer"] for item in items[9:]]
        assert list(own.items) == places and own.options == {"6", "7"}
    assert whole[0].options == {"6", "7"}
    leaks = [items[0], *items[:10], items[0]]  # of which the last one is held out
    write_json(folder / "data.json", [task | {"train": leaks}, task | {"name": "b"}])
    (own, _), _ = data.load_stream(spec | {"holdout": 1}, 0, TOKENIZER)
    assert [prompt for prompt, _ in own.examples] == [item["prompt"] for item in items[1:10]]
    free = [item | {"answer": str(i // 3)} for i, item in enumerate(items)]
    write_json(folder / "data.json", [task | {"train": free}] * 2)
    assert data.load_stream(spec, 0, TOKENIZER)[0][0].options == set()
    with pytest.raises(DataError, match="train_per_task asks for 8 items, but a has 7"):
        data.load_stream(spec | {"holdout": 5, "train_per_task": 8}, 0, TOKENIZER)
    with pytest.raises(
        DataError, match="a has no train items beside those held out: lower holdout"
    ):
        data.load_stream(spec | {"holdout": 12}, 0, TOKENIZER)


ARRAYS = {f"{part}_{kind}": np.zeros(3, np.uint8) for part in ("train", "test")
          for kind in ("images", "labels")}  # fmt: skip
DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "no zip file": lambda content: b"PK\3\4" + bytes(100),
    "text": lambda content: b"hello",
    "nothing": lambda content: b"",
    "a header that lies": lambda content: content.replace(b"(3,)", b"(9,)"),
    "an array too few": lambda content: content.replace(b"test_labels", b"text_labels"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_arrays_are_one_sentence(damage, tmp_path):
    file = tmp_path / "data.npz"
    write_npz(file, ARRAYS)
    assert data._arrays(tmp_path).keys() == ARRAYS.keys()
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(DataError, match=f"npz cannot be read .*: delete {tmp_path} and run again"):
        data._arrays(tmp_path)


def test_images_and_labels_that_do_not_belong_together_are_named(tmp_path):
    write_npz(tmp_path / "data.npz", ARRAYS | {"train_labels": np.zeros(2, np.uint8)})
    with pytest.raises(DataError, match="data.npz .*not one label for each image"):
        data._arrays(tmp_path)
    own = tmp_path / "train_images.npy"  # mapped from the disk where it has a file of its own
    np.save(own, np.zeros((3, 8), np.uint8))
    write_npz(tmp_path / "data.npz", {k: v for k, v in ARRAYS.items() if k != own.stem})
    assert isinstance(data._arrays(tmp_path)[own.stem], np.memmap)
    own.write_bytes(own.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"npy cannot be read .*: delete {tmp_path} and run again"):
        data._arrays(tmp_path)
