"""HiDeLoRA on text: discriminant analysis against scikit-learn, branches, momentum, routing."""

import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from baselines.common.lora import add_lora
from baselines.hidelora_language import COVARIANCES, Discriminant, HiDeLoRALanguage
from tests import tiny


def method(shared=None, **config):
    config = HiDeLoRALanguage.Config(**config)
    return HiDeLoRALanguage(
        tiny.network("language"), config, tiny.setting("language", **shared or {})
    )


def learnt(n_tasks, shared=None, **config):
    made = method(shared, **config)
    for task in tiny.tasks("language", n_tasks):
        tiny.learn(made, task)
    return made


def features(made, data):
    """phi of samples, one at a time and without padding."""
    rows = []
    for ids, mask in data.x:
        asked = ids[mask == 1][None]
        rows.append(tiny.network("language").network.model(asked).last_hidden_state[0].mean(dim=0))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_two_gaussians_are_told_apart_in_the_middle(covariance):
    torch.manual_seed(0)
    identity = Discriminant(covariance, 1e-4)
    for mean in (0.0, 4.0):
        identity.add(torch.randn(500, 2) + torch.tensor([mean, 0.0]))
    scores = identity.scores(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    assert scores.argmax(dim=1).tolist() == [0, 1]


def test_the_discriminant_is_scikit_learns_in_any_number_of_tasks():
    torch.manual_seed(0)
    skew = torch.randn(5, 5)
    parts = [torch.randn(50, 5) @ skew + torch.randn(5) for _ in range(3)]
    identity = Discriminant("sample", 1e-12)
    for n, part in enumerate(parts, 1):
        identity.add(part)
        assert identity.scores(parts[0]).shape == (len(parts[0]), n)
    x, y = torch.cat(parts), torch.arange(3).repeat_interleave(50)
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(x.double(), y)
    queries = torch.randn(200, 5) @ skew
    expected = torch.from_numpy(lda.decision_function(queries.double()))
    own = identity.scores(queries)
    # scikit-learn divides the covariance by n and not by n - t, which scales all scores alike
    torch.testing.assert_close(
        (own - own[:, :1]) * 150 / 147,
        expected - expected[:, :1],
        atol=1e-6,
        rtol=1e-6,
    )


@pytest.mark.parametrize("n", [3, 6, 50])
def test_the_shrunk_covariance_is_scikit_learns(n):
    torch.manual_seed(0)
    skew = torch.randn(6, 6)
    parts = [torch.randn(n, 6) @ skew + torch.randn(6) for _ in range(2)]
    identity = Discriminant("ledoit-wolf", 1e-4)
    for part in parts:
        identity.add(part)
    centred = torch.cat([part.double() - part.double().mean(dim=0) for part in parts])
    expected, _ = ledoit_wolf(centred, assume_centered=True)
    own = identity.covariance() * (2 * n - 2) / (2 * n)  # scikit-learn divides by n
    torch.testing.assert_close(own, torch.from_numpy(expected))


def test_shrinkage_saves_the_case_of_as_many_samples_as_features():
    torch.manual_seed(0)
    means = torch.randn(4, 64)
    train, test = ([mean + 2 * torch.randn(n, 64) for mean in means] for n in (17, 200))

    def accuracy(covariance):
        identity = Discriminant(covariance, 1e-4)
        for part in train:
            identity.add(part)
        found = [identity.scores(part).argmax(dim=1) for part in test]
        return sum((f == i).float().mean().item() for i, f in enumerate(found)) / 4

    assert accuracy("ledoit-wolf") > accuracy("sample") + 0.2


def test_the_task_is_inferred_from_frozen_features_of_the_prompt():
    made = learnt(3)
    assert method().model.inferred is None
    identity = Discriminant(made.config.covariance, made.config.ridge)
    for task in range(3):
        identity.add(features(made, tiny.samples("language", task)))
    torch.testing.assert_close(identity.means, made.model.identity.means, atol=1e-5, rtol=1e-4)
    data = tiny.samples("language", 1, n=40)
    made.model.eval().generate(data.x[:, :, :-2], 1)
    expected = identity.scores(features(made, data)).argmax(dim=1)
    assert torch.equal(made.model.inferred, expected)
    made.model(data.x)  # with the answers there, which must not count
    assert torch.equal(made.model.inferred, expected)


def test_rows_of_a_mixed_batch_answer_as_with_the_one_adapter_of_their_task():
    made = learnt(3)
    x = torch.cat([tiny.samples("language", t).x for t in range(3)])[:, :, :-2]
    answers = made.model.eval().generate(x, 4).tolist()
    inferred = made.model.inferred.tolist()
    assert len(set(inferred)) > 1
    for task in set(inferred):
        plain = add_lora(tiny.network("language"), made.config)
        for name, parameter in made.model.backbone.named_parameters():
            if ".lora_" in name and name.endswith(f".{task}"):
                other = name.removesuffix(f".{task}") + ".default.weight"
                plain.get_parameter(other).data.copy_(parameter)
        for row in (i for i, t in enumerate(inferred) if t == task):
            alone = plain.generate(x[row : row + 1], 4)[0].tolist()
            assert answers[row][: len(alone)] == alone
