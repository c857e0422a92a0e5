"""Causal language models as methods see them: logits, answers, what ends them, memory."""

import dataclasses

import pytest
import torch

from benchmarks import backbones
from benchmarks.backbones import language
from benchmarks.backbones.language import LanguageModel
from benchmarks.common.errors import DataError
from benchmarks.runs import evaluate
from benchmarks.streams.common.tasks import TaskData
from tests import tiny
from tests.outside import KINDS, change, config, network, save

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_answers_are_the_networks_own(kind):
    own = network(kind)
    model = LanguageModel(own)
    x = tiny.samples("language", 0).x[:4]
    with torch.no_grad():
        for row in x:
            start = int((row[1] == 0).sum())
            ids = row[0, start:]
            whole = own(input_ids=ids[None]).logits[0]
            torch.testing.assert_close(model(row[None])[0], whole[-3:-1], atol=1e-4, rtol=1e-4)
        prompts = x[:, :, :-2]
        together = model.generate(prompts, 4)
        for row, prompt in zip(together.tolist(), prompts, strict=True):
            start = int((prompt[1] == 0).sum())
            alone = own.generate(
                input_ids=prompt[None, 0, start:], max_new_tokens=4, do_sample=False
            )[0, prompt.shape[1] - start :].tolist()
            assert row[: len(alone)] == alone


def test_only_the_logits_that_predict_an_answer_are_computed():
    model = tiny.network("language").eval()
    x = tiny.samples("language", 0).x[:3]
    every = model.network.lm_head(model.hidden(model.embed(x[:, 0]), x[:, 1]))
    torch.testing.assert_close(model(x), every[:, -3:-1])  # answers are two tokens long
    x[1:, 1, -2] = 1  # a shorter answer beside a longer one
    torch.testing.assert_close(model(x), every[:, -3:-1])
    torch.testing.assert_close(model(x[1:]), every[1:, -2:-1])


@pytest.mark.parametrize(("name", "micro"), [("seqlora", None), ("l2p", 2)])
def test_checkpointing_changes_no_step(name, micro):
    both = []
    for checkpointing in (False, True):
        method = tiny.method(name, "language", shared={"micro_batch_size": micro})
        language = next(m for m in method.model.modules() if isinstance(m, LanguageModel))
        if checkpointing:
            language.save_memory()
        tiny.learn(method, tiny.tasks("language")[0])
        both.append(tiny.outputs(method, "language"))
    torch.testing.assert_close(*both, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_adapted_is_refused():
    capped = config("gemma2").to_dict()
    with pytest.raises(DataError, match="gemma2.*final_logit_softcapping .30.0."):
        language.build(capped)
    for kind in ("strange", "vit", None, ["llama"]):
        with pytest.raises(DataError, match=f"of the type {kind!r}".replace("[", r"\[")):
            language.build({"model_type": kind})


def test_answers_do_not_depend_on_how_many_are_tested_at_a_time():
    method = tiny.method("hidelora", "language")
    for task in tiny.tasks("language"):
        tiny.learn(method, task)
    method.model.eval()
    prompts = torch.cat([tiny.samples("language", t).x[:, :, :-2] for t in (2, 0, 1)])
    both = []
    for size in (128, 5):
        inferred = []
        asked = (method.model, prompts, 3, "cpu", tiny.TOKENIZER, inferred, size)
        both.append((evaluate.generate(*asked), torch.cat(inferred).tolist()))
    assert both[0] == both[1]
    assert len(set(both[0][0])) > 1 and len(set(both[0][1])) > 1


PENALTIES = {
    "repetition_penalty": 0.01,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(100, 200)),
    "begin_suppress_tokens": list(range(200, 300)),
    "forced_eos_token_id": 5,
    "min_length": 12,
    "max_length": 3,
    "num_beams": 3,
    "num_return_sequences": 2,
    "do_sample": True,
    "temperature": 3.0,
    "top_k": 7,
    "bad_words_ids": [[5]],
    "sequence_bias": [[[9], -10.0]],
    "guidance_scale": 2.0,
    "exponential_decay_length_penalty": [1, 2.0],
    "cache_implementation": "static",
    "stop_strings": ["a"],
}


def greedily(own, ids, ends, n):
    """The likeliest continuation, token by token and without any cache; its end left out."""
    new = []
    while len(new) < n:
        likeliest = int(own(torch.tensor([ids + new])).logits[0, -1].argmax())
        if likeliest in ends:
            break
        new.append(likeliest)
    return new


