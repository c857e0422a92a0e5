"""Options of the shared loop: micro-batches, compilation, augmentation, mixed precision."""

import time

import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as tvf

from baselines.common import augment, compiler
from baselines.common.augment import CropFlip
from tests import tiny

pytestmark = pytest.mark.slow


def trained(name, modality, n_tasks=2, **shared):
    """A method's trained parameters and the reports of its tasks."""
    config = {"signature": "gradient"} if name == "treelora-gradient" else {}
    shared = {"batch_size": 6} | shared
    method = tiny.method(name.partition("-")[0], modality, shared=shared, **config)
    reports = [tiny.learn(method, task) for task in tiny.tasks(modality, n_tasks, epochs=3)]
    parameters = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
    return method, parameters, reports


@pytest.mark.parametrize(
    ("name", "modality", "mean"),
    [
        *(("treelora-gradient", modality, None) for modality in tiny.MODALITIES),
        *((name, "language", "samples") for name in ("seqlora", "ewc", "gem")),
    ],
)
def test_micro_batches_make_the_same_steps(name, modality, mean, monkeypatch):
    """Parts of 4 and 2. All methods as they are by default: `test_contract.py`."""
    tiny.ragged(monkeypatch)
    # Not Adam: it divides by a gradient's size, and makes steps of what is zero but for rounding.
    sgd = {"learning_rate": 0.05, "loss_mean": mean}
    monkeypatch.setattr(
        "baselines.common.base.Method.optimizer",
        lambda self, parameters: torch.optim.SGD(parameters, lr=self.setting.learning_rate),
    )
    _, whole, before = trained(name, modality, **sgd)
    _, parts, after = trained(name, modality, micro_batch_size=4, **sgd)
    assert whole.keys() == parts.keys()
    for n, value in whole.items():
        torch.testing.assert_close(parts[n], value, atol=2e-5, rtol=1e-3, msg=n)
    assert [r["steps"] for r in before] == [r["steps"] for r in after] == [6, 6]
    for one, other in zip(before, after, strict=True):
        assert other["last_loss"] == pytest.approx(one["last_loss"], rel=1e-3)
        assert other["samples"] == one["samples"]


def test_the_loss_of_a_batch_of_texts_by_hand(monkeypatch):
    """Answers of 2 and 4 tokens; the mean over tokens, and over samples."""
    tiny.ragged(monkeypatch)
    x, y = tiny.samples("language", 0).batch(torch.arange(6))
    of_samples = []
    for mean in (None, "samples"):
        loop = tiny.method("seqlora", "language", shared={"loss_mean": mean}).loop
        output = loop.model(x)
        alone = []  # of each answer, by probabilities
        for logits, ids in zip(output, y, strict=True):
            ids = ids[ids != -100]
            pairs = zip(logits[-len(ids) :].softmax(dim=1), ids, strict=True)
            alone.append([-p[token].log() for p, token in pairs])
        assert {len(losses) for losses in alone} == {2, 4}
        if mean is None:
            expected = sum(map(sum, alone)) / sum(map(len, alone))
        else:
            expected = sum(sum(losses) / len(losses) for losses in alone) / len(alone)
        torch.testing.assert_close(loop._criterion(output, y), expected)
        of_samples.append(expected.item())
    assert of_samples[0] != pytest.approx(of_samples[1], rel=1e-4)


def test_the_language_loss_equals_transformers_own():
    method = tiny.method("seqlora", "language")
    x, y = tiny.samples("language", 0).batch(torch.arange(12))
    own = method.loop._criterion(method.model(x), y)
    theirs = method.model.network(
        input_ids=x[:, 0],
        attention_mask=(x[:, 1] > 0).long(),
        position_ids=((x[:, 1] > 0).long().cumsum(1) - 1).clamp_min(0),
        labels=y,
    ).loss
    torch.testing.assert_close(own, theirs)


def test_a_compiled_network_learns_the_same_and_the_compiler_is_no_part_of_its_time(monkeypatch):
    """Without code generation, which takes minutes: the graphs are traced and run as they are."""
    _, plain, (report, _) = trained("seqlora", "vision", batch_size=5)
    assert "compile_seconds" not in report
    now = [0.0]

    def compile(graph, inputs):
        now[0] += 100
        return graph

    monkeypatch.setattr(compiler, "BACKEND", compile)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])  # nothing else takes time
    _, compiled, reports = trained("seqlora", "vision", batch_size=5, compile=True)
    for n, value in plain.items():
        torch.testing.assert_close(compiled[n], value, atol=1e-5, rtol=1e-4, msg=n)
    assert [r["compile_seconds"] > 0 for r in reports] == [True, False]
    assert {r[f"{part}_seconds"] for r in reports for part in ("train", "consolidate")} == {0}


