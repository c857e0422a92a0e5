"""The similarity penalty of equation 3, with the tree and the search that choose its target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from treelora.options import Options
from treelora.search import RandomSearch, Search, SoftmaxSearch, TreeSearch, draw, flat
from treelora.signature import Layout, adapted_parameters
from treelora.tree import Node, build_tree


class TreeRegulariser:
    """Ties the current adapter to that of a similar finished task.

    Use it in any training loop: `start_task()`, then `loss + penalty(loss)` at every step, and
    `end_task()` when the task is learnt. With the defaults the penalty is

        l_reg = strength * ||g - g_k||_1        (equation 3)

    with g the current signature and, in each adapted matrix, k the task the search chose; what else
    there is to choose, `Options` says. Whatever the number of tasks, a step reads one row of the
    stored signatures per matrix; only the search's statistics, a number or two for each task and
    matrix, grow with it.

    Args:
        model: has LoRA adapters under PEFT's names; those trainable now are trained on throughout.
        options: the choices; None for the defaults.
        seed: of the searches that draw.
        store_on: a device for the stored signatures other than the model's, such as "cpu" to keep
            them out of a GPU's memory. The chosen rows are copied at every step, which waits for
            the search.

    Attributes:
        signatures: (N, L, D), one stack per stored task, padded with zeros (see `Layout`).
        adapters: the penalty's targets; the same tensor unless the signature is `gradient`.
        members: the tasks behind each of the N; more than one where adapters were merged.
        tree: over the N; None while there is no finished task.
        estimate: the current task's signature so far, (L, D); None before there is any.
    """

    def __init__(
        self,
        model: nn.Module,
        options: Options | None = None,
        seed: int = 0,
        store_on: torch.device | str | None = None,
    ):
        self.options = options = options or Options()
        self.seed = seed
        self.layout = Layout(adapted_parameters(model, options.factors), options.depth)
        self.signatures = torch.empty(0, *self.layout.shape)
        self.adapters = self.signatures
        self.members: list[list[int]] = []
        self.tree: Node | None = None
        self.estimate: Tensor | None = None
        self._store_on = store_on
        self._search: Search | None = None
        self._step: int | None = None  # of the task; None between tasks
        self._hook = None

    def start_task(self, steps_per_epoch: int | None = None) -> None:
        """Forget the previous task's search.

        Raises:
            ValueError: the options ask for the number of steps in an epoch and it is not given.
            RuntimeError: the adapters that are guided are frozen.
        """
        if self.options.needs_epochs and not steps_per_epoch:
            raise ValueError(
                "these options depend on epochs: call start_task(steps_per_epoch=...), "
                f"which was {steps_per_epoch}"
            )
        if not any(parameter.requires_grad for parameter in self.layout.parameters):
            raise RuntimeError(
                "the adapters that TreeLoRA was given are frozen, so that nothing would be guided: "
                "train these through all tasks, or make a TreeRegulariser for those that are"
            )
        self._forget_task()
        self._steps_per_epoch = steps_per_epoch
        self._step = 0
        self._factor: Tensor | None = None  # of the penalty, where it is constant
        self._arms = [list(tasks) for tasks in self.members]
        device = self.layout.parameters[0].device
        self._lengths = self.layout.lengths.to(device)
        self._generator = torch.Generator(device)
        self._generator.manual_seed(1_000_003 * self.seed + sum(map(len, self.members)))
        self._restart()
        self._levels = torch.arange(self.layout.shape[0], device=self.signatures.device)
        if self.options.signature == "gradient":
            self._hook = register_multi_grad_hook(self.layout.parameters, self._add_gradient)

    def _forget_task(self) -> None:
        """Leave the task under way, if there is one, as also an interrupted one has hooks."""
        self._step = None
        if self._hook:
            self._hook.remove()
            self._hook = None

    def _restart(self) -> None:
        self.estimate, self._n_gradients, self._own_gradient = None, 0, None
        self._search = self._make_search() if self.tree else None

    def _make_search(self) -> Search | None:
        n_arms, (n_levels, _) = len(self.signatures), self.layout.shape
        device = self._lengths.device
        entries = self._lengths if self.options.residual_scale == "sum" else None
        match self.options.search:
            case "lcb":
                return TreeSearch(self.tree, n_levels, device, entries)
            case "lcb_flat":
                return TreeSearch(flat(n_arms), n_levels, device, entries)
            case "random":
                return RandomSearch(n_arms, n_levels, device, self._generator)
            case "softmax":
                return SoftmaxSearch(
                    self.tree,
                    n_levels,
                    self._steps_per_epoch,
                    self.options.distance_sign == "far",
                    self.options.branch_weight,
                    partial(draw, generator=self._generator),
                    device,
                )
            case "none":
                return None

    def penalty(self, loss: Tensor) -> Tensor | float:
        """The penalty of this step; one search, one observation.

        0 while there is no other task, and before a `gradient` was seen since the (re)start.

        Raises:
            RuntimeError: no task was started.
        """
        if self._step is None:
            raise RuntimeError("penalty() came before start_task(), which begins each task")
        if self.options.restart == "epoch" and self._step % self._steps_per_epoch == 0:
            self._restart()
        current = self.layout.read()
        if self.options.signature == "adapter":
            self._estimate_from(current.detach())
        strength = self._strength()
        self._step += 1
        if self._search is None or self.estimate is None:
            return 0.0
        chosen = self._search.choose()
        target = self._rows(self.adapters, chosen)
        if self.options.similarity == "l1":
            value = distance = (current - target).abs().sum(dim=1)  # (L,)
        else:
            value, distance = -(current * target).sum(dim=1), None
        if distance is None or self.options.signature == "gradient" or self.options.average:
            seen = self._rows(self.signatures, chosen)
            distance = (self.estimate - seen).abs().sum(dim=1)
        residual = distance.detach()
        self._search.observe(
            chosen, residual / self._lengths if self._search.per_entry else residual
        )
        if self._hook:
            current.register_hook(self._set_aside)
        return strength * self._scaled(value, loss.detach())

    def _estimate_from(self, current: Tensor) -> None:
        if not self.options.average:
            self.estimate = current
            return
        many = self.layout.shape[0] if self.options.accumulator_factor == "levels" else 1
        start = torch.zeros_like(current) if self.estimate is None else self.estimate
        self.estimate = start + (many / self._steps_per_epoch) * current

    def _strength(self) -> float:
        if self.options.schedule == "constant":
            return self.options.strength
        done = self._step % self._steps_per_epoch / self._steps_per_epoch
        return self.options.strength * done

    def _scaled(self, value: Tensor, loss: Tensor) -> Tensor:
        """Distances, or negative products, per matrix (L,), as one number to be lowered."""
        value = self._measured(value)
        match self.options.penalty_scale:
            case "mean" | "sum":
                return value
            case "loss":
                scaled = value / (value.detach().abs() + 1e-5) * loss
            case "constant":
                if self._factor is None:
                    self._factor = loss / (self._measured(self._sizes()) + 1e-5)
                scaled = value * self._factor
            case "signed_loss":
                scaled = value / (value.detach() + 1e-5) * loss
                scaled = scaled if self.options.similarity == "l1" else -scaled
        return scaled.sum() if self.options.layerwise else scaled

    def _measured(self, value: Tensor) -> Tensor:
        """Values per matrix (L,) in the unit that is rescaled: of each, or of all together."""
        scale = self.options.penalty_scale
        if scale == "mean" or (self.options.similarity == "l1" and scale != "sum"):
            value = value / self._lengths
        return value if self.options.layerwise else value.sum()

    def _sizes(self) -> Tensor:
        """What the stored adapters are in the measure of the penalty, (L,), in the mean."""
        power = 1 if self.options.similarity == "l1" else 2
        rows = [row.abs().pow(power).sum(dim=1) for row in self.adapters]  # whole, they copy all
        return torch.stack(rows).mean(dim=0).to(self._lengths.device)

    def _rows(self, store: Tensor, chosen: Tensor) -> Tensor:
        """The chosen row of each matrix, (L, D)."""
        rows = store[chosen.to(store.device), self._levels]
        return rows.to(chosen.device, non_blocking=True)

    # The signature `gradient`: one hook sees what a backward pass has added up for the adapters,
    # another how much of that is the penalty's.

    def _set_aside(self, gradient: Tensor) -> None:
        self._own_gradient = gradient

    def _add_gradient(self, gradients: Sequence[Tensor | None]) -> None:
        pairs = zip(gradients, self.layout.parameters, strict=True)
        gradient = _wide(
            self.layout.stack([torch.zeros_like(p) if g is None else g for g, p in pairs])
        )
        if self._own_gradient is not None:
            gradient, self._own_gradient = gradient - self._own_gradient, None
        self._n_gradients += 1
        before = torch.zeros_like(gradient) if self.estimate is None else self.estimate
        self.estimate = before + (gradient - before) / self._n_gradients

    def end_task(self) -> None:
        """Store the finished task's signature, merge beyond the budget, and grow the tree anew.

        Raises:
            RuntimeError: no task was started, or the signature is made during training and no step
                was made.
            ValueError: the signature is not finite.
        """
        if self._step is None:
            raise RuntimeError("end_task() came before start_task(), which begins each task")
        adapter = self.layout.read().detach()
        made_in_steps = self.options.average or self.options.signature == "gradient"
        signature = self.estimate if made_in_steps else adapter
        if signature is None:
            raise RuntimeError("end_task() came before any step of the task: there is no signature")
        if not signature.isfinite().all():
            raise ValueError("the task's signature is not finite: lower the learning rate")
        self._forget_task()
        shared = self.options.signature == "adapter"
        self.signatures = self._append(self.signatures, signature)
        self.adapters = self.signatures if shared else self._append(self.adapters, adapter)
        self.members.append([sum(map(len, self.members))])
        while self.options.budget and len(self.members) > self.options.budget:
            self._merge_closest()
        self._grow()

    def _append(self, store: Tensor, row: Tensor) -> Tensor:
        row = row[None].to(self._store_on or row.device)
        return torch.cat([store.to(row), row])

    def _restored(self, rows: Tensor) -> Tensor:
        return self.layout.pad(rows.to(self._store_on or self.layout.parameters[0].device))

    def _merge_closest(self) -> None:
        """Replace the two closest adapters (L1 over all that counts) by their weighted mean."""
        rows = _wide(self.adapters.flatten(1))
        distance = torch.cdist(rows, rows, p=1).fill_diagonal_(torch.inf)
        first, second = sorted(divmod(int(distance.argmin()), len(rows)))
        weights = [len(self.members[i]) for i in (first, second)]

        def merged(store: Tensor) -> Tensor:
            store = store.clone()
            store[first] = (weights[0] * store[first] + weights[1] * store[second]) / sum(weights)
            return torch.cat([store[:second], store[second + 1 :]])

        shared = self.adapters is self.signatures
        self.signatures = merged(self.signatures)
        self.adapters = self.signatures if shared else merged(self.adapters)
        self.members[first] = sorted(self.members[first] + self.members.pop(second))

    def _grow(self) -> None:
        rows = self.signatures.cpu()
        if self.options.differences:
            rows = torch.cat([rows[:1], rows.diff(dim=0)])
        self.tree = build_tree(rows, self.layout.lengths, self.options.similarity)

    def pulls(self) -> list[list[int]]:
        """How often the last task's search chose each task finished before it, [task][matrix].

        It counts from the last (re)start; tasks whose adapters were merged share their pulls.
        """
        if self._search is None:
            return []
        by_row = self._search.pulls.long().tolist()
        rows = {
            task: pulls for pulls, tasks in zip(by_row, self._arms, strict=True) for task in tasks
        }
        return [rows[task] for task in sorted(rows)]

    def state_dict(self) -> dict:
        """Signatures without padding, (N, P), and the tasks behind them.

        Of a task under way there is nothing in it: its search starts anew.
        """
        members = [list(tasks) for tasks in self.members]
        state = {"signatures": self.layout.flat(self.signatures), "members": members}
        if self.adapters is not self.signatures:
            state["adapters"] = self.layout.flat(self.adapters)
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned, between tasks.

        Raises:
            ValueError: the signature of the state is another one.
        """
        if state["members"] and ("adapters" in state) != (self.options.signature == "gradient"):
            raise ValueError(
                f"this state is not of the signature {self.options.signature}: load it with the "
                "options that made it"
            )
        self._forget_task()
        self.signatures = self._restored(state["signatures"])
        shared = "adapters" not in state
        self.adapters = self.signatures if shared else self._restored(state["adapters"])
        self.members = [list(tasks) for tasks in state["members"]]
        self.tree = None
        if self.members:
            self._grow()


def _wide(values: Tensor) -> Tensor:
    """At least in single precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
