"""What every method must keep, on vision and language; a new file in baselines/ is tested too.

`make contract METHOD=...` asks it of one method, by name, module or path, and with every option of
training alone. The method that docs show to whoever adds one, `examples/anchor.py`, is asked too.
"""

import functools
import inspect
import io
import json
import os
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import baselines
from analysis.records.predictions import Predictions, read
from baselines.common import compiler
from baselines.common.base import TaskParts
from baselines.common.lora import LoraMethod
from baselines.common.replay import ReplayBuffer
from benchmarks.runs import adapters
from benchmarks.runs.evaluate import answer
from benchmarks.runs.state import check_state
from benchmarks.streams.common.tasks import TaskData
from tests import bounds, kept, tiny
from tests.held import check_needs

ANCHOR = str(Path(__file__).parents[2] / "examples/anchor.py")
# What a suite can say of training that `tiny.setting` does not.
OPTIONS = [
    {"optimizer_reset": False},
    {"micro_batch_size": 3},
    {"clip_norm": None},
    {"precision": "bfloat16"},
]
OPTIONS = {
    "vision": [{"mask": "all"}, {"head_init": "zero"}, {"augment": "crop_flip"}, *OPTIONS],
    "language": [{"loss_mean": "samples"}, *OPTIONS],
}
ALONE = {"vision": [{"mask": "seen"}, {"head_init": "linear"}, {"compile": True}], "language": []}


def pytest_generate_tests(metafunc):
    """Which methods a test is asked of, and on which modality."""
    only = metafunc.config.getoption("method")
    pairs = tiny.pairs(only) if only else [*tiny.pairs(), *tiny.pairs(ANCHOR)]
    asked = {
        "case": pairs,
        "text_case": [pair for pair in pairs if pair[1] == "language"],
        "parts_case": [p for p in pairs if issubclass(tiny.working(*p) or object, TaskParts)],
    }
    for argument in asked.keys() & set(metafunc.fixturenames):
        ids = [f"{Path(place).stem}-{modality}" for place, modality in asked[argument]]
        metafunc.parametrize(argument, asked[argument], ids=ids)


def attributes(value, place: str, seen: set) -> dict:
    """Numbers, texts and tensors in an object by their place there, as they are now.

    Nothing of networks and functions, nor what was seen already.
    """
    if isinstance(value, torch.Generator):
        value = value.get_state()
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        return {place: value.detach().clone()}
    if value is None or isinstance(value, str | bytes | int | float):
        return {place: value}
    if isinstance(value, nn.Module) or callable(value) or id(value) in seen:
        return {}
    seen.add(id(value))
    if isinstance(value, dict):
        parts = {f"{place}[{key!r}]": part for key, part in value.items()}
    elif isinstance(value, list | tuple | set):
        value = sorted(map(repr, value)) if isinstance(value, set) else value
        parts = {f"{place}[{i}]": part for i, part in enumerate(value)}
    else:
        parts = {f"{place}.{name}": part for name, part in getattr(value, "__dict__", {}).items()}
    return {k: v for name, part in parts.items() for k, v in attributes(part, name, seen).items()}


def memory(method) -> dict:
    """What a method has beside its network and the loop."""
    own = {k: v for k, v in vars(method).items() if k not in ("model", "loop", "setting", "config")}
    seen = {id(method), id(method.loop), id(method.setting), id(method.config)}
    return {k: v for name in own for k, v in attributes(own[name], name, seen).items()}


