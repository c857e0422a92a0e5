"""FIX: in-context learning with a frozen language model, the comparison without any training.

Wang et al., "TRACE: A Comprehensive Benchmark for Continual Learning in Large Language Models"
(arXiv 2310.06762), where it is called ICL. A prompt is answered by the model as it is, behind
`shots` training items of the task:

    instruction, "Examples:", items each with its answer, the prompt without the instruction.

The instruction is what all training prompts of the task begin with, cut back to the end of a line,
without a last line that is the label of what follows ("Text:"), so that each item shows it.
Items are drawn anew for each task from the run's seed, the answer used least first, so that labels
are balanced. One takes at most its share of `shot_tokens`; where there are fewer such items than
wanted, the shortest others follow while they fit.

A model that imitates the examples goes on after its answer with the next one. An output ends before

    a blank line, which separates the items; the label that all items begin with ("Text:"); the end
    of its first line; and "<EOL>", the line end of Py150's programs;

of these what no training answer of the task contains. Where each training answer is one token, it
ends after its first token.

The task of a prompt is inferred, as for all methods here: by nearest mean of hashed word counts
among the tasks so far (`common.word_router`). Before the first task a prompt stands alone.

Departures:
1. TRACE's evaluation knows the task;
2. TRACE's released code draws the items from the test set, some queries among them, and what is too
   long for its limit leaves a task with one item or none. Here they are training items only;
3. tasks are treated alike: TRACE gives summaries of meetings no items, and code a line of its own
   that says what to do;
4. items are left out, the last first, where prompt and items pass 7/8 of the context together;
5. TRACE cuts outputs by the task's name: after one token (C-STANCE, FOMC), after a line (NumGLUE),
   before "<EOL>" (Py150) or the next item's label (the others). The rule above finds the same cuts
   in the training items, and cuts one-line answers of the others after a line.

Checked against an independent reference over three tasks (`tests/references`); no public code was
run beside it.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.common import checks
from baselines.common.base import Method, Needs
from baselines.common.task import Task
from baselines.common.text import pad_left
from baselines.common.word_router import WordRouter

HEADER = "The following examples show how to answer.\nExamples:\n\n"
SEPARATOR = "\n\n"  # after each item
CONTEXT = 4096  # tokens that are used of a longer context, as in TRACE
WINDOW = 32  # tokens that a stop may have


def context_of(backbone: nn.Module) -> int:
    """Tokens of a language model's context that are used."""
    return min(CONTEXT, backbone.network.config.max_position_embeddings)


def instruction_of(prompts: Sequence[str]) -> str:
    """The lines that all prompts begin with, but for a label at the end."""
    common = os.path.commonprefix(list(prompts))
    lines = common[: common.rfind("\n") + 1].splitlines(keepends=True)
    labelled = bool(lines) and lines[-1].rstrip().endswith((":", "\uff1a"))
    return "".join(lines[:-1] if labelled else lines)


def ids_of(instruction: str, prompt: str, tokenizer: Any) -> list[int]:
    """The instruction's ids as they stand in a prompt that begins with it.

    Alone its last white space may be another token than before a word.
    """
    whole = tokenizer.encode(prompt)
    for n in range(len(whole) + 1):
        begun = tokenizer.decode(whole[:n])
        if begun == instruction:
            return whole[:n]
        if len(begun) > len(instruction):
            break
    return tokenizer.encode(instruction)


def stops_of(items: Sequence[str], answers: Sequence[str]) -> list[str]:
    """What an output ends before: of items without their instruction, see above."""
    label = re.match("[^\n]*?[:\uff1a]", os.path.commonprefix(list(items)))
    stops = [SEPARATOR, "\n", "<EOL>", *([label[0]] if label else [])]
    return [stop for stop in stops if not any(stop in answer.strip() for answer in answers)]


def choose(
    sizes: Sequence[int], answers: Sequence[str], shots: int, budget: int, draw: random.Random
) -> list[int]:
    """Positions of at most `shots` items of so many tokens that fit into `budget` together."""
    share = budget // shots
    order = draw.sample(range(len(sizes)), len(sizes))
    order.sort(key=lambda i: max(sizes[i], share))  # those within their share stay as drawn
    chosen: list[int] = []
    used: Counter = Counter()
    while len(chosen) < shots:
        fitting = [i for i in order if i not in chosen and sizes[i] <= budget]
        if not fitting:
            break
        best = min(fitting, key=lambda i: (sizes[i] > share, used[answers[i]]))
        chosen.append(best)
        used[answers[best]] += 1
        budget -= sizes[best]
    return chosen


