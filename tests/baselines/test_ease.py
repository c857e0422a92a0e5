"""Old prototypes against a worked example, and what spaces count."""

import pytest
import torch
import torch.nn.functional as F

from baselines.ease import complete
from tests import tiny

TASK_OF_CLASS = torch.tensor([0, 1, 1, 2])


def prototypes() -> torch.Tensor:
    """Three tasks, spaces of width 2; [j, c] is 0 where class c is older than space j."""
    p = torch.zeros(3, 4, 2)
    p[0] = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0], [-3.0, 0.0]])
    p[1, 1:] = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, 2.0]])
    p[2, 3] = torch.tensor([4.0, -4.0])
    return p


@pytest.mark.parametrize(
    ("donors", "cosines", "rows"),
    [("later", [1.0, 0.0, -1.0], [1, 2, 3]), ("new", [1.0, 0.0], [1, 2])],
)
def test_old_prototypes_are_put_together_by_likeness(donors, cosines, rows):
    p = prototypes()
    complete(p, TASK_OF_CLASS, 2, donors)
    shares = torch.tensor(cosines).exp() / torch.tensor(cosines).exp().sum()
    torch.testing.assert_close(p[1, 0], shares @ prototypes()[1, rows])
    assert (p[2] == torch.tensor([4.0, -4.0])).all()  # there is but one class to make them of
    true = prototypes() != 0
    assert torch.equal(p[true], prototypes()[true])


def test_prototypes_of_tasks_to_come_stay_empty():
    p = prototypes()
    p[:, 3], p[2] = 0.0, 0.0
    complete(p, TASK_OF_CLASS, 1, "later")
    assert not p[:, 3].any() and not p[2].any() and p[1, 0].any()


def test_with_no_weight_of_others_a_class_counts_in_its_own_space_alone():
    method = tiny.method("ease", "vision", reweight=0.0)
    for task in tiny.tasks("vision", epochs=1):
        tiny.learn(method, task)
    x, _ = tiny.samples("vision", 1).batch(torch.arange(12))
    with torch.no_grad():
        logits, features = method.model.eval()(x), method.model.features(x)
    for task in range(3):
        own = F.normalize(method.model.prototypes[task, 2 * task : 2 * task + 2], dim=1)
        expected = F.normalize(features[:, task], dim=1) @ own.T
        torch.testing.assert_close(logits[:, 2 * task : 2 * task + 2], expected)


def test_tests_in_the_middle_know_the_new_classes_and_change_nothing():
    tested, plain = (tiny.method("ease", "vision") for _ in range(2))
    unknown = []

    def test(loss, n):
        tested.ready_to_test()
        own = tested.model.task_of_class == tested.model.task
        unknown.append(not tested.model.prototypes[: tested.model.task + 1, own].any())

    for task in tiny.tasks("vision", 2):
        torch.manual_seed(task.index)
        tested.learn(task, test)
        torch.manual_seed(task.index)
        plain.learn(task)
    assert unknown and not any(unknown)
    assert torch.equal(tiny.outputs(tested, "vision"), tiny.outputs(plain, "vision"))
