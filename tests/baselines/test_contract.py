"""What every method must keep, on vision and language; a new file in baselines/ is tested too.

So is the method that docs show to whoever adds one, `examples/anchor.py`.
"""

import copy
import functools
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import baselines
from baselines.common.base import TaskParts
from benchmarks.runs.state import check_state
from tests import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = [("anchor", modality) for modality in tiny.MODALITIES]


PAIRS = tiny.pairs() + EXAMPLE
ALL = pytest.mark.parametrize("case", PAIRS, ids="-".join)
LANGUAGE = pytest.mark.parametrize("case", [p for p in PAIRS if p[1] == "language"], ids="-".join)
PARTS = [p for p in tiny.pairs() if issubclass(baselines.load(*p), TaskParts)]


@pytest.fixture(autouse=True, scope="module")
def example():
    """The example stands where a new method would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "__path__", [*baselines.__path__, str(EXAMPLES)])
        yield


@functools.cache
@torch.enable_grad()  # whoever asks first
def learnt(name: str, modality: str) -> SimpleNamespace:
    """A method that has learnt three tasks, and what it was on the way.

    Attributes:
        frozen: parameters that require no gradient at first, by name.
        reports: of `learn`, for each task.
        outputs: after each task.
        state: of the method after two tasks, as a run saves it.
    """
    method = tiny.method(name, modality)
    frozen = {n: p.clone() for n, p in method.model.named_parameters() if not p.requires_grad}
    reports, outputs, file = [], [], io.BytesIO()
    for task in tiny.tasks(modality, epochs=1):
        reports.append(tiny.learn(method, task))
        outputs.append(tiny.outputs(method, modality))
        if task.index == 1:
            check_state(method.state_dict(), "its state")  # or a run would not save it
            torch.save(method.state_dict(), file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
    return SimpleNamespace(
        method=method, frozen=frozen, reports=reports, outputs=outputs, state=state
    )


@ALL
def test_learning_reports_its_work_and_lowers_the_loss(case):
    name, modality = case
    method, seen = tiny.method(name, modality), []
    torch.manual_seed(0)
    task = tiny.tasks(modality, epochs=6)[0]
    report = method.learn(task, lambda loss, n: seen.append((loss.item(), n)))
    if not method.stages:
        assert not any(p.requires_grad for p in method.model.parameters())
        assert (report["steps"], report["samples"], report["last_loss"]) == (0, 12, None)
        assert report["train_seconds"] == 0 < report["consolidate_seconds"] and not seen
        return
    assert report["steps"] == method.stages * 6 * 3 == len(seen)
    assert report["samples"] == method.stages * 6 * 12 == sum(n for _, n in seen)
    for stage in range(method.stages):
        losses = [loss for loss, _ in seen[stage * 18 : (stage + 1) * 18]]
        assert sum(losses[-6:]) < sum(losses[:6])
    assert report["train_seconds"] > 0 and report["consolidate_seconds"] >= 0
    assert report["last_loss"] == pytest.approx(seen[-1][0])


@ALL
def test_frozen_parameters_stay_bitwise(case):
    life = learnt(*case)
    after = dict(life.method.model.named_parameters())
    assert life.frozen
    assert all(torch.equal(value, after[n]) for n, value in life.frozen.items())


@ALL
def test_the_same_seed_gives_the_same_model(case):
    again = tiny.method(*case)
    for task, before in zip(tiny.tasks(case[1], 2, epochs=1), learnt(*case).outputs, strict=False):
        tiny.learn(again, task)
        assert torch.equal(tiny.outputs(again, case[1]), before)


@ALL
def test_a_restored_method_learns_on_as_if_never_stopped(case):
    life, fresh = learnt(*case), tiny.method(*case)
    fresh.load_state_dict(life.state)
    assert torch.equal(tiny.outputs(fresh, case[1]), life.outputs[1])
    tiny.learn(fresh, tiny.tasks(case[1], epochs=1)[2])
    assert torch.equal(tiny.outputs(fresh, case[1]), life.outputs[2])


@ALL
def test_moments_that_live_on_are_restored_too(case):
    whole, fresh = (tiny.method(*case, shared={"optimizer_reset": False}) for _ in range(2))
    first, second = tiny.tasks(case[1], 2, epochs=1)
    tiny.learn(whole, first)
    fresh.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (fresh, whole):
        tiny.learn(method, second)
    assert torch.equal(tiny.outputs(fresh, case[1]), tiny.outputs(whole, case[1]))


@ALL
@torch.no_grad()
def test_a_prediction_does_not_depend_on_its_batch(case):
    """Samples of all tasks, shuffled, against each alone."""
    model = learnt(*case).method.model.eval()
    x = torch.cat([tiny.samples(case[1], t).batch(torch.arange(12))[0] for t in range(3)])
    x = x[torch.randperm(36, generator=torch.Generator().manual_seed(0))]
    whole = model(x)
    for size in (1, 7):
        split = torch.cat([model(part) for part in x.split(size)])
        torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-4)


@LANGUAGE
def test_greedy_answers_do_not_depend_on_padding(case):
    model = learnt(*case).method.model.eval()
    prompts = tiny.samples("language", 0).x[:, :, :-2]
    together = model.generate(prompts, 3)
    for row, prompt in zip(together.tolist(), prompts, strict=True):
        start = int((prompt[1] == 0).sum())
        alone = model.generate(prompt[None, :, start:], 3)[0].tolist()
        assert row[: len(alone)] == alone


@ALL
def test_diagnostics_and_footprint_fit_a_record(case):
    method = learnt(*case).method
    json.dumps(method.diagnostics(), allow_nan=False)
    footprint = method.footprint()
    assert (footprint["trainable_parameters"] > 0) == (method.stages > 0)
    assert 0 < footprint["stored_values"] >= footprint["trainable_parameters"]


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("name", ["anchor", "ewc", "gem", "ogd", "olora", "tasl", "treelora"])
def test_on_the_first_task_lora_methods_equal_seqlora(name, modality):
    both = [learnt(which, modality).outputs for which in ("seqlora", name)]
    assert torch.equal(both[0][0], both[1][0])


@pytest.mark.parametrize("init", [None, "linear", "zero"])
@pytest.mark.parametrize("name", ["seqlora", "hidelora", "hideprompt", "l2p"])
def test_a_classifier_starts_as_asked_and_nothing_else_changes(name, init):
    plain, method = (
        tiny.method(name, "vision", shared={"head_init": how}).model.state_dict()
        for how in (None, init)
    )
    heads = {k for k in plain if k.split(".")[-2] in ("head", "identity") or "identity.1." in k}
    assert len(heads) == (4 if name.startswith("hide") else 2)
    for key, value in method.items():
        if key not in heads:
            assert torch.equal(value, plain[key])
        elif init == "linear":
            assert 0.5 < value.abs().max() * 24**0.5 <= 1  # 24 is the width
        elif init == "zero" or key.endswith("bias"):
            assert not value.any()
        else:
            assert 0.01 < value.std() < 0.03


@pytest.mark.parametrize("name", baselines.names())
def test_a_method_runs_somewhere_and_says_why_not_elsewhere(name):
    reasons = [baselines.load(name, m).skip(m) for m in tiny.MODALITIES]
    assert None in reasons
    assert all("\n" not in reason and reason.split()[3:] for reason in reasons if reason)


def test_an_unknown_method_is_refused_with_a_near_name():
    with pytest.raises(ValueError, match="'treelor'.*treelora"):
        baselines.load("treelor")


def test_the_example_is_as_short_as_it_claims():
    assert len((EXAMPLES / "anchor.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("case", PARTS, ids="-".join)
def test_a_task_changes_no_part_of_another(case):
    method = tiny.method(*case, shared={"optimizer_reset": False})
    for task in tiny.tasks(case[1], 2, epochs=1):
        before = [[p.clone() for p in method.model.parts(i)] for i in range(tiny.N_TASKS)]
        tiny.learn(method, task)
        for i in range(tiny.N_TASKS):
            pairs = zip(before[i], method.model.parts(i), strict=True)
            same = [torch.equal(old, new) for old, new in pairs]
            assert all(same) == (i != task.index)


def test_masked_training_leaves_other_classes_alone():
    method = tiny.method("seqlora", "vision", shared={"mask": "current"})
    before = method.model.head.weight.detach().clone()
    tiny.learn(method, tiny.tasks("vision")[0])
    after = method.model.head.weight.detach()
    assert torch.equal(before[2:], after[2:])
    assert not torch.equal(before[:2], after[:2])


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    method = tiny.method("seqlora", "vision", shared={"learning_rate": 1e30, "clip_norm": None})
    with pytest.raises(RuntimeError, match="nan.*lower learning_rate"):
        tiny.learn(method, tiny.tasks("vision", epochs=6)[0])
