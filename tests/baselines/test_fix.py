"""FIX: which items are shown, where they stand in a prompt, and of which task they are."""

import dataclasses
import random
from collections import Counter

import pytest
import torch

from baselines.common.task import Task
from baselines.fix import FIX, HEADER, choose, ids_of, insert, instruction_of
from benchmarks.backbones.tokenizer import Tokenizer
from tests import tiny
from tests.vocabularies import byte_level

# One character for each id, so that any text comes back as it was.
CHARACTERS = Tokenizer(
    lambda text: [ord(c) for c in text], lambda ids: "".join(map(chr, ids)), 1, 2
)
TASKS = {
    "stance": (
        "Say whether the text is for or against.\n",
        [(f"Text: no {i}, {'xyz'[i % 3] * 5}\nStance:", "ABC"[i % 3]) for i in range(30)],
    ),
    "sums": ("Add the numbers.\n", [(f"{i} and {2 * i}\nSum:", str(3 * i)) for i in range(20)]),
}
REASONS = (
    "Choose and say why.\n\n",
    [(f"Question:\nwhy {i}?\n\nAnswer:", f"{'AB'[i % 2]}\nfor it is {i}") for i in range(9)],
)
CODE = ("", [(f"import m{i} <EOL> def f", f" ( x{i} ) :") for i in range(9)])


MODEL = dataclasses.replace(
    tiny.LANGUAGE,
    architecture=tiny.LANGUAGE.architecture | {"vocab_size": 128, "max_position_embeddings": 4096},
)


def stream():
    made = []
    for index, (name, (instruction, items)) in enumerate(TASKS.items()):
        examples = [(instruction + prompt, answer) for prompt, answer in items]
        made.append(Task(index, name, tiny.samples("language", index), 1, examples))
    return made


def said(method, output, task):
    """What FIX makes of an output of its language model, and how many tokens it lets be said."""
    ids = [ord(c) for c in output]
    steps = []

    def generate(x, max_new_tokens, ended):
        for n in range(1, len(ids) + 1):
            steps.append(n)
            new = torch.tensor([ids[:n]])
            if ended(new).item():
                break
        return new

    instruction, [(prompt, _), *_] = task
    method.model.backbone.generate = generate
    (answer,) = method.model.generate(asked(instruction + prompt), 99).tolist()
    return "".join(map(chr, answer)), len(steps)


def learnt(n_tasks=2, seed=0, **config):
    backbone = MODEL.build()
    setting = tiny.setting("language", tokenizer=CHARACTERS, seed=seed)
    method = FIX(backbone, FIX.Config(**config), setting)
    for task in stream()[:n_tasks]:
        tiny.learn(method, task)
    return method


def asked(*texts, answer=""):
    """x (B, 2, L) of prompts that begin with the begin token."""
    length = 1 + max(len(text + answer) for text in texts)
    x = torch.zeros(len(texts), 2, length, dtype=torch.long)
    for row, text in zip(x, texts, strict=True):
        ids = [1, *map(ord, text + answer)]
        row[0, -len(ids) :] = torch.tensor(ids)
        row[1, -len(ids) :] = 1
        if answer:
            row[1, -len(answer) :] = 2
    return x


def texts(x):
    return ["".join(map(chr, ids[mask > 0].tolist())) for ids, mask in x]


QUERY = TASKS["stance"][0] + "Text: something new\nStance:"


def test_the_instruction_is_the_lines_all_prompts_share():
    assert instruction_of(["Do it.\nText: one", "Do it.\nText: two"]) == "Do it.\n"
    assert instruction_of(["Do it.\n\nText:\none", "Do it.\n\nText:\nten"]) == "Do it.\n\n"
    assert instruction_of(["做\n文本：\n一", "做\n文本：\n二"]) == "做\n"
    assert instruction_of(["Text:\none", "Text:\nten"]) == ""
    assert instruction_of(["import os", "import re"]) == ""


