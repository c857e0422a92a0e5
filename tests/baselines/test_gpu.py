"""What only a GPU shows of the methods; `make test` rehearses it without one."""

import warnings

import pytest
import torch

from baselines.common.task import Task
from benchmarks.streams.common.tasks import Samples
from tests import tiny
from treelora import TreeRegulariser

pytestmark = pytest.mark.gpu

N_SAMPLES = 8  # of a task, two steps: on a pretended GPU each takes long


def test_two_memories_do_not_mix():
    """On a pretended GPU as on a real one, or it would rehearse nothing."""
    here, there = torch.ones(2), torch.ones(2, device="cuda")
    row = torch.tensor([0])
    assert torch.equal((there[row] + torch.tensor(1)).cpu(), torch.tensor([2.0]))
    for mix in (lambda: here + there, lambda: here[row.to("cuda")]):
        with pytest.raises(RuntimeError):
            mix()
    with pytest.raises(TypeError):
        there.numpy()


def learnt(name, modality, n_tasks=1, device="cuda", **shared):
    """A method and the losses of its steps."""
    method = tiny.method(name, modality, shared={"device": device} | shared)
    losses = []
    for task in tiny.tasks(modality, n_tasks, epochs=1, n_samples=N_SAMPLES):
        torch.manual_seed(task.index)
        method.learn(task, lambda loss, n: losses.append(loss.item()))
    return method, losses


@torch.no_grad()
def outputs(method, modality):
    """On the GPU."""
    x, _ = tiny.samples(modality, 0).batch(torch.arange(12))
    return method.model.eval()(x.to("cuda"))


@pytest.mark.parametrize("case", tiny.pairs(), ids="-".join)
def test_a_method_learns_on_the_gpu_and_is_continued_there(case, tmp_path):
    """Its first step is that of the CPU, but for TF32 in the patches' convolution; later ones may
    draw from the GPU's own generator."""
    name, modality = case
    method, losses = learnt(name, modality)
    assert losses[:1] == pytest.approx(learnt(name, modality, device="cpu")[1][:1], rel=1e-2)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    fresh = tiny.method(name, modality, shared={"device": "cuda"})
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", "cuda", weights_only=True))
    before, after = outputs(method, modality), outputs(fresh, modality)
    assert before.is_cuda and before.isfinite().all()
    torch.testing.assert_close(before, after)
    fresh.learn(tiny.tasks(modality, 2, epochs=1, n_samples=N_SAMPLES)[1])
    if modality == "language":
        prompts = tiny.samples(modality, 0).x[:, :, :-2].to("cuda")
        assert 1 <= fresh.model.eval().generate(prompts, 3).shape[1] <= 3


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_the_samples_of_a_task_lie_on_the_gpu_where_they_fit(modality, monkeypatch):
    def lies_there():
        method = tiny.method("seqlora", modality, shared={"device": "cuda"})
        places = []
        (task,) = tiny.tasks(modality, 1, epochs=1, n_samples=N_SAMPLES)
        method.learn(task, lambda *step: places.append(method.loop.dataloader.dataset.x.is_cuda))
        return places[0]

    assert lies_there()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 2**34))
    assert not lies_there()


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_bfloat16_is_computed_and_float32_is_trained(modality):
    (_, full), (method, mixed) = (
        learnt("seqlora", modality, precision=precision) for precision in ("float32", "bfloat16")
    )
    assert mixed != full and mixed == pytest.approx(full, rel=0.05)
    assert {p.dtype for p in method.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_micro_batches_make_the_same_steps(modality):
    (_, whole), (_, parts) = (
        learnt("treelora", modality, 2, micro_batch_size=size) for size in (None, 3)
    )
    assert parts == pytest.approx(whole, rel=1e-2)


def test_activations_that_are_computed_again_make_the_same_steps(monkeypatch):
    def losses():
        return learnt("seqlora", "language")[1]

    whole, network = losses(), tiny.network

    def saving(*arguments):
        made = network(*arguments)
        made.save_memory()
        return made

    monkeypatch.setattr(tiny, "network", saving)
    assert losses() == pytest.approx(whole, rel=1e-4)


def waits(name, modality):
    """How often the CPU waits for the GPU in 42 steps more."""
    method, _ = learnt(name, modality)
    found = []
    for index, many in ((1, 14), (2, 28)):  # 42 and 84 steps
        data = tiny.samples(modality, index)
        data = Samples(*(torch.cat([part] * many) for part in (data.x, data.y)))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                method.learn(Task(index, "long", data, 1))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found.append(sum("synchroniz" in str(warning.message) for warning in caught))
    return found[1] - found[0]


@pytest.mark.parametrize("modality", tiny.MODALITIES)
def test_no_step_waits_for_the_gpu(modality, gpu):
    """The loss is looked at about twenty times in a task, however long that is. On text each step
    waits for the length of the longest answer and for what transformers asks of the mask."""
    if gpu is not None:
        pytest.skip("a pretended GPU is never waited for")
    some = {name: waits(name, modality) for name in ("seqlora", "treelora", "olora")}
    per_step = 42 * round(some["seqlora"] / 42) if modality == "language" else 0
    assert all(abs(n - per_step) <= 10 for n in some.values()), some


def test_a_compiled_network_learns_the_same(gpu):
    if gpu is not None:
        pytest.skip("there is nothing to compile for on a pretended GPU")
    (_, plain), (_, compiled) = (
        learnt("seqlora", "vision", compile=option) for option in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-2)


def test_answers_are_those_of_the_cpu_and_drawn_ones_leave_other_draws_alone():
    prompts = tiny.samples("language", 0).x[:, :, :-2]
    model = tiny.network("language")
    greedy = model.generate(prompts, 6)
    model.to("cuda")
    assert torch.equal(model.generate(prompts.to("cuda"), 6).cpu(), greedy)
    model.decoding = "released"
    model.network.get_output_embeddings().weight.data.mul_(0.01)  # so that the draw decides
    torch.manual_seed(5)
    expected = [torch.rand(3, device=device).tolist() for device in ("cpu", "cuda")]
    torch.manual_seed(5)
    first, second = (model.generate(prompts.to("cuda"), 6).cpu() for _ in range(2))
    assert [torch.rand(3, device=device).tolist() for device in ("cpu", "cuda")] == expected
    assert torch.equal(first, second) and not torch.equal(first, greedy)


@pytest.mark.parametrize("store_on", [None, "cpu"])
def test_signatures_are_kept_on_the_gpu_or_beside_it(store_on):
    model = tiny.Adapters(3, 4).to("cuda")
    tree = TreeRegulariser(model, store_on=store_on)
    rows = torch.arange(24.0, device="cuda").reshape(2, 12)
    tree.load_state_dict({"signatures": rows, "members": [[0], [1]]})
    tree.start_task()
    model.fill(torch.ones(3, 4, device="cuda"))
    tree.penalty(torch.ones((), device="cuda")).backward()
    assert model.gradient().is_cuda and model.gradient().abs().sum() > 0
    tree.end_task()
    assert len(tree.signatures) == 3
    assert tree.signatures.device.type == (store_on or model.gradient().device.type)