@pytest.mark.parametrize("where", ["generation_config.json", "config.json", "memory"])
def test_answers_are_those_of_the_network_whatever_the_checkpoint_says(where, data):
    """Of any number together, and however long the padding is."""
    folder = save(data)
    own = network()
    with torch.no_grad():  # some answers end early, by either end
        own.get_output_embeddings().weight[2] *= 3
        own.get_output_embeddings().weight[7] *= 3
    own.save_pretrained(folder)
    for name in {"generation_config.json", where} - {"memory"}:
        change(folder / name, eos_token_id=[2, 7], **(PENALTIES if name == where else {}))
    manifest, backbone = {"weights": str(folder)}, backbones.find("hf-tiny-llama")
    model, tokenizer = backbone.load(manifest), backbone.tokenizer(manifest)
    if where == "memory":
        own.generation_config.update(**PENALTIES)
        model = LanguageModel(own, [2, 7])
    generator = torch.Generator().manual_seed(1)
    prompts = torch.zeros(10, 2, 24, dtype=torch.long)
    for i in range(10):
        prompts[i, 0, 2 * i :] = torch.randint(8, 300, (24 - 2 * i,), generator=generator)
        prompts[i, 1, 2 * i :] = 1
    tokenizer.decode = list
    with torch.no_grad():
        expected = [greedily(own, x[0, 2 * i :].tolist(), (2, 7), 8) for i, x in enumerate(prompts)]
    assert 1 < len({len(answer) for answer in expected}) and max(map(len, expected)) == 8
    for size in (1, 10):
        assert evaluate.generate(model, prompts, 8, "cpu", tokenizer, batch_size=size) == expected
    padded = torch.nn.functional.pad(prompts, (30, 0))
    new = model.generate(padded, 8).tolist()
    assert [[i for i in row if i != 2] for row in new] == expected
    model.decoding = "released"
    drawn = [
        evaluate.generate(model, x, 8, "cpu", tokenizer, batch_size=size)
        for x, size in ((prompts, 1), (prompts, 10), (padded, 3))
    ]
    assert drawn[1:] == drawn[:-1] and drawn[0] != expected


def test_released_decoding_draws_the_same_answers_and_leaves_other_draws_alone():
    model = LanguageModel(network())
    prompts = tiny.samples("language", 0).x[:, :, :-2]
    greedy = model.generate(prompts, 6)
    model.decoding = "released"
    model.network.get_output_embeddings().weight.data.mul_(0.01)  # so that the draw decides
    torch.manual_seed(5)
    first = model.generate(prompts, 6)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(model.generate(prompts, 6), first)
    assert not torch.equal(first, greedy)


def test_released_answers_are_drawn_at_temperature_a_tenth_from_the_likeliest_fifty():
    draw = language._Draw()
    logits = torch.linspace(0, 0.5, 60)[torch.randperm(60)]
    drawn = torch.stack([draw(None, logits[None])[0].argmax() for _ in range(4000)])
    found = torch.bincount(drawn, minlength=60) / 4000
    expected = (logits / 0.1).masked_fill(logits < logits.topk(50).values[-1], -torch.inf)
    torch.testing.assert_close(found, expected.softmax(0), atol=0.02, rtol=0)
    assert (found[logits < logits.topk(50).values[-1]] == 0).all()


def test_legal_answers_are_those_that_the_metric_takes_for_an_option():
    nothing = torch.zeros(2, 2, 3)
    examples = [("asked", answer) for answer in "AB" * 4]
    given = {"examples": examples, "prompts": ["asked"] * 4, "items": range(4)}
    for metric, share in (("exact", 0.5), ("first_line", 0.75)):
        task = TaskData("a", "", metric, None, nothing, list("AABB"), **given)
        outputs = ["B", "A\nsince", " A", "C"]
        assert evaluate.legal_share(outputs, task) == share
    free = TaskData("a", "", "exact", None, nothing, ["A"], range(1), examples=examples[:2])
    assert evaluate.legal_share(["A"], free) is None


@pytest.mark.parametrize("name", ["seqlora", "hidelora", "l2p"])
def test_an_answer_ends_before_the_stop_of_its_task(name):
    method = tiny.method(name, "language")
    tiny.learn(method, tiny.tasks("language")[0])
    method.ready_to_test()
    language = next(m for m in method.model.modules() if isinstance(m, LanguageModel))
    language.ends = [39]  # so that answers are long
    samples = tiny.samples("language", 0)
    prompts, items = samples.x[:, :, :-2], range(12)
    texts = {"gold": [""] * 12, "prompts": [""] * 12}
    task = TaskData("x", "", "exact", samples, prompts, items=items, max_new_tokens=8, **texts)

    def answers(**changes):
        asked = dataclasses.replace(task, **changes)
        return evaluate.answer(method.model, asked, 0, "cpu", tiny.TOKENIZER).outputs

    whole = answers()
    stop = max(whole, key=len).split()[2]
    seen, decode = [], tiny.TOKENIZER.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny.TOKENIZER, "decode", lambda ids: seen.append(len(ids)) or decode(ids))
        cut = answers(stop=stop)
    assert cut == [text.partition(stop)[0] for text in whole] != whole
    assert max(seen[: -len(whole)]) <= len(stop) + 1
    assert answers() == whole


def test_nothing_is_generated_behind_the_stop_of_all_rows():
    model = tiny.network("language")
    steps = []
    model.ended = lambda new: steps.append(new.shape[1]) or new[:, 0] >= 0
    assert model.generate(tiny.samples("language", 0).x[:3, :, :-2], 6).shape == (3, 1)
    assert steps == [1]
