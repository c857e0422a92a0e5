"""The prompt methods against loops over samples, and what each of them must leave alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import baselines
from baselines.codaprompt import orthonormal
from baselines.common.prefix import encode_with_prefixes
from baselines.common.prompts import PromptPool, QueryCache
from tests import tiny

pytestmark = pytest.mark.slow

BY_TASK = ("dualprompt", "codaprompt")
METHODS = (*BY_TASK, "l2p")


@torch.enable_grad()
def trained(name: str, n_tasks: int = tiny.N_TASKS, epochs: int = 2, **config):
    method = tiny.method(name, "vision", **config)
    for task in tiny.tasks("vision", n_tasks, epochs):
        tiny.learn(method, task)
    method.model.eval()
    return method


def union(n: int = 12) -> tuple[Tensor, Tensor]:
    """The shuffled union of the tasks' samples."""
    parts = [tiny.samples("vision", t, n).batch(torch.arange(n)) for t in range(tiny.N_TASKS)]
    order = torch.randperm(3 * n, generator=torch.Generator().manual_seed(0))
    x, y = (torch.cat(values)[order] for values in zip(*parts, strict=True))
    return x, y


def cosine(a, b) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def logits_by_hand(model, x: Tensor, prefixes: dict) -> Tensor:
    """x (3, H, W) and prefixes, block -> (keys, values), each (length, width) -> (C,)."""
    tokens = model.backbone.embed(x[None])
    own = {i: (keys[None], values[None]) for i, (keys, values) in prefixes.items()}
    return model.backbone.head(encode_with_prefixes(model.backbone, tokens, own)[:, 0])[0]


def parameters(method) -> dict:
    """Everything that was ever trained."""
    return {n: p.clone() for n, p in method.state_dict()["parameters"].items()}


# What is selected


def test_the_pool_picks_as_a_loop_over_samples_does():
    torch.manual_seed(0)
    pool = PromptPool(torch.randn(7, 2, 5), top_k=3)
    queries = torch.randn(4, 5)
    prompts, mismatch = pool(queries)
    for b, q in enumerate(queries.numpy()):
        cosines = [cosine(q, key) for key in pool.keys.detach().numpy()]
        best = sorted(range(7), key=lambda i: -cosines[i])[:3]
        assert torch.equal(prompts[b], torch.cat([pool.prompts[i] for i in best]))
        np.testing.assert_allclose(
            mismatch[b].detach(), [1 - cosines[i] for i in best], atol=1e-6, rtol=0
        )


def test_l2p_worked_example_and_gradients():
    pool = PromptPool(torch.randn(3, 1, 2), top_k=1)
    pool.keys.data = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    prompts, mismatch = pool(torch.tensor([[0.6, 0.8]]))
    assert torch.equal(prompts[0], pool.prompts[1])
    assert mismatch.item() == pytest.approx(0.2)
    (prompts.sum() + mismatch.sum()).backward()
    assert pool.prompts.grad[[0, 2]].abs().max() == 0 and pool.keys.grad[[0, 2]].abs().max() == 0
    assert pool.prompts.grad[1].abs().min() > 0 and pool.keys.grad[1].abs().max() > 0


def test_l2p_starts_where_the_chosen_code_does():
    for preset, (low, high) in {"jax": (0, 0.01), "hide": (-1, 1)}.items():
        pool = tiny.method("l2p", "vision", **baselines.load("l2p").presets[preset]).model.pool
        for values in (pool.prompts, pool.keys):
            assert low <= values.min() < low + 0.1 * (high - low)
            assert high >= values.max() > high - 0.1 * (high - low)


@torch.no_grad()
def test_keys_of_tasks_not_learnt_are_not_chosen():
    model = trained("dualprompt", 2).model
    x, _ = union()
    _, queries = model.embed(x)
    before = model.match(queries)
    model.keys[2].copy_(queries.mean(dim=0))  # the best of all, were it allowed
    assert torch.equal(model.match(queries), before)
    model.task = 2
    assert (model.match(queries) == 2).any()


@torch.no_grad()
def test_without_prompts_dualprompt_is_the_backbone_with_its_classifier():
    model = trained("dualprompt", shared_length=0, task_length=0).model
    x, _ = union()
    assert torch.equal(model(x), model.backbone(x))


@torch.no_grad()
def test_before_the_first_task_there_are_no_task_prompts():
    x, _ = union()
    model = tiny.method("codaprompt", "vision").model.eval()
    assert torch.equal(model(x), model.backbone(x))
    model = tiny.method("dualprompt", "vision").model.eval()
    expected = torch.stack([logits_by_hand(model, one, {0: model.shared[:, 0]}) for one in x])
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


# What is trained


