"""What the shared loop promises to a method's hooks, and the settings that it may define."""

import copy
from dataclasses import dataclass

import pytest
import torch

from baselines.common.base import RESERVED, Method, new_default
from baselines.common.lora import LoraMethod, LoraSettings
from baselines.common.prototypes import class_means
from baselines.common.replay import ReplayBuffer
from baselines.derpp import DERpp
from baselines.seqlora import SeqLoRA
from benchmarks.runs.options import TRAINING
from benchmarks.runs.suite import WORDS
from tests import tiny


def make(cls, modality="vision", **shared):
    return cls(tiny.network(modality), cls.Config(**cls.small), tiny.setting(modality, **shared))


def learn(method, n=1, epochs=1):
    tasks = tiny.tasks(method.setting.modality, n, epochs)
    return [tiny.learn(method, task) for task in tasks]


def batch(modality="vision", task=0):
    return tiny.samples(modality, task).batch(torch.arange(12))


class Watched(SeqLoRA):
    """A method that notes what its hooks are given."""

    def begin(self, task):
        self.task, self.asked, self.after, self.calls = task, [], [], []

    def batch_loss(self, *part):
        self.asked.append((part, [p.detach().clone() for p in self.loop.model.parameters()]))
        return 0.0

    def after_step(self, *part):
        self.after.append((part, [p.detach().clone() for p in self.loop.model.parameters()]))

    def end(self, task):
        self.calls.append("end")

    def ready_to_test(self):
        self.calls.append("ready_to_test")


@pytest.mark.parametrize("modality", tiny.MODALITIES)
@pytest.mark.parametrize("size", [None, 3])
def test_hooks_are_given_each_part_once_before_and_after_its_step(modality, size):
    method = make(Watched, modality, micro_batch_size=size)
    learn(method)
    assert [len(part[1]) for part, _ in method.asked] == [4] * 3 if size is None else [3, 1] * 3
    for (before, old), (after, new) in zip(method.asked, method.after, strict=True):
        x, y, logits, positions = after
        expected = method.task.train.batch(positions)[0]
        assert torch.equal(x[..., -expected.shape[-1] :], expected)  # a part of texts is padded
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert before[2].requires_grad and not logits.requires_grad
        assert not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    seen = torch.cat([part[3] for part, _ in method.after])
    assert torch.equal(seen.sort().values, torch.arange(12))
    assert method.calls == ["end", "ready_to_test"]


class Distilled(SeqLoRA):
    """A term with a pass of its own, over samples that the batch's positions name."""

    def begin(self, task):
        self.task = task

    def batch_loss(self, x, y, logits, positions):
        again = torch.cat([part for part, _, _ in self.batches(self.task, 5, positions)])
        loss = self.criterion(self.loop.model(again), y)
        return loss + (logits - self.loop.model(x.flip(-1))).square().mean()

    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.1)


