"""What every method must keep, on vision and language; a new file in baselines/ is tested too."""

import io
import json

import pytest
import torch

import baselines
from benchmarks.runs.state import check_state
from tests import tiny


def pairs():
    return [
        (name, modality)
        for name in baselines.names()
        for modality in tiny.MODALITIES
        if baselines.load(name, modality).skip(modality) is None
    ]


LANGUAGE = [pair for pair in pairs() if pair[1] == "language"]
TRAINED = [pair for pair in pairs() if baselines.load(*pair).stages]
CLOSED_FORM = [pair for pair in pairs() if pair not in TRAINED]


@pytest.fixture(params=pairs(), ids="-".join)
def case(request):
    return request.param


@pytest.mark.parametrize("case", CLOSED_FORM, ids="-".join)
def test_learning_without_gradient_steps_takes_no_training_time(case):
    name, modality = case
    method = tiny.method(name, modality)
    assert not any(p.requires_grad for p in method.model.parameters())
    report = method.learn(tiny.tasks(modality)[0], pytest.fail)
    assert report.pop("consolidate_seconds") > 0
    none = {"steps": 0, "train_seconds": 0.0, "last_loss": None}
    assert report == none | {"samples": 12}


@pytest.mark.parametrize("case", TRAINED, ids="-".join)
def test_learning_reports_its_work_and_lowers_the_loss(case):
    name, modality = case
    method = tiny.method(name, modality)
    seen = []
    torch.manual_seed(0)
    task = tiny.tasks(modality, epochs=12)[0]
    report = method.learn(task, lambda loss, n: seen.append((loss.item(), n)))
    assert report["steps"] == method.stages * 12 * 3 == len(seen)
    assert report["samples"] == method.stages * 12 * 12 == sum(n for _, n in seen)
    for stage in range(method.stages):
        losses = [loss for loss, _ in seen[stage * 36 : (stage + 1) * 36]]
        assert sum(losses[-6:]) < sum(losses[:6])
    assert report["train_seconds"] > 0 and report["consolidate_seconds"] >= 0
    assert report["last_loss"] == pytest.approx(seen[-1][0])


def test_frozen_parameters_stay_bitwise(case):
    name, modality = case
    method = tiny.method(name, modality)
    frozen = {n: p.clone() for n, p in method.model.named_parameters() if not p.requires_grad}
    assert frozen
    for task in tiny.tasks(modality):
        tiny.learn(method, task)
    after = dict(method.model.named_parameters())
    assert all(torch.equal(value, after[n]) for n, value in frozen.items())


def test_the_same_seed_gives_the_same_model(case):
    name, modality = case
    both = []
    for _ in range(2):
        method = tiny.method(name, modality)
        for task in tiny.tasks(modality, 2):
            tiny.learn(method, task)
        both.append(tiny.outputs(method, modality))
    assert torch.equal(*both)


def test_a_restored_method_learns_on_as_if_never_stopped(case):
    name, modality = case
    whole, stopped = (tiny.method(name, modality) for _ in range(2))
    first, second, third = tiny.tasks(modality)
    for task in (first, second, third):
        tiny.learn(whole, task)
    for task in (first, second):
        tiny.learn(stopped, task)
    file = io.BytesIO()
    check_state(stopped.state_dict(), "its state")  # or a run would not save it
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    fresh = tiny.method(name, modality, seed=0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(tiny.outputs(fresh, modality), tiny.outputs(stopped, modality))
    tiny.learn(fresh, third)
    assert torch.equal(tiny.outputs(fresh, modality), tiny.outputs(whole, modality))


def test_moments_that_live_on_are_restored_too(case):
    name, modality = case
    shared = {"optimizer_reset": False}
    whole, stopped, fresh = (tiny.method(name, modality, shared=shared) for _ in range(3))
    first, second, _ = tiny.tasks(modality)
    for method, learnt in ((whole, (first, second)), (stopped, (first,))):
        for task in learnt:
            tiny.learn(method, task)
    fresh.load_state_dict(stopped.state_dict())
    tiny.learn(fresh, second)
    assert torch.equal(tiny.outputs(fresh, modality), tiny.outputs(whole, modality))


def test_a_prediction_does_not_depend_on_its_batch(case):
    name, modality = case
    method = tiny.method(name, modality)
    for task in tiny.tasks(modality, 2):
        tiny.learn(method, task)
    method.model.eval()
    parts = [tiny.samples(modality, t, n=48).batch(torch.arange(48))[0] for t in range(3)]
    x = torch.cat(parts)[torch.randperm(144, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        whole = method.model(x)
        for size in (1, 7, 128):
            split = torch.cat([method.model(part) for part in x.split(size)])
            torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", LANGUAGE, ids="-".join)
def test_greedy_answers_do_not_depend_on_padding(case):
    name, modality = case
    method = tiny.method(name, modality)
    tiny.learn(method, tiny.tasks(modality)[0])
    method.model.eval()
    prompts = tiny.samples(modality, 0).x[:, :, :-2]
    together = method.model.generate(prompts, 3)
    for row, prompt in zip(together.tolist(), prompts, strict=True):
        start = int((prompt[1] == 0).sum())
        alone = method.model.generate(prompt[None, :, start:], 3)[0].tolist()
        assert row[: len(alone)] == alone


def test_diagnostics_and_footprint_fit_a_record(case):
    name, modality = case
    method = tiny.method(name, modality)
    for task in tiny.tasks(modality, 2):
        tiny.learn(method, task)
    json.dumps(method.diagnostics(), allow_nan=False)
    footprint = method.footprint()
    assert (footprint["trainable_parameters"] > 0) == (method.stages > 0)
    assert 0 < footprint["stored_values"] >= footprint["trainable_parameters"]


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


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("name", ["ewc", "gem", "olora", "treelora"])
def test_on_the_first_task_lora_methods_equal_seqlora(name, modality):
    both = []
    for which in ("seqlora", name):
        method = tiny.method(which, modality)
        tiny.learn(method, tiny.tasks(modality)[0])
        both.append(tiny.outputs(method, modality))
    assert torch.equal(*both)


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("name", ["ewc", "treelora"])
def test_with_strength_zero_penalties_equal_seqlora(name, modality):
    both = []
    for which, config in (("seqlora", {}), (name, {"strength": 0.0})):
        method = tiny.method(which, modality, **config)
        for task in tiny.tasks(modality):
            tiny.learn(method, task)
        both.append(tiny.outputs(method, modality))
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)


def test_masked_training_leaves_other_classes_alone():
    method = tiny.method("seqlora", "vision", shared={"mask": "current"})
    before = method.model.head.weight.detach().clone()
    tiny.learn(method, tiny.tasks("vision")[0])
    after = method.model.head.weight.detach()
    assert torch.equal(before[2:], after[2:])
    assert not torch.equal(before[:2], after[:2])


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    method = tiny.method("seqlora", "vision", shared={"learning_rate": 1e30, "clip_norm": None})
    with pytest.raises(RuntimeError, match="loss became nan.*lower learning_rate"):
        tiny.learn(method, tiny.tasks("vision", epochs=6)[0])