def test_examples_stand_between_the_instruction_and_the_rest_of_the_prompt():
    method = learnt()
    (text,) = texts(method.model.extend(asked(QUERY)))
    instruction, items = TASKS["stance"]
    begin = "\x01" + instruction + HEADER
    assert text.startswith(begin) and text.endswith("Text: something new\nStance:")
    assert text.count(instruction) == 1 and text.count("something new") == 1
    shown = text[len(begin) : -len("Text: something new\nStance:")].split("\n\n")
    assert shown.pop() == ""
    assert len(shown) == 6 and set(shown) <= {prompt + answer for prompt, answer in items}
    assert Counter(item[-1] for item in shown) == {"A": 2, "B": 2, "C": 2}


def test_examples_are_of_the_inferred_task():
    method = learnt()
    other = TASKS["sums"][0] + "4 and 5\nSum:"
    method.model.eval().generate(asked(other, QUERY, other), 1)
    assert method.model.inferred.tolist() == [1, 0, 1]
    first, second, _ = texts(method.model.extend(asked(other, QUERY, other)))
    assert "Add the numbers" in first and "Stance" not in first
    assert "Stance" in second and "Sum" not in second


def test_the_draw_depends_on_the_seed_alone():
    shown = [texts(learnt(seed=seed).model.extend(asked(QUERY))) for seed in (0, 0, 1)]
    assert shown[0] == shown[1] != shown[2]