def insert(ids: list[int], instruction: list[int], shots: list[int], n_begin: int) -> list[int]:
    """Shots behind the instruction in a prompt, or behind its first `n_begin` ids.

    An instruction that is not there, left out of a long prompt, comes back.
    """
    tail = instruction[1:]  # the first id may depend on what stands before
    for start in range(len(ids) - len(tail) + 1) if tail else ():
        if ids[start : start + len(tail)] == tail:
            end = start + len(tail)
            return ids[:end] + shots + ids[end:]
    return ids[:n_begin] + instruction + shots + ids[n_begin:]


class _InContext(nn.Module):
    """A frozen language model that sees examples of the task it infers before each prompt.

    Attributes:
        instructions: of each task, ids.
        shots: of each task, ids of each item with its answer.
        stops: of each task, what an output ends before.
        one_token: of each task, whether its answers are one token each.
        inferred: (B,) the task of each row of the last pass.
    """

    def __init__(self, backbone: nn.Module, tokenizer: Any, limit: int):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.tokenizer = tokenizer
        self.limit = limit
        self.header = tokenizer.continuation(HEADER)
        self.router = WordRouter()
        self.instructions: list[list[int]] = []
        self.shots: list[list[list[int]]] = []
        self.stops: list[list[str]] = []
        self.one_token: list[bool] = []
        self.inferred = None

    def prompt(self, ids: list[int], task: int) -> list[int]:
        """The prompt's ids with as many of the task's examples as fit."""
        n_begin = int(ids[:1] == [self.tokenizer.begin])
        for n_shots in range(len(self.shots[task]), 0, -1):
            shots = sum(self.shots[task][:n_shots], self.header)
            whole = insert(ids, self.instructions[task], shots, n_begin)
            if len(whole) <= self.limit:
                return whole
        return ids

    def extend(self, x: Tensor) -> Tensor:
        """x (B, 2, L) -> the same with examples, (B, 2, longer)."""
        prompts = [ids[mask == 1].tolist() for ids, mask in x]
        answers = [ids[mask == 2].tolist() for ids, mask in x]
        self.inferred = x.new_zeros(len(x))
        if self.shots:
            found = self.router.route([self.tokenizer.decode(ids) for ids in prompts])
            self.inferred = torch.as_tensor(found, device=x.device)
            prompts = [self.prompt(*pair) for pair in zip(prompts, found, strict=True)]
        pairs = zip(prompts, answers, strict=True)
        return pad_left([(ids + answer, len(answer)) for ids, answer in pairs])[0].to(x.device)

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(self.extend(x))

    def answer(self, ids: list[int], task: int) -> tuple[list[int], bool]:
        """Of an output's ids those before what ends it, and whether anything did."""
        decode, end = self.tokenizer.decode, self.tokenizer.end
        ended = end in ids
        ids = ids[: ids.index(end)] if ended else ids
        if self.one_token[task]:
            blank = next((n for n in range(len(ids)) if decode(ids[: n + 1]).strip()), len(ids))
            ended, ids = ended or len(ids) > blank, ids[: blank + 1]
        text = decode(ids)
        start = len(text) - len(text.lstrip())  # white space before an answer ends nothing
        found = [at for stop in self.stops[task] if (at := text.find(stop, start)) >= 0]
        if not found:
            return ids, ended
        kept = text[: min(found)]
        n = next(n for n in range(len(ids), -1, -1) if kept.startswith(decode(ids[:n])))
        rest = kept[len(decode(ids[:n])) :]  # of a token that goes on beyond the cut
        return ids[:n] + (self.tokenizer.continuation(rest) if rest else []), True

    def generate(self, x: Tensor, max_new_tokens: int) -> Tensor:
        x = self.extend(x)
        if not self.shots:
            return self.backbone.generate(x, max_new_tokens)
        tasks = self.inferred.tolist()

        def ended(new: Tensor) -> Tensor:
            rows = zip(new[:, -WINDOW:].tolist(), tasks, strict=True)
            return torch.tensor([self.answer(*row)[1] for row in rows], device=new.device)

        new = self.backbone.generate(x, max_new_tokens, ended).tolist()
        answers = [self.answer(*row)[0] for row in zip(new, tasks, strict=True)]
        length, end = max(map(len, answers)), self.tokenizer.end
        return torch.tensor([ids + [end] * (length - len(ids)) for ids in answers]).to(x)


