"""From prepared streams to tensors."""

import pytest
import torch

from benchmarks.data import Samples, union, union_epochs
from benchmarks.text import Tokenizer, encode, pad_left

TOKENIZER = Tokenizer(lambda text: [int(word) for word in text.split()], None, 0, 1, 2)


def test_text_becomes_begin_prompt_answer_end():
    assert encode(TOKENIZER, "5 6 7", "8 9", 10) == ([1, 5, 6, 7, 8, 9, 2], 3)
    assert encode(TOKENIZER, "5 6 7", None, 10) == ([1, 5, 6, 7], 0)


def test_a_long_prompt_loses_its_middle():
    ids, _ = encode(TOKENIZER, " ".join(map(str, range(10, 30))), None, 8)
    assert ids == [1, 10, 11, 12, 13, 14, 15, 28, 29]


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