def network(method) -> dict[str, Tensor]:
    """Parameters and buffers, as they are now."""
    named = [*method.model.named_parameters(), *method.model.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def state(method) -> dict:
    """What a run would save of a method, but for the loop, which counts tasks."""
    parts = {name: part for name, part in method.state_dict().items() if name != "loop"}
    return {k: v for name in parts for k, v in attributes(parts[name], name, set()).items()}


def different(one: dict, other: dict) -> list[str]:
    """The attributes that are not the same in both, however deep the difference lies."""

    def same(a, b) -> bool:
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            return type(a) is type(b) and (a == b or a != a and b != b)
        alike = a.shape == b.shape and a.dtype == b.dtype
        return alike and bool((a.eq(b) | a.ne(a) & b.ne(b)).all())

    missing = object()
    names = sorted(one.keys() | other.keys())
    unlike = [n for n in names if not same(one.get(n, missing), other.get(n, missing))]
    return list(dict.fromkeys(name.partition("[")[0] for name in unlike))


def live(method, task) -> SimpleNamespace:
    """Learn a task.

    Attributes:
        report: of `learn`.
        begun: what the method remembers when the loop begins.
        moved: parameters and buffers that the task has changed.
        trained: parameters that it was to train.
        learnt: parts of its state that are others than before.
        after: what the method remembers then.
        outputs: of its model then.
        traces: what making these has changed in it.
    """
    begun, begin, before, known = {}, method.begin, network(method), state(method)

    def noted(task):
        begin(task)
        begun.update(begun or memory(method))

    method.begin = noted
    report = tiny.learn(method, task)
    del method.begin
    parameters, after, left = network(method), memory(method), network(method)
    outputs = tiny.outputs(method, method.setting.modality)
    return SimpleNamespace(
        report=report,
        begun=begun,
        moved=different(before, left),
        trained=[n for n, p in method.model.named_parameters() if p.requires_grad],
        learnt=different(known, state(method)),
        after=after,
        outputs=outputs,
        traces=different(after, memory(method)) + different(parameters, network(method)),
    )


def saved(method) -> dict:
    """A method's state as a run finds it again."""
    check_state(method.state_dict(), "its state")  # or a run would not save it
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def check_same(restored: SimpleNamespace, whole: SimpleNamespace) -> None:
    """A task learnt by a restored method and by one that was never stopped."""
    later = different(whole.after, restored.after)
    if later or not torch.equal(whole.outputs, restored.outputs):
        # What a task sets anew when it begins need not be kept.
        forgotten = different(whole.begun, restored.begun) or later or ["something of the network"]
        raise AssertionError(f"state_dict() forgets {', '.join(f'`{n}`' for n in forgotten)}")


def check_moved(life: SimpleNamespace) -> None:
    """A task changes what it trains, beside the classifier if it trains more."""

    def body(names):
        return [name for name in names if "head" not in name.split(".")]

    moved = body(life.moved) if body(life.trained) else life.moved
    changed = moved if life.trained else moved + life.learnt
    assert changed, f"a task changes nothing of what it trains: {', '.join(life.trained)[:200]}"


@functools.cache
@torch.enable_grad()  # whoever asks first
def learnt(place, modality: str) -> SimpleNamespace:
    """A method that has learnt three tasks, and what it was on the way.

    Attributes:
        frozen: parameters that require no gradient at first, by name.
        outputs: of its model before the first task.
        lives: the tasks, see `live`; the third has two epochs.
        states: of the method before the second and the third task, by the task's index.
    """
    method = tiny.method(place, modality)
    outputs = tiny.outputs(method, modality)
    frozen = {n: p.clone() for n, p in method.model.named_parameters() if not p.requires_grad}
    lives, states = [], {}
    for task in tiny.tasks(modality, epochs=1):
        if task.index:
            states[task.index] = saved(method)
        lives.append(live(method, third_task(modality) if task.index == 2 else task))
    return SimpleNamespace(
        method=method, frozen=frozen, outputs=outputs, lives=lives, states=states
    )


def third_task(modality: str):
    return tiny.tasks(modality, epochs=2)[2]


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


def test_frozen_parameters_stay_bitwise(case):
    life = learnt(*case)
    after = dict(life.method.model.named_parameters())
    assert life.frozen
    changed = different(life.frozen, {n: after[n] for n in life.frozen})
    assert not changed, f"learning changes {', '.join(changed)}, which is frozen"


def test_the_same_seed_gives_the_same_model(case):
    """Also where it is tested on the way, which the second one is not."""
    again = tiny.method(*case)
    tiny.learn(again, *tiny.tasks(case[1], 1, epochs=1))
    same = torch.equal(tiny.outputs(again, case[1]), learnt(*case).lives[0].outputs)
    assert same, "the same seed gives another model"


def test_a_test_leaves_no_trace(case):
    traces = {name for life in learnt(*case).lives for name in life.traces}
    assert not traces, f"being tested changes {', '.join(traces)}"


def test_every_task_changes_what_it_trains(case):
    before = learnt(*case).outputs
    for life in learnt(*case).lives:
        check_moved(life)
        assert not torch.equal(life.outputs, before), "a task changes no output"
        before = life.outputs


def test_a_restored_method_learns_on_as_if_never_stopped(case):
    life, fresh = learnt(*case), tiny.method(*case)
    fresh.load_state_dict(life.states[2])
    assert torch.equal(tiny.outputs(fresh, case[1]), life.lives[1].outputs)
    check_same(live(fresh, third_task(case[1])), life.lives[2])


class Stopped(Exception):
    pass


def test_a_task_that_was_stopped_goes_on_as_if_never_stopped(case):
    """In the middle of an epoch, in the first and in the last stage of learning."""
    state, whole, task = learnt(*case).states[2], learnt(*case).lives[2], third_task(case[1])
    stopped = tiny.method(*case)
    n_steps = stopped.stages * 2 * 3  # two epochs
    assert whole.report["steps"] == n_steps, "stages are those of the loop's steps"
    stopped.load_state_dict(state)
    for inside in stopped_inside(stopped, task, [2, n_steps - 2]) if n_steps else ():
        fresh = tiny.method(*case)
        fresh.load_state_dict(state)
        fresh.loop.resume = inside, None
        report = tiny.learn(fresh, task)
        assert not different(whole.after, memory(fresh))
        assert torch.equal(tiny.outputs(fresh, case[1]), whole.outputs)
        for what in ("steps", "samples", "last_loss"):
            assert report[what] == whole.report[what]


def stopped_inside(method, task, save_at):
    """What files give of the states inside a task after these steps, the last of which stops it."""
    seen, files = [], []

    def report(loss, n):
        seen.append(n)
        if len(seen) in save_at:
            state = method.loop.snapshot(None)
            check_state(state, "its state")
            files.append(io.BytesIO())
            torch.save(state, files[-1])
        if len(seen) == save_at[-1]:
            raise Stopped

    torch.manual_seed(1000 + task.index)  # as `tiny.learn` does
    with pytest.raises(Stopped):
        method.learn(task, report)
    for file in files:
        file.seek(0)
    return [torch.load(file, weights_only=True) for file in files]


def check_options(case, options: dict) -> None:
    """A method learns, is stopped and goes on with these options of training."""
    whole, fresh = (tiny.method(*case, shared=options) for _ in range(2))
    first, second = tiny.tasks(case[1], 2, epochs=1)
    tiny.learn(whole, first)
    fresh.load_state_dict(saved(whole))
    lives = [live(method, second) for method in (fresh, whole)]
    check_same(*lives)
    check_moved(lives[0])
    assert lives[0].outputs.isfinite().all()


def test_the_options_of_training(case, request, monkeypatch):
    """All that go together, and each alone where one method is asked for."""
    options = OPTIONS[case[1]]
    asked = [functools.reduce(dict.__or__, options)]
    if request.config.getoption("method"):
        monkeypatch.setattr(compiler, "BACKEND", "eager")  # traced, but no code is made
        asked = [*options, *ALONE[case[1]]]
    for each in asked:
        try:
            check_options(case, each)
        except Exception as error:
            raise AssertionError(f"with {each}: {error}") from error


@pytest.mark.slow
def test_micro_batches_make_the_same_steps(case):
    """Parts of 4 and 2, answers of different length; every hook meets one gradient a step."""
    draw = ReplayBuffer.draw

    def everything(buffer, n):
        before = buffer._generator.get_state()
        rows = draw(buffer, len(buffer))
        buffer._generator.set_state(before)  # or what is kept would depend on how often it draws
        return rows

    def trained(size):
        own = {field.name for field in fields(tiny.loaded(*case).Config)}
        config = {"contrast": 0.0} if "contrast" in own else {}  # of a part's samples only
        shared = {"batch_size": 6, "micro_batch_size": size}
        method = tiny.method(*case, shared=shared, **config)
        # Not Adam: it divides by a gradient's size, and steps by what is zero but for rounding.
        method.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05)
        reports = [tiny.learn(method, task) for task in tiny.tasks(case[1], 2, epochs=1)]
        return reports, {n: p for n, p in method.model.named_parameters() if p.requires_grad}

    with pytest.MonkeyPatch.context() as patch:
        tiny.ragged(patch)
        patch.setattr(ReplayBuffer, "draw", everything)
        (before, whole), (after, parts) = trained(None), trained(4)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-5, rtol=1e-3, msg=name)
    for one, other in zip(before, after, strict=True):
        assert (one["steps"], one["samples"]) == (other["steps"], other["samples"])
        assert (other["last_loss"] or 0) == pytest.approx(one["last_loss"] or 0, rel=1e-3)