def test_a_term_with_a_pass_of_its_own_makes_the_same_step_in_parts():
    whole, parts = make(Distilled), make(Distilled, micro_batch_size=3)
    losses = [learn(method, 2)[-1]["last_loss"] for method in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    models = (method.loop.model.parameters() for method in (whole, parts))
    for one, other in zip(*models, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_batches_are_the_tasks_samples_in_order_or_those_asked_for():
    method, (task,) = make(SeqLoRA), tiny.tasks("vision", 1)
    x, y, positions = (torch.cat(part) for part in zip(*method.batches(task, 5), strict=True))
    assert torch.equal(positions, torch.arange(12))
    assert all(torch.equal(a, b) for a, b in zip((x, y), batch(), strict=True))
    chosen = torch.tensor([7, 2, 9])
    assert [p.tolist() for _, _, p in method.batches(task, 2, chosen)] == [[7, 2], [9]]


def test_features_are_what_the_classifier_reads():
    method = make(SeqLoRA)
    learn(method)
    x = batch()[0]
    torch.testing.assert_close(method.backbone.head(method.features(x)), method.model(x))


def test_features_of_a_text_are_those_of_its_prompts_last_token():
    """Whatever follows it, and however the text is padded."""
    method = make(SeqLoRA, "language")
    learn(method)
    method.model.eval()
    x = batch("language")[0]
    found = method.features(x)
    torch.testing.assert_close(method.features(x[:, :, :-2]), found)
    logits = method.model.network.get_output_embeddings()(found)
    torch.testing.assert_close(logits, method.model(x)[:, 0])  # that of the first answer token


# The optimiser


class Switching(SeqLoRA):
    """Trains the A factors on even tasks and the B factors on odd ones, the classifier always."""

    def begin(self, task):
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(f".lora_{'AB'[task.index % 2]}." in name)


@pytest.mark.parametrize("reset", [True, False])
def test_what_is_trained_from_a_task_on_is_trained(reset):
    method = make(Switching, optimizer_reset=reset)
    for task in tiny.tasks("vision", 2):
        before = {n: p.detach().clone() for n, p in method.model.named_parameters()}
        tiny.learn(method, task)
        moved = {n for n, p in method.model.named_parameters() if not torch.equal(p, before[n])}
        assert any(f".lora_{'AB'[task.index]}." in n for n in moved) or not task.index
        assert not any(f".lora_{'BA'[task.index]}." in n for n in moved)
        assert "head.weight" in moved


def test_moments_of_what_is_still_trained_are_kept_also_over_a_stop():
    method, fresh = (make(Switching, optimizer_reset=False) for _ in range(2))
    first, second = tiny.tasks("vision", 2, epochs=1)
    tiny.learn(method, first)
    state = copy.deepcopy(method.state_dict())
    assert {f"lora_{factor}" in str(list(state["parameters"])) for factor in "AB"} == {True}
    fresh.load_state_dict(state)
    for each in (method, fresh):
        tiny.learn(each, second)
        moments = each.loop.optimizer.state
        steps = {
            n: int(moments[p]["step"]) for n, p in each.model.named_parameters() if p in moments
        }
        assert {count for n, count in steps.items() if n.startswith("head.")} == {6}
        assert {count for n, count in steps.items() if ".lora_B." in n} == {3}
        assert not any(".lora_A." in n for n in steps)
    assert torch.equal(tiny.outputs(method, "vision"), tiny.outputs(fresh, "vision"))


# A loss that is not finite


@pytest.mark.parametrize("term", ["penalty", "batch_loss"])
def test_a_loss_that_is_not_finite_names_the_term_and_the_step(term):
    method, calls = make(SeqLoRA), []

    def broken(*args):
        calls.append(0)
        return torch.tensor(float("inf" if len(calls) == 3 else 1.0))

    setattr(method, term, broken)
    with pytest.raises(RuntimeError, match=rf"first in {term}\(\) at step 3 ") as error:
        learn(method, epochs=40)
    assert "\n" not in str(error.value)


# Settings


def test_a_setting_that_hides_an_inherited_one_is_refused_with_both_places():
    with pytest.raises(ValueError, match="alpha in .*Mine.Config replaces .*LoraSettings"):

        class Mine(LoraMethod):
            @dataclass(frozen=True)
            class Config(LoraSettings):
                alpha: float = 0.1

    @dataclass(frozen=True)
    class Other(Method.Config):
        rank: int = 3

    with pytest.raises(ValueError, match="rank in .*Other replaces that of .*BranchSettings"):

        class Both(LoraMethod):
            @dataclass(frozen=True)
            class Config(Other, LoraSettings):
                pass


def test_another_default_of_an_inherited_setting_is_said_to_be_one():
    class Mine(LoraMethod):
        @dataclass(frozen=True)
        class Config(LoraSettings):
            rank: int = new_default(3)

    assert Mine.Config().rank == 3 and Mine.Config(rank=5).rank == 5


@pytest.mark.parametrize("name", ["learning_rate", "preset", "epochs"])
def test_a_setting_of_all_methods_is_refused_as_a_methods_own(name):
    config = dataclass(frozen=True)(
        type("Config", (LoraSettings,), {"__annotations__": {name: float}, name: 0.1})
    )
    with pytest.raises(ValueError, match=f"{name} in .*Config.*all methods share"):
        type("Mine", (LoraMethod,), {"Config": config})


def test_what_a_row_of_a_suite_says_of_every_method_is_reserved():
    names = {field for options in TRAINING.values() for field in options.__dataclass_fields__}
    assert names | WORDS <= RESERVED


# What methods share


def test_each_row_is_kept_with_the_same_probability():
    counts = torch.zeros(20)
    for seed in range(1600):
        buffer = ReplayBuffer(5, seed)
        for part in torch.arange(20).split(3):
            buffer.add(part[:, None].float(), part)
        x, y = buffer.draw(9)
        assert buffer.seen == 20
        assert len(buffer) == len(y.unique()) == 5 and torch.equal(x[:, 0].long(), y)
        counts[y] += 1
    assert counts.sum() == 8000
    assert (counts - 400).abs().max() < 5 * (400 * 0.75) ** 0.5


def test_a_buffer_goes_on_as_if_never_stopped():
    whole, fresh = ReplayBuffer(4, 0), ReplayBuffer(4, 1)
    rows = torch.arange(30)
    whole.add(rows[:10], rows[:10])
    fresh.load_state_dict(whole.state_dict(), "cpu")
    for buffer in (whole, fresh):
        buffer.add(rows[10:], rows[10:])
    for one, other in zip(whole.draw(3), fresh.draw(3), strict=True):
        assert torch.equal(one, other)


def test_texts_are_kept_without_padding_and_drawn_as_a_batch():
    buffer = ReplayBuffer(12, 0)
    x, y = batch("language")
    answers = torch.rand(12, 2, 5)
    for part in torch.arange(12).split(5):
        buffer.add(torch.nn.functional.pad(x[part], (3, 0)), y[part], answers[part])
    drawn = buffer.draw(12)
    rows = [int((x == row).all(dim=(1, 2)).nonzero()[0]) for row in drawn[0]]
    assert sorted(rows) == list(range(12))
    for whole, found in zip((x, y, answers), drawn, strict=True):
        assert torch.equal(found, whole[rows])
    short = buffer.draw(1)[0]
    assert (short[:, 1] > 0).all()


def test_class_means():
    x, y = torch.rand(9, 4), torch.tensor([0, 2, 2, 0, 2, 3, 3, 0, 0])
    means = class_means(x, y, 5)
    for label in (0, 2, 3):
        torch.testing.assert_close(means[label], x[y == label].mean(dim=0))
    assert not means[[1, 4]].any() and means.dtype == x.dtype


# DER++


def test_augmented_replay_keeps_samples_as_they_are():
    method = make(DERpp, augment="crop_flip", micro_batch_size=3)
    learn(method, 2, epochs=2)
    own = {x.numpy().tobytes() for t in (0, 1) for x in batch(task=t)[0]}
    x, _, logits = method._buffer.draw(12)
    assert {row.numpy().tobytes() for row in x} <= own and logits.shape == (10, 6)


def test_a_buffer_draws_nothing_from_a_runs_own_generator():
    """Without weights replay changes nothing."""
    plain, idle = make(SeqLoRA), make(DERpp)
    object.__setattr__(idle, "config", DERpp.Config(logit_weight=0.0, label_weight=0.0))
    for method in (plain, idle):
        learn(method, 2)
    assert torch.equal(tiny.outputs(plain, "vision"), tiny.outputs(idle, "vision"))