class FIX(Method):
    """The frozen model behind a few examples of the inferred task."""

    version = 3  # 2 repeated an instruction whose last white space is part of another token
    stages = 0
    skips = {"vision": "images cannot be put into a prompt as examples"}

    @dataclass(frozen=True)
    class Config(Method.Config):
        """Settings of the examples.

        Attributes:
            shots: examples before a prompt, if they fit.
            shot_tokens: of all examples together, None for 7/16 of the context: 1,792 of the 4,096
                that are used of a longer one.
        """

        shots: int = 6
        shot_tokens: int | None = None

        def __post_init__(self):
            checks.at_least_1(self, "shots", "shot_tokens")

    @classmethod
    def needs(cls, config, needs: Needs) -> Needs:
        """Nothing is trained; a prompt with its examples fills the context."""
        longest = max(needs.prompt_tokens, context_of(needs.backbone) * 7 // 8)
        return dataclasses.replace(needs, samples=0, prompt_tokens=longest)

    def adapt(self, backbone: nn.Module) -> nn.Module:
        context = context_of(backbone)
        self._budget = self.config.shot_tokens or context * 7 // 16
        return _InContext(backbone, self.setting.tokenizer, context * 7 // 8)

    def learn(self, task: Task, report: Callable[[Tensor, int], None] | None = None) -> dict:
        start = time.perf_counter()
        model, tokenizer = self.model, self.setting.tokenizer
        if not task.examples:
            raise ValueError(
                f"fix shows training items as text, but task {task.name} has none: prepare its "
                "stream anew"
            )
        prompts = [prompt for prompt, _ in task.examples]
        instruction = instruction_of(prompts)
        items = dict(task.examples)  # a prompt once
        asked = [prompt[len(instruction) :] for prompt in items]
        pairs = zip(asked, items.values(), strict=True)
        ids = [tokenizer.continuation(f"{item}{answer}{SEPARATOR}") for item, answer in pairs]
        draw = random.Random(f"{self.setting.seed} {task.index}")
        sizes, answers = [len(i) for i in ids], list(items.values())
        chosen = choose(sizes, answers, self.config.shots, self._budget, draw)
        model.router.add(prompts)
        model.instructions.append(ids_of(instruction, prompts[0], tokenizer))
        model.shots.append([ids[i] for i in chosen])
        model.stops.append(stops_of(asked, answers))
        model.one_token.append(
            all(len(tokenizer.continuation(answer.strip())) == 1 for answer in set(answers))
        )
        return {
            "steps": 0,
            "samples": len(task.train),
            "last_loss": None,
            "train_seconds": 0.0,
            "consolidate_seconds": time.perf_counter() - start,
        }

    def state_dict(self) -> dict:
        model = self.model
        return super().state_dict() | {
            "router": [torch.from_numpy(mean) for mean in model.router.means],
            "instructions": [torch.tensor(ids) for ids in model.instructions],
            "shots": [[torch.tensor(ids) for ids in shots] for shots in model.shots],
            "stops": model.stops,
            "one_token": model.one_token,
        }

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self.model.router.means = [mean.cpu().numpy() for mean in state["router"]]
        self.model.instructions = [ids.tolist() for ids in state["instructions"]]
        self.model.shots = [[ids.tolist() for ids in shots] for shots in state["shots"]]
        self.model.stops = [list(stops) for stops in state["stops"]]
        self.model.one_token = list(state["one_token"])

    def diagnostics(self) -> dict:
        """Of each task, how many examples fit, and the tokens of each."""
        tokens = [[len(ids) for ids in shots] for shots in self.model.shots]
        return {"shots": [len(shots) for shots in tokens], "shot_tokens": tokens}
