"""DualPrompt on text: prefixes in attention by hand, caches, padding, matching by keys."""

import dataclasses

import pytest
import torch

from baselines.dualprompt_language import DualPromptLanguage, Prefixes, random_prefix
from tests import tiny
from tests.references.common import read


def method(shared=None, **config):
    config = DualPromptLanguage.Config(**(DualPromptLanguage.small | config))
    return DualPromptLanguage(
        tiny.network("language"), config, tiny.setting("language", **shared or {})
    )


def learnt(n_tasks, **config):
    made = method({"learning_rate": 0.1}, **config)
    for task in tiny.tasks("language", n_tasks):
        tiny.learn(made, task)
    return made


def prefixed(batch, lengths=(3, 5)):
    """A tiny network with random prefixes of different length in its two blocks, and these."""
    network = tiny.network("language")
    prefixes = Prefixes(network)
    torch.manual_seed(3)
    layers = {
        i: torch.randn(2, 1, 2, n, 8).expand(2, batch, 2, n, 8) for i, n in enumerate(lengths)
    }
    prefixes.use(layers)
    return network, prefixes, layers


def prompts():
    return tiny.samples("language", 0).x[:4, :, :-2]


def by_hand(network, layers, ids):
    """Logits (L, V) of one unpadded text, the prefixed attention written out."""
    prefixes = {i: layer[:, 0] for i, layer in layers.items()}
    return network.network.lm_head(read(network, network.embed(ids), prefixes=prefixes))


def test_without_prefixes_logits_and_answers_are_the_models_own():
    network, prefixes, _ = prefixed(4)
    other = network(tiny.samples("language", 0).x[:4])
    prefixes.use({})
    plain = tiny.network("language")
    x = tiny.samples("language", 0).x[:4]
    assert torch.equal(network(x), plain(x)) and not torch.equal(other, plain(x))
    assert torch.equal(network.generate(prompts(), 5), plain.generate(prompts(), 5))


def test_answers_in_a_batch_equal_those_alone_and_those_without_a_cache():
    network, prefixes, layers = prefixed(4)
    together = network.generate(prompts(), 6).tolist()
    prefixes.use({i: layer[:, :1] for i, layer in layers.items()})
    for answer, (ids, mask) in zip(together, prompts(), strict=True):
        text = ids[mask > 0]
        alone = network.generate(torch.stack([text, torch.ones_like(text)])[None], 6)[0].tolist()
        assert answer[: len(alone)] == alone
        for token in alone:
            assert by_hand(network, layers, text)[-1].argmax() == token
            text = torch.cat([text, torch.tensor([token])])


def test_a_prefix_starts_as_the_keys_and_values_of_tokens_in_front():
    """Without rotation the first block cannot tell a prefix from tokens that stand before."""
    network = tiny.network("language")
    torch.manual_seed(7)
    prefix = random_prefix(network, range(1), 3)
    torch.manual_seed(7)
    ids = torch.randint(network.vocabulary, (1, 3))
    block = network.network.model.layers[0]
    x = block.input_layernorm(network.embed(ids))
    values = block.self_attn.v_proj(x)[0].unflatten(1, (2, 8)).transpose(0, 1)
    torch.testing.assert_close(prefix[1, 0], values)
    keys = block.self_attn.k_proj(x)[0].unflatten(1, (2, 8)).transpose(0, 1)
    torch.testing.assert_close(prefix[0, 0, :, 0], keys[:, 0])  # position 0 is not rotated
    torch.testing.assert_close(prefix[0, 0].norm(dim=2), keys.norm(dim=2))


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma"])
def test_other_architectures_take_prefixes_and_ignore_padding(kind):
    shape = tiny.LANGUAGE.architecture | {"model_type": kind, "head_dim": 8}
    torch.manual_seed(0)
    network = dataclasses.replace(tiny.LANGUAGE, architecture=shape).build().eval()
    x = tiny.samples("language", 0).x[:4]
    plain = network(x)
    prefixes = Prefixes(network)
    assert torch.equal(network(x), plain)
    layer = random_prefix(network, range(1, 2), 3)[:, 0]
    prefixes.use({1: layer[:, None].expand(-1, 4, -1, -1, -1)})
    together = network(x)
    assert not torch.allclose(together, plain)
    prefixes.use({1: layer[:, None]})
    for row, own in enumerate(x):
        alone = network(own[None, :, int((own[1] == 0).sum()) :])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_generation_uses_the_prefixes_of_the_inferred_task():
    made = learnt(2, pull=0.0)
    model = made.model.eval()
    with torch.no_grad():
        for i, prompt in enumerate(model.prompts):
            prompt.normal_(std=2 * (i + 1))
    x = tiny.samples("language", 0).x[:, :, :-2]
    answers = model.generate(x, 4)
    inferred = model.inferred.clone()
    network = tiny.network("language")
    prefixes = Prefixes(network)
    for row, task in enumerate(inferred.tolist()):
        prefixes.use({0: model.shared[:, 0, None], 1: model.prompts[task][:, 0, None]})
        alone = network.generate(x[row : row + 1], 4)[0].tolist()
        assert answers[row, : len(alone)].tolist() == alone


def test_a_key_is_pulled_to_its_queries():
    def mismatch(made):
        made.model.train()
        made.model(tiny.samples("language", 0).x)
        return made.model.mismatch.mean().item()

    made = method({"learning_rate": 0.1})
    made.begin(tiny.tasks("language")[0])
    before = mismatch(made)
    assert made.batch_loss(None, None, None, None).item() == pytest.approx(before)
    tiny.learn(made, tiny.tasks("language", epochs=8)[0])
    assert mismatch(made) < 0.7 * before


def test_another_attention_is_refused():
    network = tiny.LANGUAGE.build()
    network.network.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="need scaled dot-product attention.*is eager"):
        Prefixes(network)


def test_one_general_prefix_alone_can_be_trained():
    made = learnt(1, task_layers=0)
    assert made.model.prompts[0].numel() == 0
    assert made.model.eval().generate(prompts(), 2).shape == (4, 2)