def gram_schmidt(rows: np.ndarray, n: int) -> np.ndarray:
    """The last n of the rows, each less its projections on those before it, to unit length."""
    basis = []
    for row in rows:
        for unit in basis:
            row = row - np.dot(row, unit) * unit
        basis.append(row / np.linalg.norm(row))
    return np.stack(basis[-n:])


def test_new_components_are_those_of_gram_schmidt():
    earlier, rows = torch.randn(4, 9, dtype=torch.double), torch.randn(3, 9, dtype=torch.double)
    for before in (earlier, earlier[:0]):
        expected = gram_schmidt(torch.cat([before, rows]).numpy(), 3)
        np.testing.assert_allclose(orthonormal(rows, before), expected, atol=1e-12)
    crowded = orthonormal(rows, torch.randn(7, 9, dtype=torch.double))  # 7 + 3 > 9 dimensions
    np.testing.assert_allclose(crowded, gram_schmidt(rows.numpy(), 3), atol=1e-12)


# The cache of queries


class CountingCache:
    """Counts the samples whose query is computed."""

    def __init__(self, cache: QueryCache):
        self.cache, self.n = cache, 0

    def __call__(self, compute):
        def counted():
            query = compute()
            self.n += len(query)
            return query

        return self.cache(counted)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
@pytest.mark.parametrize(
    "name, modality", [*((name, "vision") for name in METHODS), ("l2p", "language")]
)
def test_cached_queries_change_nothing_and_are_computed_once(name, modality, micro_batch_size):
    both, counts = [], []
    shared = {"batch_size": 5, "micro_batch_size": micro_batch_size}
    for cache in (False, True):
        method = tiny.method(name, modality, shared=shared, cache_queries=cache)
        method.model.queries = CountingCache(method.queries)
        for task in tiny.tasks(modality, 2, epochs=2):
            tiny.learn(method, task)
        assert method.diagnostics() == {"cached_queries": cache}
        both.append(parameters(method))
        counts.append(method.model.queries.n)
    assert counts == [2 * 2 * 12, 2 * 12]
    for name, value in both[0].items():
        torch.testing.assert_close(both[1][name], value, atol=1e-4, rtol=1e-3)


def test_tests_during_training_neither_read_nor_fill_the_cache():
    both = []
    for cache in (False, True):
        method = tiny.method("dualprompt", "vision", cache_queries=cache)
        model = method.model

        def test(loss, n, model=model, seen=both):
            model.eval()
            with torch.no_grad():
                seen.append(model(union()[0]))
            model.train()

        torch.manual_seed(0)
        method.learn(tiny.tasks("vision", 1)[0], test)
    plain, cached = both[: len(both) // 2], both[len(both) // 2 :]
    torch.testing.assert_close(cached, plain, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "name, modality",
    [
        *((name, "vision") for name in METHODS),
        *((name, "language") for name in ("l2p", "dualprompt")),
    ],
)
@torch.no_grad()
def test_queries_of_test_samples_are_computed_once(name, modality):
    method = tiny.method(name, modality)
    method.model.queries = counting = CountingCache(method.queries)
    tests = [tiny.samples(modality, t).batch(torch.arange(12))[0] for t in range(2)]
    for task in tiny.tasks(modality, 2):
        with torch.enable_grad():
            tiny.learn(method, task)
        method.model.eval()
        counting.n = 0
        for t, x in enumerate(tests):
            plain = [method.model(part) for part in x.split(5)]
            with method.queries.repeated(t):
                kept = [method.model(part) for part in x.split(5)]
            assert torch.equal(torch.cat(kept), torch.cat(plain))
        assert counting.n == (48 if task.index == 0 else 24)  # with those that are not kept


def test_the_cache_follows_a_batch_that_is_passed_in_parts():
    cache, data = QueryCache(), torch.randn(6, 2)
    loop = SimpleNamespace(
        experience=SimpleNamespace(dataset=data), clock=SimpleNamespace(train_exp_epochs=0)
    )
    cache.before_training_exp(loop)
    for epoch in range(2):
        loop.clock.train_exp_epochs = epoch
        cache.before_training_epoch(loop)
        for positions in torch.randperm(6).split(4):
            for part in positions.split(3):
                loop.passing = part
                compute = (lambda part=part: data[part]) if epoch == 0 else None
                assert torch.equal(cache(compute), data[part])
                loop.passing = None  # a pass of the method's own, over samples from elsewhere
                assert cache(lambda: 0) == 0


@pytest.mark.parametrize("name", METHODS)
def test_the_cache_is_refused_with_augmentation(name):
    method = baselines.load(name)
    config = method.Config(cache_queries=True)
    with pytest.raises(ValueError, match="cache_queries needs .* 'crop-flip'.* leave one"):
        method(tiny.network("vision"), config, SimpleNamespace(augment="crop-flip"))
