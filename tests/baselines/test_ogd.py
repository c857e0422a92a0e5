"""OGD against its geometry: what is stored, what is projected, and which outputs then stay."""

import pytest
import torch
from torch import nn

from baselines.ogd import OGD, extended, gold_logit, project
from tests import tiny


class Pixels(nn.Flatten):
    """In double precision, so that what is left of a change is no processor's rounding."""

    def forward(self, x):
        return super().forward(x).double()


class Linear(OGD):
    """OGD on a linear classifier of pixels, whose logits are exactly linear in what is trained."""

    def adapt(self, backbone):
        torch.manual_seed(5)
        head = nn.Linear(3 * 16 * 16, tiny.N_TASKS * tiny.PER_TASK)
        return nn.Sequential(Pixels(), head.double())


def linear(project: str, optimizer: str, **shared):
    values = {"mask": "all", "learning_rate": 0.02, "clip_norm": None} | shared
    config = OGD.Config(directions=12, project=project, optimizer=optimizer)
    return Linear(tiny.network("vision"), config, tiny.setting("vision", **values))


def change_of_stored(method) -> float:
    """How much gold logits of the first task's samples move while the second is learnt."""
    first, second, _ = tiny.tasks("vision", epochs=17)  # 51 steps
    x, y = first.train.batch(torch.arange(12))

    def stored():
        with torch.no_grad():
            return method.model(x).gather(1, y[:, None])

    tiny.learn(method, first)
    before = stored()
    weight = method.model[1].weight.detach().clone()
    tiny.learn(method, second)
    assert (method.model[1].weight - weight).abs().max() > 1e-3  # it does learn
    return (stored() - before).abs().max().item()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(
    ("what", "optimizer"), [("gradient", "sgd"), ("step", "sgd"), ("step", "adam")]
)
def test_outputs_of_a_linear_model_on_stored_samples_stay(what, optimizer, clip):
    assert change_of_stored(linear(what, optimizer, clip_norm=clip)) < 1e-5


def test_adams_step_for_an_orthogonal_gradient_is_not_orthogonal():
    """Why the step is projected by default."""
    assert change_of_stored(linear("gradient", "adam")) > 1e-2


def test_a_vector_loses_its_part_along_stored_directions():
    basis = torch.tensor([[1.0, 0.0]])
    assert project(torch.tensor([3.0, 4.0]), basis).tolist() == [0.0, 4.0]
    assert project(torch.tensor([3.0, 4.0]), torch.empty(0, 2)).tolist() == [3.0, 4.0]


def test_directions_are_orthonormal_and_dependent_ones_dropped():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(6, 50, generator=generator)
    near = draws[0] + 1e-4 * draws[5]  # nearly the same direction
    gradients = torch.stack([draws[0], draws[1], draws[0], 3 * draws[1], near, torch.zeros(50)])
    basis = extended(torch.empty(0, 50), gradients)
    assert basis.shape == (3, 50)
    more = extended(basis, torch.stack([draws[2], draws[0] - 2 * draws[1]]))
    assert len(more) == 4 and torch.equal(more[:3], basis)
    torch.testing.assert_close(more @ more.T, torch.eye(4), atol=1e-5, rtol=0)
    span = torch.linalg.qr(torch.stack([draws[0], draws[1], draws[5], draws[2]]).double().T).Q
    torch.testing.assert_close((more.T @ more).double(), span @ span.T, atol=1e-3, rtol=0)


def test_the_same_gradient_twice_is_one_direction_in_a_large_space():
    gradient = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert len(extended(torch.empty(0, 100_000), torch.stack([gradient, gradient]))) == 1


def test_the_gold_logit_of_an_image_and_of_an_answer():
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    assert gold_logit(logits, torch.tensor([1])) == 5
    logits = torch.arange(12.0).reshape(1, 3, 4)  # the last 3 tokens, 2 of them the answer's
    assert gold_logit(logits, torch.tensor([[-100, -100, -100, 2, 1]])) == (6 + 9) / 2


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_directions_stay_orthonormal_through_the_stream(modality):
    method = tiny.method("ogd", modality, directions=8)
    counts = []
    for task in tiny.tasks(modality):
        tiny.learn(method, task)
        counts.append(method.diagnostics()["directions"])
    basis = method._basis
    trainable = method.footprint()["trainable_parameters"]
    assert 0 < counts[0] < counts[1] < counts[2] == len(basis) <= 24
    assert basis.shape[1] == trainable
    assert method.footprint()["stored_values"] == trainable * (1 + counts[2])
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=0)
