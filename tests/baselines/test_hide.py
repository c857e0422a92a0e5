"""Hierarchical decomposition: statistics, alignment, stages, routing against something simple."""

import numpy as np
import pytest
import torch

from baselines.common.hide import ClassStatistics, HiDeSettings, align
from baselines.hidelora import HiDeLoRA
from baselines.hidetreelora import HiDeTreeLoRA
from tests import tiny

pytestmark = pytest.mark.slow

NAMES = ("hidelora", "hideprompt", "hidetreelora")


def statistics(kind, features, y, centroids=10):
    made = ClassStatistics(kind, centroids, 0, "cpu")
    made.add(features, y)
    return made


def learnt(name, n_tasks=2, shared=None, **config):
    method = tiny.method(name, "vision", shared=shared, **config)
    for task in tiny.tasks("vision", n_tasks):
        tiny.learn(method, task)
    return method


def images():
    parts = [tiny.samples("vision", t).batch(torch.arange(12))[0] for t in range(3)]
    return torch.cat(parts)[torch.randperm(36, generator=torch.Generator().manual_seed(0))]


def parameters(method):
    return {n: p.detach().clone() for n, p in method.model.named_parameters()}


def test_centroids_are_clusters_and_outliers_are_left_out():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    groups = [centre + torch.randn(n, 2) for centre, n in zip(centres, (7, 6, 1), strict=True)]
    made = statistics("multi-centroid", torch.cat(groups), torch.zeros(14, dtype=int), 3)
    assert made.labels.tolist() == [0, 0]
    for group in groups[:2]:
        own = group.numpy()
        k = int((made.means - group.mean(dim=0)).norm(dim=1).argmin())
        np.testing.assert_allclose(made.means[k], own.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(made.factors[k] ** 2, own.var(axis=0) + 1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["multi-centroid", "covariance", "variance"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_class_has_a_gaussian_however_few_its_images(kind, n):
    made = statistics(kind, torch.randn(n, 4), torch.zeros(n, dtype=int))
    assert len(made.labels) >= 1
    assert made.draw(torch.zeros(3, dtype=int)).isfinite().all()


def test_draws_have_the_mean_and_covariance_of_their_gaussian():
    torch.manual_seed(0)
    x = torch.randn(60, 3) @ torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, -1, 3]]) + 4
    made = statistics("covariance", x, torch.arange(60) % 2)
    chosen = torch.arange(200_000) % 2
    drawn = made.draw(chosen)[chosen == 1].numpy()
    own = x[1::2].numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), own.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(own.T), rtol=0.02, atol=0.05)


@pytest.mark.parametrize(("full", "steps"), [(False, 2), (True, 6)])
def test_an_alignment_epoch_has_as_many_steps_as_old_classes_or_uses_all(full, steps):
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    made = statistics("multi-centroid", x, y, 2)
    settings = HiDeSettings(alignment_epochs=5, alignment_samples=7, alignment_full=full)
    classifier, seen = torch.nn.Linear(4, 5), []
    classifier.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    before = classifier.weight.detach().clone()
    align(classifier, made, 3, 2, settings)
    assert [len(batch) for batch in seen] == [7] * (5 * steps)
    assert torch.equal(classifier.weight[3:], before[3:])  # classes to come
    assert not torch.isclose(classifier.weight[:3], before[:3]).any()


def test_alignment_brings_back_classes_that_a_classifier_forgot():
    torch.manual_seed(0)
    centres = torch.eye(4) * 6
    x, y = centres.repeat(20, 1) + torch.randn(80, 4), torch.arange(4).repeat(20)
    classifier = torch.nn.Linear(4, 4)
    with torch.no_grad():
        classifier.weight[:2] = 0
        classifier.bias.copy_(torch.tensor([-9.0, -9, 0, 0]))
    assert (classifier(x).argmax(dim=1) == y)[y < 2].sum() == 0
    align(classifier, statistics("variance", x, y), 4, 2, HiDeSettings(alignment_rate=0.1))
    assert (classifier(x).argmax(dim=1) == y).float().mean() > 0.95


@pytest.mark.parametrize("name", ["hidelora", "hideprompt"])
def test_alignment_changes_only_the_classifiers(name):
    with_it, without = learnt(name), learnt(name, alignment_epochs=0, alignment_rate=0.0)
    changed = {
        n
        for n, p in with_it.model.named_parameters()
        if not torch.equal(p, dict(without.model.named_parameters())[n])
    }
    heads = {f"backbone.head.{part}" for part in ("weight", "bias")}
    assert changed >= heads and all(n in heads or n.startswith("identity.") for n in changed)


@pytest.mark.parametrize("signature", ["adapter", "gradient"])
def test_treelora_with_strength_zero_is_hidelora(signature):
    plain = learnt("hidelora", 2)
    without = learnt("hidetreelora", 2, strength=0.0, signature=signature)
    pulled = learnt("hidetreelora", 2, strength=5.0, signature=signature)
    assert torch.equal(*(tiny.outputs(each, "vision") for each in (plain, without)))
    assert not torch.allclose(*(tiny.outputs(each, "vision") for each in (plain, pulled)))


def test_classes_to_come_are_never_inferred():
    method = learnt("hidelora", 2)
    with torch.no_grad():
        method.model.identity.bias[4:] += 100
    tiny.outputs(method, "vision")
    assert method.model.inferred.max() == 1


def test_frozen_features_computed_once_change_nothing():
    once, each_time = (learnt("hideprompt", cache_features=c) for c in (True, False))
    assert torch.equal(*(tiny.outputs(each, "vision") for each in (once, each_time)))
    assert once.diagnostics()["cached_features"] and not each_time.diagnostics()["cached_features"]


def test_prompts_of_the_first_layers_learn_and_the_classifier_at_its_own_rate():
    method = tiny.method("hideprompt", "vision", layers=1, head_rate=0.0, contrast=0.0)
    assert method.model.prompts[0].shape == (1, 2, 5, 24)
    before = parameters(method)
    tiny.learn(method, tiny.tasks("vision")[0])
    after = parameters(method)
    assert torch.equal(before["backbone.head.weight"], after["backbone.head.weight"])
    assert not torch.equal(before["prompts.0"], after["prompts.0"])


def test_the_record_has_the_terms_worth_watching():
    facts = learnt("hidelora", 2).diagnostics()
    assert len(facts["contrast"]) == len(facts["train_task_accuracy"]) == 2
    assert facts["train_task_accuracy"][0] == 1.0 and min(facts["contrast"]) > 0


def test_more_layers_than_there_are_adapt_all():
    config = HiDeLoRA.Config()
    config.check(4)
    assert config.adapted_matrices(4) == 4 and config.adapted_matrices(24) == 10
    with pytest.raises(ValueError, match="depth must lie between 1 and .*, 4, but is 5"):
        HiDeTreeLoRA.Config(depth=5).check(4)