def test_a_missing_compiler_is_one_sentence_before_training(monkeypatch):
    def broken(graph, inputs):
        raise FileNotFoundError("No working C++ compiler found\nin a long list")

    monkeypatch.setattr(compiler, "BACKEND", broken)
    with pytest.raises(compiler.NoCompiler, match="compile needs a C[+][+] compiler.*leave") as e:
        tiny.method("seqlora", "vision", shared={"compile": True})
    assert "No working C++ compiler" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (33, 17), (16, 16)])
def test_crops_and_flips_are_those_of_torchvision_sample_by_sample(height, width):
    """Its bilinear resizing with antialiasing, for crops that are enlarged and reduced."""
    x = torch.rand(64, 3, height, width, generator=torch.Generator().manual_seed(0))
    crop = CropFlip((12, 20), torch.Generator().manual_seed(1))
    boxes, flipped = CropFlip((12, 20), torch.Generator().manual_seed(1)).draw(64, height, width)
    for image, box, flip, made in zip(x, boxes.tolist(), flipped, crop(x), strict=True):
        bilinear = InterpolationMode.BILINEAR
        alone = tvf.resized_crop(image, *box, [12, 20], bilinear, antialias=True)
        alone = alone.flip(2) if flip else alone
        torch.testing.assert_close(made, alone, atol=1e-5, rtol=1e-4)
    assert 0 < flipped.sum() < 64


def test_crops_are_distributed_as_torchvision_draws_them():
    n, height, width = 4000, 40, 60
    boxes, _ = CropFlip((8, 8), torch.Generator().manual_seed(0)).draw(n, height, width)
    top, left, h, w = boxes.T
    assert ((top >= 0) & (left >= 0) & (top + h <= height) & (left + w <= width)).all()
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    draw = RandomResizedCrop.get_params
    theirs = torch.tensor([draw(image, augment.SCALE, augment.RATIO) for _ in range(n)])
    for own, other in zip(boxes.T.double(), theirs.T.double(), strict=True):
        gap = (own.mean() - other.mean()).abs() / (own.std() * (2 / n) ** 0.5)
        assert gap < 4 and own.std() == pytest.approx(other.std().item(), rel=0.06)


def test_an_image_that_no_crop_fits_keeps_its_middle():
    """All crops of a long image are too high or too wide, as far as they are large."""
    crop = CropFlip((8, 8), torch.Generator().manual_seed(0))
    boxes, _ = crop.draw(2000, 2, 400)
    whole = [0, (400 - 3) // 2, 2, 3]  # at most 4 / 3 of its height wide
    assert whole in boxes.tolist()


def test_only_the_loops_batches_are_augmented():
    """GEM's memory holds training samples as they are; with augmentation other steps are made."""
    memory, _, _ = trained("gem", "vision", augment="crop_flip")
    own = {x.numpy().tobytes() for x in tiny.samples("vision", 0).batch(torch.arange(12))[0]}
    assert {x.numpy().tobytes() for x in memory._gem.memory_x[0]} <= own
    first, second = (trained("seqlora", "vision", augment="crop_flip")[1] for _ in range(2))
    plain = trained("seqlora", "vision")[1]
    assert all(torch.equal(first[n], second[n]) for n in plain)
    assert not any(torch.equal(first[n], plain[n]) for n in plain)


def test_bfloat16_trains_float32_parameters_nearly_the_same():
    """Also in parts; its numbers are not those of float32."""
    _, full, (exact, _) = trained("seqlora", "vision")
    for parts in (None, 4):
        options = {"precision": "bfloat16", "micro_batch_size": parts}
        _, mixed, (report, _) = trained("seqlora", "vision", **options)
        assert all(p.dtype == torch.float32 for p in mixed.values())
        assert not any(torch.equal(mixed[n], full[n]) for n in full)
        assert report["last_loss"] == pytest.approx(exact["last_loss"], rel=0.05)