@torch.no_grad()
def test_a_prediction_does_not_depend_on_its_batch(case):
    """Samples of all tasks, shuffled, against some alone and all in small batches."""
    model = learnt(*case).method.model.eval()
    x = torch.cat([tiny.samples(case[1], t).batch(torch.arange(12))[0] for t in range(3)])
    x = x[torch.randperm(36, generator=torch.Generator().manual_seed(0))]
    whole = model(x)
    for n, size in ((12, 1), (36, 7)):
        split = torch.cat([model(part) for part in x[:n].split(size)])
        torch.testing.assert_close(split, whole[:n], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_is_answered_can_be_kept_and_scored_again(case, tmp_path):
    """A class or a text for each test item and, of a method that infers it, a task."""
    name, modality = case
    model, vision = learnt(*case).method.model, modality == "vision"
    cells, n_items = {}, 12
    for t, task in enumerate(tiny.tasks(modality)):
        data = TaskData(
            task.name,
            "",
            "accuracy" if vision else "exact",
            train=task.train,
            test_x=task.train.x if vision else task.train.x[:, :, :-2],
            gold=task.train.y if vision else [answer for _, answer in task.examples],
            items=range(n_items * t, n_items * (t + 1)),
            prompts=[prompt for prompt, _ in task.examples],
            max_new_tokens=2,
        )
        cell = cells[2, t] = answer(model, data, 6, "cpu", tiny.TOKENIZER, batch_size=5)
        right = [a == b for a, b in zip(cell.outputs, data.gold, strict=True)]
        assert cell.scores == right and len(cell.inferred or right) == n_items
    items = [[*range(n_items * t, n_items * (t + 1))] for t in range(3)]
    made = Predictions("0" * 12, ["a", "b", "c"], items, cells)
    (tmp_path / "kept.jsonl.gz").write_bytes(made.pack())
    assert read(tmp_path / "kept.jsonl.gz") == [made]


def test_greedy_answers_do_not_depend_on_padding(text_case):
    model = learnt(*text_case).method.model.eval()
    prompts = tiny.samples("language", 0).x[:, :, :-2]
    together = model.generate(prompts, 3)
    for row, prompt in zip(together.tolist(), prompts, strict=True):
        start = int((prompt[1] == 0).sum())
        alone = model.generate(prompt[None, :, start:], 3)[0].tolist()
        assert row[: len(alone)] == alone


@pytest.mark.slow
def test_what_it_says_it_needs_is_what_it_has(text_case):
    check_needs(text_case[0])


def test_every_number_of_its_settings_has_bounds(case):
    bounds.check(tiny.loaded(*case).Config)


def test_what_is_kept_of_it_gives_the_same_outputs(case, tmp_path, monkeypatch):
    """Also to who has PEFT and nothing of this project, where one adapter is all that is tested."""
    method, (place, modality) = learnt(*case).method, case
    folder = kept.write(tmp_path / "adapters", method, place, monkeypatch)
    if adapters.is_state(folder):
        again = tiny.method(*case)
        again.load_state_dict(adapters.read_state(folder))
        found = tiny.outputs(again, modality)
    else:
        found = kept.outputs_by_peft(folder, modality)
    torch.testing.assert_close(found, tiny.outputs(method, modality), atol=1e-6, rtol=1e-5)


def test_diagnostics_and_footprint_fit_a_record(case):
    method = learnt(*case).method
    json.dumps(method.diagnostics(), allow_nan=False)
    footprint = method.footprint()
    assert (footprint["trainable_parameters"] > 0) == (method.stages > 0)
    assert 0 < footprint["stored_values"] >= footprint["trainable_parameters"]


def test_a_task_changes_no_part_of_another(parts_case):
    method = tiny.method(*parts_case, shared={"optimizer_reset": False})
    for task in tiny.tasks(parts_case[1], 2, epochs=1):
        before = [[p.clone() for p in method.model.parts(i)] for i in range(tiny.N_TASKS)]
        tiny.learn(method, task)
        for i in range(tiny.N_TASKS):
            pairs = zip(before[i], method.model.parts(i), strict=True)
            same = [torch.equal(old, new) for old, new in pairs]
            assert all(same) == (i != task.index)


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("name", [ANCHOR, "ewc", "gem", "ogd", "olora", "tasl", "treelora"])
def test_on_the_first_task_lora_methods_equal_seqlora(name, modality):
    both = [learnt(which, modality).lives[0].outputs for which in ("seqlora", name)]
    assert torch.equal(*both)


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


def test_the_example_is_as_short_as_it_claims():
    assert len(Path(ANCHOR).read_text().splitlines()) <= 40


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


# The contract itself: each of these breaks one clause.


class Forgetful(LoraMethod):
    learnt = 0

    def penalty(self, loss):
        return self.learnt * loss

    def end(self, task):
        self.learnt += 1


class Idle(LoraMethod):
    def optimizer(self, parameters):
        rate = 0.0 if self.loop.clock.train_exp_counter else self.setting.learning_rate
        return torch.optim.Adam(parameters, lr=rate)


class Thawing(LoraMethod):
    def end(self, task):
        next(p for p in self.model.parameters() if not p.requires_grad).data += 1


class Unseeded(LoraMethod):
    def penalty(self, loss):
        return int.from_bytes(os.urandom(4)) / 2**32 * loss


class Hoarding(LoraMethod):
    def end(self, task):
        self.hoard = [parameter.detach().clone() for parameter in self.model.parameters()]


class Summing(LoraMethod):
    def batch_loss(self, x, y, logits, positions):
        return 0.01 * logits.square().sum()


class Wrapped(LoraMethod):
    """A model of which `change` makes other logits."""

    class Model(nn.Module):
        def __init__(self, network, change):
            super().__init__()
            self.network, self.change = network, change
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            return self.change(self, x, self.network(x))

    def adapt(self, backbone):
        return self.Model(super().adapt(backbone), type(self).change)


class Batchwise(Wrapped):
    def change(model, x, logits):
        return logits - logits.mean(dim=0)


class Watching(Wrapped):
    def change(model, x, logits):
        model.seen += 0 if model.training else x.mean()
        return logits * (1 + model.seen)


@pytest.mark.parametrize(
    ("method", "clause", "found"),
    [
        (Hoarding, test_what_it_says_it_needs_is_what_it_has, "keeps 0 bytes.* but there are"),
        (Forgetful, test_a_restored_method_learns_on_as_if_never_stopped, "forgets `learnt`"),
        (Idle, test_every_task_changes_what_it_trains, "changes nothing of .*lora_A"),
        (Thawing, test_frozen_parameters_stay_bitwise, "changes .*cls_token"),
        (Unseeded, test_the_same_seed_gives_the_same_model, "another model"),
        (Summing, test_micro_batches_make_the_same_steps, "lora"),
        (Batchwise, test_a_prediction_does_not_depend_on_its_batch, "not close"),
        (Watching, test_a_test_leaves_no_trace, "changes seen"),
    ],
)
def test_a_broken_method_is_found(method, clause, found):
    modality = "language" if "text_case" in inspect.signature(clause).parameters else "vision"
    with pytest.raises(AssertionError, match=found):
        clause((method, modality))
    tiny.learn(tiny.method(method, modality), tiny.tasks(modality)[0])  # it does run