def test_logits_are_those_of_the_answer_after_the_longer_prompt():
    method = learnt(1)
    with torch.no_grad():
        logits = method.model(asked(QUERY, answer="AB"))
        (text,) = texts(method.model.extend(asked(QUERY)))
        ids = torch.tensor([[*map(ord, text + "AB")]])
        expected = method.model.backbone.network(ids).logits[:, -3:-1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_before_the_first_task_a_prompt_stands_alone():
    method = learnt(0)
    assert method.model.inferred is None
    assert torch.equal(method.model.extend(asked(QUERY)), asked(QUERY))
    assert method.model.inferred.tolist() == [0]


def test_a_prompt_without_its_instruction_gets_it_back():
    method = learnt(1)
    (text,) = texts(method.model.extend(asked("thing new\nStance:")))
    assert text.startswith("\x01" + TASKS["stance"][0] + HEADER)
    assert text.endswith("\n\nthing new\nStance:")


def test_an_instruction_is_found_behind_other_tokens_whatever_its_first_one_is():
    # 9 in front of a word makes it another id, as a space does
    assert insert([1, 8, 90, 11, 12, 50, 51], [10, 11, 12], [7, 7], 1) == [
        *[1, 8, 90, 11, 12],
        *[7, 7],
        *[50, 51],
    ]
    assert insert([1, 50, 51], [10, 11, 12], [7], 1) == [1, 10, 11, 12, 7, 50, 51]
    assert insert([50, 51], [], [7], 0) == [7, 50, 51]


def test_an_instruction_is_found_whose_white_space_is_split_by_what_follows():
    """As GPT-2's tokenizer does: " \\n" alone is one token, and before a word two."""
    instruction, prompt = "Name it. \n", "Name it. \nword"
    own = Tokenizer.of(byte_level([instruction] * 9))
    whole, alone = own.encode(prompt), own.encode(instruction)
    assert whole[: len(alone)] != alone
    ids = ids_of(instruction, prompt, own)
    assert own.decode(insert(whole, ids, own.encode("shots"), 0)) == "Name it. \nshotsword"
    assert ids_of("Name i", prompt, own) == own.encode("Name i")  # which ends inside a token


def test_examples_that_do_not_fit_before_a_long_prompt_are_left_out():
    method = learnt(1)
    model = method.model
    (whole,) = texts(model.extend(asked(QUERY)))
    model.limit = len(whole) - 1
    (text,) = texts(model.extend(asked(QUERY)))
    lengths = [len(shot) for shot in model.shots[0]]
    assert len(text) == len(whole) - lengths[-1]
    model.limit = 10
    assert texts(model.extend(asked(QUERY))) == ["\x01" + QUERY]


def test_items_within_their_share_come_first_then_the_shortest_that_fit():
    draw = random.Random(0)
    sizes, answers = [50, 9, 30, 10, 8, 25], list("abcdef")
    chosen = choose(sizes, answers, 4, 40, draw)  # a share is 10
    assert set(chosen[:3]) == {1, 3, 4}
    assert len(chosen) == 3  # 27 are taken, and 25 more do not fit
    chosen = choose(sizes, answers, 4, 52, random.Random(0))
    assert set(chosen[:3]) == {1, 3, 4} and chosen[3:] == [5]
    assert choose([60, 70], ["a", "b"], 2, 50, draw) == []


def test_labels_are_balanced_and_no_item_comes_twice():
    answers = ["rare" if i == 7 else "often" for i in range(40)]
    for seed in range(10):
        chosen = choose([5] * 40, answers, 6, 100, random.Random(seed))
        assert len(set(chosen)) == 6 and 7 in chosen


@pytest.mark.parametrize(
    ("task", "output", "expected", "n_tokens"),
    [
        # answers of one token
        (TASKS["stance"], "B\n\nText: no 3", "B", 1),
        (TASKS["stance"], "After all", "A", 1),
        (TASKS["stance"], " \n B because", " \n B", 4),
        # of one line
        (TASKS["sums"], "12\n\n4 and 8\nSum:12", "12", 3),
        (TASKS["sums"], "\n12\nand", "\n12", 4),
        (TASKS["sums"], "12 <EOL> 13", "12 ", 8),
        (TASKS["sums"], "12 and 13", "12 and 13", 9),
        # of two lines
        (REASONS, "A\nfor it is so\n\nQuestion:\nwhy", "A\nfor it is so", 16),
        (REASONS, "A\nQuestion:\nwhy", "A\n", 11),
        (REASONS, "A\nno\nQuestion", "A\nno\nQuestion", 13),
        (CODE, " ( y ) : <EOL> return y", " ( y ) : ", 14),
        # Where an answer has a blank line, that ends none.
        (
            (REASONS[0], [*REASONS[1], ("Question:\nwhat?\n\nAnswer:", "A\n\nor B")]),
            "A\n\nor Question:\nwhy",
            "A\n\nor ",
            15,
        ),
    ],
)
def test_an_output_ends_before_the_next_example(task, output, expected, n_tokens):
    method = learnt(0)
    instruction, items = task
    examples = [(instruction + prompt, answer) for prompt, answer in items]
    tiny.learn(method, Task(0, "it", tiny.samples("language", 0), 1, examples))
    assert said(method, output, task) == (expected, n_tokens)


def test_each_row_ends_as_its_own_task_does_and_state_keeps_it():
    method, fresh = learnt(), learnt(0)
    fresh.load_state_dict(method.state_dict())
    prompts = [instruction + items[0][0] for instruction, items in TASKS.values()]
    for restored in (method, fresh):
        restored.model.backbone.generate = lambda *_: torch.tensor([[*map(ord, "12 \nx")]] * 2)
        new = restored.model.generate(asked(*prompts), 6)
        assert new.tolist() == [[ord("1"), 2, 2], [*map(ord, "12 ")]]  # 2 is the end


def test_a_token_that_goes_on_beyond_the_cut_leaves_what_is_before_it():
    method = learnt()
    method.model.tokenizer = Tokenizer(
        CHARACTERS.encode,
        lambda ids: "".join(".\n\n" if i == 500 else chr(i) for i in ids),
        1,
        2,
    )
    assert method.model.answer([ord("7"), 500, ord("x")], 1) == ([ord("7"), ord(".")], True)


def test_generation_stops_once_all_rows_have_ended():
    method = learnt(0)
    x, calls = asked(QUERY, QUERY[5:]), []
    assert method.model.backbone.generate(x, 5).shape[1] == 5

    def ended(new):
        calls.append(new.shape[1])
        return torch.tensor([True, len(calls) > 2])

    assert method.model.backbone.generate(x, 5, ended).shape[1] == 3
    assert calls == [1, 2, 3]


def test_repeated_prompts_are_shown_once():
    method = learnt(0)
    examples = [("Text: same", "A")] * 9 + [("Text: other", "B")]
    tiny.learn(method, Task(0, "repeats", tiny.samples("language", 0), 1, examples))
    assert sorted(method.diagnostics()["shot_tokens"][0]) == [13, 14]


def test_a_task_without_texts_is_refused():
    with pytest.raises(ValueError, match="bare.* prepare its stream anew"):
        learnt(0).learn(Task(0, "bare", tiny.samples("language", 0), 1))
