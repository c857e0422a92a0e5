"""The paper's claims as data: what each says, what tests it, and what these results say of it.

`CLAIMS` is the list. A test gets a panel and returns effects, none where the panel has not the
runs; `RULE` says how they make a verdict. A claim with `data` is tested on what another computation
found instead: its test gets that and returns effects by where they were measured; `gather` says
where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import exp, inf, isnan, log, nan

import numpy as np
import pandas as pd

from analysis import reported
from analysis.effects import NOT_SUPPORTED, OUTCOMES, SUPPORTED, UNDECIDED, Effect
from analysis.language import standard_error
from analysis.metrics import Estimate
from analysis.records import EXPERIMENTS
from analysis.reported import span, two_digits
from analysis.runs import Panel, Suite
from analysis.table import Column, Table
from analysis.table import csv as to_csv
from analysis.trees import agreement
from analysis.variants import counterparts, difference, interval, settings, sweep

RULE = (
    "An effect is a mean over seeds, paired by seed, with its 95 % t interval. Supported: the "
    "interval lies where the claim holds. Not supported: it lies where the claim fails. Not "
    "testable: it reaches into both (undecided; how many seeds would tell assumes that mean and "
    "spread stay as they are), or runs are missing. A claim about several effects needs all of "
    "them; the least favourable is shown, and intervals are not widened for their number.",
    "Margins are the paper's own. At par: its largest shortfall, against the contenders of its "
    "own table (1 on vision, 3 on language). Robust: the wider spread of its Table 6. Few epochs:"
    " what more gain in its Table 2. Constant cost: the largest relative deviation of TIME that "
    "it prints. A speed-up must be nearer to the paper's factor than to 1, in logarithms; time "
    "per step includes consolidation. Noise of the test items: 1.96 binomial standard errors "
    "against the paper's smallest lead or shortfall; what lies between counting only tasks whose "
    "items score 0 or 1 and counting all is its interval.",
    "What stands beside an effect does not decide. At par: the best of the methods that the "
    "paper's table lacks. Forgetting: what was not learnt cannot be forgotten, so the difference "
    "in learning. Search: where training is as short as here, the bonus outweighs what the bandit"
    " could learn and it pulls nearly in turn, so that a missing difference says little.",
)
NOT_TESTABLE = "not testable"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, NOT_TESTABLE)
Effects = list[Effect]
FORMS = ("hidetreelora", "treelora")  # inside HiDe's decomposition, as the paper has it on vision


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims.

    Attributes:
        id: its short name.
        says: the paper's statement in our words.
        where: the exhibits that carry it.
        paper: the paper's own effect as text, by modality ("vision" or "language").
        test: see the module.
        needs: what makes it testable.
        modality: the only one that it is about, or "" for both.
        data: the name of the findings that it is tested on instead of panels.
    """

    id: str
    says: str
    where: str
    paper: Callable[[str], str]
    test: Callable
    needs: str
    modality: str = ""
    data: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the results say of a claim in one place; no `effects` where nothing tests it."""

    claim: Claim
    place: str
    paper: str
    effects: tuple[Effect, ...] = ()

    @property
    def judged(self) -> list[Effect]:
        """The effects that the claim is about."""
        return [effect for effect in self.effects if not effect.beside]

    @property
    def effect(self) -> Effect | None:
        """The least favourable one, which decides."""
        order = sorted(self.judged, key=lambda e: (OUTCOMES.index(e.outcome), e.slack))
        return order[0] if order else None

    @property
    def beside(self) -> str:
        """What stands beside it and decides nothing: the lowest, and of what."""
        others = [e for e in self.effects if e.beside and not isnan(e.estimate.mean)]
        if not others:
            return ""
        least = min(others, key=lambda e: e.estimate.mean)
        return f"{least.text()} ({least.what})"

    @property
    def word(self) -> str:
        """One of `VERDICTS`."""
        outcome = self.effect.outcome if self.effect else UNDECIDED
        return NOT_TESTABLE if outcome == UNDECIDED else outcome

    @property
    def would_test(self) -> str:
        """For a claim that is not testable: what would test it."""
        if self.word != NOT_TESTABLE:
            return ""
        if not self.effect:
            return f"needs {self.claim.needs}"
        if isnan(self.effect.estimate.mean):
            return f"undecided: no seed has all of {self.effect.what}"
        if isnan(self.effect.estimate.low):
            return "undecided: one seed gives no interval, more would"
        seeds = self.effect.seeds_needed if self.effect.n else "more"
        return f"undecided: {seeds} seeds would tell"


# ---- tests --------------------------------------------------------------------------------------


def _present(panel: Panel, *labels: str) -> bool:
    return all(label in panel.finished for label in labels)


def _difference(
    panel: Panel, label: str, other: str, region: tuple[float, float] = (0.0, inf), metric="acc"
) -> Effect:
    values = difference(panel, metric, label, other)
    return Effect(f"{label} − {other}", interval(values), len(values), region)


def _form(panel: Panel, key: str | None = None) -> str:
    """TreeLoRA in the paper's form if that was run, or in the form whose `key` was varied."""
    for form in FORMS:
        if _present(panel, form) and (key is None or len(sweep(panel, form, key)) > 1):
            return form
    return "treelora"


def accuracy(panel: Panel) -> Effects:
    """TreeLoRA's final score minus each contender's of the paper's own table for such streams.

    Beside these, minus that of every other method.
    """
    region = (min(0.0, reported.lead(panel.modality).min() / 100), inf)
    names = {label: runs["name"].iloc[0] for label, runs in panel.finished.items()}
    rivals = [
        label
        for label, name in names.items()
        # a method itself, not a variant of it
        if not label.startswith(f"{name}-") and name not in FORMS
        if not panel.is_upper_bound(label)
    ]
    table = reported.main_table(panel.modality, "acc").columns
    contenders = [label for label in rivals if label == names[label] and label in table]
    others = [label for label in rivals if names[label] not in table]
    ours = _form(panel)
    if not _present(panel, ours) or len(contenders) < 3:
        return []
    effects = [_difference(panel, ours, label, region) for label in contenders + others]
    return effects[: len(contenders)] + [
        replace(effect, what=f"{effect.what}, not in the paper's table", beside=True)
        for effect in effects[len(contenders) :]
    ]


def forgetting(panel: Panel) -> Effects:
    """BWT of SeqLoRA minus TreeLoRA's; beside it, how much more or less TreeLoRA learns at all."""
    ours = _form(panel)
    if not _present(panel, ours, "seqlora"):
        return []
    learnt = _difference(panel, ours, "seqlora", metric="learning_accuracy")
    return [
        _difference(panel, "seqlora", ours, metric="bwt_paper"),
        replace(learnt, what=f"{learnt.what}, right after learning", beside=True),
    ]


def _speed_up(panel: Panel, other: str, paper: float, ours: str = "treelora") -> Effect:
    """TIME of another method over TreeLoRA's = time per step x number of steps, by seed."""
    compared = panel.values.index.get_level_values("method").isin([other, ours])
    values = np.log(panel.values.loc[compared, ["time_seconds", "steps"]])
    values["per_step"] = values["time_seconds"] - values["steps"]
    ratios = values.xs(other).sub(values.xs(ours)).dropna()

    def effect(key: str, what: str, parts: tuple[Effect, ...] = ()) -> Effect:
        region = (log(paper) / 2, inf)
        return Effect(what, interval(ratios[key]), len(ratios), region, "times", parts)

    parts = (effect("per_step", "time per step"), effect("steps", "steps"))
    return effect("time_seconds", f"TIME of {other} / {ours}", parts)


def _equal_epochs(panel: Panel, other: str) -> tuple[str, str] | None:
    """TreeLoRA and another method with the same epochs, TreeLoRA's own where both have these."""
    ours, theirs = (sweep(panel, name, "epochs") for name in ("treelora", other))
    return next(((ours[n], theirs[n]) for n in ours if n in theirs), None)


def speed_at_equal_epochs(panel: Panel, other: str, paper: Callable[[str], float]) -> Effects:
    """The speed-up over another method on the same schedule."""
    if not (pair := _equal_epochs(panel, other)):
        return []
    return [_speed_up(panel, pair[1], paper(panel.modality), pair[0])]


def accuracy_at_equal_epochs(panel: Panel, other: str) -> Effects:
    """TreeLoRA's score minus that of another method on the same schedule."""
    pair = _equal_epochs(panel, other)
    return [_difference(panel, *pair)] if pair else []


def fewer_epochs(panel: Panel) -> Effects:
    """SeqLoRA's score on TreeLoRA's schedule minus that on the longest of its own."""
    longer = _longer(panel, "seqlora")
    if not longer:
        return []
    short = sweep(panel, "seqlora", "epochs").get(settings(panel, "treelora")["epochs"])
    return [_difference(panel, short, longer)] if short else []


def noise(panel: Panel) -> Effects:
    """What OP may be off by for its number of test items, on the stream of Table 3.

    All the table's margins are to be told, so the smallest counts.
    """
    errors = standard_error(panel) if panel.stream == "trace" else None
    if not errors:
        return []
    low, high = (1.96 * error for error in errors)
    region = (-inf, reported.lead("language").abs().min() / 100)
    what = "1.96 binomial standard errors of OP"
    return [Effect(what, Estimate((low + high) / 2, nan, low, high), 0, region)]


def _longer(panel: Panel, other: str) -> str | None:
    """The other method's variant with the most epochs, if these are more than TreeLoRA's."""
    steps = panel.done.groupby("method")["steps"].mean()
    labels = sweep(panel, other, "epochs").values()
    longer = [x for x in labels if "treelora" in steps and steps[x] > steps["treelora"]]
    return max(longer, key=steps.get, default=None)


def speed_on_vision(panel: Panel) -> Effects:
    """The speed-up over SeqLoRA, and inside HiDe's decomposition over HiDeLoRA."""
    pairs = [("seqlora", "treelora"), ("hidelora", "hidetreelora")]
    paper = reported.headline("vision")
    return [
        _speed_up(panel, other, paper, ours)
        for other, ours in pairs
        if _present(panel, other, ours)
    ]


def speed_at_own_epochs(panel: Panel, other: str, paper: Callable[[str], float]) -> Effects:
    """The speed-up over another method that trains for more epochs."""
    label = _longer(panel, other)
    return [_speed_up(panel, label, paper(panel.modality))] if label else []


def accuracy_at_own_epochs(panel: Panel, other: str) -> Effects:
    """TreeLoRA's score minus that of another method that trains for more epochs."""
    label = _longer(panel, other)
    margin = max(0.0, -reported.lead_over_olora().min() / 100)
    return [_difference(panel, "treelora", label, (-margin, inf))] if label else []


def robust(panel: Panel, key: str) -> Effects:
    """The score with every other value of a setting minus that with the suite's own."""
    margin = reported.robust_spread().max() / 100
    ours = _form(panel, key)
    labels = [label for label in sweep(panel, ours, key).values() if label != ours]
    return [_difference(panel, label, ours, (-margin, margin)) for label in labels]


def _mean_difference(panel: Panel, pairs: list[tuple[str, str]], what: str) -> Effects:
    """The mean of several differences within each seed as one effect."""
    if not pairs:
        return []
    each = [difference(panel, "acc", label, other) for label, other in pairs]
    values = pd.concat(each, axis=1).dropna().mean(axis=1)
    mean = f", mean of {len(pairs)} settings" if len(pairs) > 1 else ""
    return [Effect(what + mean, interval(values), len(values))]


def search(panel: Panel) -> Effects:
    """Bandit search minus random search, averaged over the settings that have both."""
    pairs = counterparts(panel, "treelora", {"search": "random"})
    return _mean_difference(panel, [(lcb, random) for random, lcb in pairs], "LCB − random")


def penalty(panel: Panel) -> Effects:
    """Random search minus no penalty, which is SeqLoRA on the same schedule, averaged as there."""
    pairs = counterparts(panel, "treelora", {"search": "random"})
    plain = sweep(panel, "seqlora", "epochs")
    epochs = {random: settings(panel, random)["epochs"] for random, _ in pairs}
    none = [(random, plain[n]) for random, n in epochs.items() if n in plain]
    return _mean_difference(panel, none, "random − none")


def depth(panel: Panel) -> Effects:
    """All adapted layers minus the fewest."""
    labels = {layers or inf: label for layers, label in sweep(panel, "treelora", "layers").items()}
    if len(labels) < 2:
        return []
    return [_difference(panel, labels[max(labels)], labels[min(labels)])]


def epochs(panel: Panel) -> Effects:
    """The most epochs minus as few as the fewest of Table 2."""
    found, scores = sweep(panel, _form(panel, "epochs"), "epochs"), reported.by_epochs()
    few, most = scores.index[0], max((n for n in found if isinstance(n, int)), default=0)
    if few not in found or most <= few:
        return []
    margin = reported.rise(scores) / 100
    return [_difference(panel, found[most], found[few], (-inf, margin))]


def _of_records(panel: Panel, measure: Callable[[dict], float], *pair: str) -> pd.Series:
    """A number of each run's record, the first label's minus the second's, paired by seed."""
    if not _present(panel, *pair):
        return pd.Series(dtype=float)
    records = panel.done.set_index(["method", "seed"])["record"]
    first, second = (records.xs(label).map(measure) for label in pair)
    return first.sub(second).dropna()


def _growth(record: dict, key: str) -> float:
    """The logarithm of the last task's cost over the second's, by a line through those between."""
    tasks = record["tasks"][1:]
    if len(tasks) < 2 or any(task[key] is None for task in tasks):
        return nan
    costs = [task[key] / (task["steps"] if key == "train_seconds" else 1) for task in tasks]
    slope, _ = np.polyfit(range(len(costs)), np.log(costs), 1)
    return slope * (len(costs) - 1)


def constant(panel: Panel, key: str) -> Effects:
    """How much more than SeqLoRA's a cost grows from the first task with an old one to the last."""
    values = _of_records(panel, partial(_growth, key=key), "treelora", "seqlora")
    if values.empty:
        return []
    region = (-inf, log(1 + reported.time_spread(panel.modality)))
    return [Effect("growth, treelora / seqlora", interval(values), len(values), region, "times")]


def _while_learning(record: dict) -> float:
    """The mean score of all tasks but the first in the tests made while they were learnt."""
    curve = record.get("test_curve") or []
    scores = [point["score"] for point in curve if point["task"] > 0]
    return float(np.mean(scores)) if scores else nan


def adaptation(panel: Panel) -> Effects:
    """The mean score while a task is learnt, TreeLoRA minus SeqLoRA."""
    pair = []
    for method in ("treelora", "seqlora"):
        tested = {n or 0: label for n, label in sweep(panel, method, "curve_tests").items()}
        pair.append(tested[max(tested)] if tested else method)
    values = _of_records(panel, _while_learning, *pair)
    what = f"{' − '.join(pair)}, mean of the test curve"
    return [] if values.empty else [Effect(what, interval(values), len(values))]


def tree(found: Mapping[str, Mapping[int, float]]) -> dict[str, Effects]:
    """Agreement of the last tree with the planted groups, 0 by chance: by place, then by seed."""
    return {
        place: [
            Effect("adjusted Rand index", interval(pd.Series(by_seed)), len(by_seed), unit="index")
        ]
        for place, by_seed in found.items()
    }


def regret(found: Mapping[tuple[str, float], Estimate]) -> dict[str, Effects]:
    """Regret of the tree's search over the flat one's, on smooth trees: by structure and gamma."""
    places: dict[str, Effects] = {}
    for (structure, gamma), ratio in found.items():
        if structure in ("unique", "cluster"):
            effect = _ratio(f"regret of tree / flat, gamma {gamma}", ratio, (-inf, 0.0))
            places.setdefault(f"simulated trees, {structure}", []).append(effect)
    return places


def flops(found: Mapping[str, Mapping]) -> dict[str, Effects]:
    """Operations per token at the paper's tenth task, by model and method."""
    paper = reported.flops()
    half = log(paper["olora"] / paper["seqlora"]) / 2
    return {
        model: [
            _ratio("treelora / seqlora", each["treelora"] / each["seqlora"], (-inf, half)),
            _ratio("olora / treelora", each["olora"] / each["treelora"], (half, inf)),
        ]
        for model, each in found["flops"].items()
    }


def disk(found: Mapping[str, Mapping]) -> dict[str, Effects]:
    """Bytes of the stored adapters and the tree over those that the paper reports, by model."""
    return {
        model: [_ratio("bytes, here / paper", found["disk"][model] / (1e6 * megabytes), (-inf, 0))]
        for model, megabytes in reported.disk().items()
        if model in found["disk"]
    }


def _ratio(what: str, ratio: float | Estimate, region: tuple[float, float]) -> Effect:
    """A ratio that was found elsewhere; exact where it is a number."""
    mean, _, low, high = ratio if isinstance(ratio, tuple) else (ratio, 0, ratio, ratio)
    return Effect(what, Estimate(log(mean), nan, log(low), log(high)), 0, region, "times")


# ---- the claims ---------------------------------------------------------------------------------


def _faster_in_paper(other: str) -> Callable[[str], str]:
    def text(modality: str) -> str:
        each = span(reported.times_faster(modality, other), "×", signed=False)
        return f"{two_digits(reported.headline(modality))}×; {each} that of {other}"

    return text


def _method_or_schedule(modality: str) -> str:
    equal = span(reported.times_faster_at_equal_epochs("seqlora"), "×", signed=False)
    return f"{two_digits(reported.headline(modality))}×; {equal} at equal epochs"


def _flops_in_paper(modality: str) -> str:
    ratio = reported.flops()["treelora"] / reported.flops()
    return " and ".join(f"{two_digits(ratio[other])}× {other}" for other in ("seqlora", "olora"))


def _robust_in_paper(key: str) -> Callable[[str], str]:
    return lambda _: span([reported.robust_spread()[key]], " points", signed=False)


def _table5(more: str, less: str) -> Callable[[str], str]:
    return lambda _: span([reported.ablation()[more] - reported.ablation()[less]])


_ABLATIONS = "(suites ablations, cifar_ablations)"

CLAIMS = (
    Claim(
        "accuracy",
        "The final score is at par with the best other method's",
        "Tables 1, 3",
        lambda modality: span(reported.lead(modality)),
        accuracy,
        "treelora beside at least three other methods of the paper's table",
    ),
    Claim(
        "forgetting",
        "It forgets less than SeqLoRA",
        "Tables 1, 3",
        lambda modality: span(reported.less_forgetting(modality)),
        forgetting,
        "treelora and seqlora",
    ),
    Claim(
        "speed-vision",
        "On vision it trains several times as fast as SeqLoRA and HiDeLoRA at the same epochs",
        "Abstract, Table 1",
        _faster_in_paper("seqlora"),
        speed_on_vision,
        "a vision stream with treelora and seqlora, or hidetreelora and hidelora",
        modality="vision",
    ),
    Claim(
        "speed-language",
        "On language, with its shorter schedule, it trains several times as fast as O-LoRA",
        "Abstract, Table 3",
        _faster_in_paper("olora"),
        partial(speed_at_own_epochs, other="olora", paper=reported.headline),
        "a language stream with olora for more epochs than treelora (suite ablations)",
        modality="language",
    ),
    Claim(
        "accuracy-own-epochs",
        "With its shorter schedule its score on language is at par with O-LoRA's",
        "Table 3",
        lambda _: span(reported.lead_over_olora()),
        partial(accuracy_at_own_epochs, other="olora"),
        "a language stream with olora for more epochs than treelora (suite ablations)",
        modality="language",
    ),
    Claim(
        "speed-equal-epochs",
        "At equal epochs it is still faster than O-LoRA",
        "Table 10",
        lambda _: span(reported.times_faster_at_equal_epochs(), "×", signed=False),
        partial(
            speed_at_equal_epochs,
            other="olora",
            paper=lambda _: reported.times_faster_at_equal_epochs().min(),
        ),
        "treelora and olora for the same epochs",
    ),
    Claim(
        "speed-same-schedule",
        "Its speed on language is the method's: SeqLoRA on the same schedule is much slower",
        "Abstract, Table 10",
        _method_or_schedule,
        partial(speed_at_equal_epochs, other="seqlora", paper=reported.headline),
        "a language stream with treelora and seqlora for the same epochs",
        modality="language",
    ),
    Claim(
        "accuracy-same-schedule",
        "On the same schedule its score on language is above SeqLoRA's",
        "Tables 5, 10",
        lambda _: span(reported.lead_over_seqlora_at_equal_epochs()),
        partial(accuracy_at_equal_epochs, other="seqlora"),
        "a language stream with treelora and seqlora for the same epochs",
        modality="language",
    ),
    Claim(
        "fewer-epochs",
        "On language SeqLoRA gains when it trains as briefly as TreeLoRA",
        "Tables 3, 5",
        lambda _: span([reported.gain_of_fewer_epochs()]),
        fewer_epochs,
        "a language stream with seqlora for treelora's epochs and for more (suite ablations)",
        modality="language",
    ),
    Claim(
        "noise",
        "The test sets of TRACE tell the margins of the main table",
        "Table 3",
        lambda modality: span(reported.lead(modality)),
        noise,
        "the stream trace",
        modality="language",
    ),
    Claim(
        "robust-lambda",
        "The score hardly depends on lambda",
        "Table 6",
        _robust_in_paper("lambda"),
        partial(robust, key="strength"),
        f"treelora with other values of strength {_ABLATIONS}",
    ),
    Claim(
        "robust-learning-rate",
        "The score hardly depends on the learning rate",
        "Table 6",
        _robust_in_paper("learning-rate"),
        partial(robust, key="learning_rate"),
        "treelora with other learning rates (suite ablations)",
    ),
    Claim(
        "search",
        "The bandit search chooses better tasks than chance",
        "Table 5",
        _table5("lcb", "random"),
        search,
        f"treelora with search random {_ABLATIONS}",
    ),
    Claim(
        "penalty",
        "The penalty helps even where tasks are chosen at random",
        "Table 5",
        _table5("random", "none"),
        penalty,
        f"treelora with search random, and seqlora {_ABLATIONS}",
    ),
    Claim(
        "depth",
        "Adapting more layers gives a better score",
        "Table 4",
        lambda _: span([reported.rise(reported.by_depth())]),
        depth,
        f"treelora with fewer layers {_ABLATIONS}",
    ),
    Claim(
        "epochs",
        "Very few epochs nearly suffice",
        "Table 2",
        lambda _: span([reported.rise(reported.by_epochs())]),
        epochs,
        f"treelora with the fewest epochs of Table 2 and with more {_ABLATIONS}",
    ),
    Claim(
        "tree",
        "The tree puts similar tasks together",
        "Figures 5, 8",
        lambda _: "seen in the figures",
        tree,
        "the trees of a stream with planted groups of tasks",
        data="trees",
    ),
    Claim(
        "constant-time",
        "A step takes no longer when more tasks were learnt",
        "Section 3.2",
        lambda _: "no number",
        partial(constant, key="train_seconds"),
        "treelora and seqlora on at least three tasks",
    ),
    Claim(
        "constant-memory",
        "Training takes no more memory when more tasks were learnt",
        "Appendix A.3",
        lambda _: "no number by task",
        partial(constant, key="peak_bytes"),
        "treelora and seqlora on at least three tasks",
    ),
    Claim(
        "regret",
        "On smooth trees the search has less regret than a flat one",
        "Theorem 1",
        lambda _: "a bound",
        regret,
        "the regret experiment",
        data="regret",
    ),
    Claim(
        "adaptation",
        "It learns a new task faster than plain LoRA",
        "Figure 1",
        lambda _: "seen in the figure",
        adaptation,
        "treelora and seqlora tested while they learn (test_curve)",
    ),
    Claim(
        "flops",
        "Operations per token are as many as LoRA's and do not grow with the tasks as O-LoRA's",
        "Table 8",
        _flops_in_paper,
        flops,
        "the accounting of operations",
        data="accounting",
    ),
    Claim(
        "disk",
        "Adapters and tree take no more disk than the paper says",
        "Appendix A.3",
        lambda _: span(reported.disk(), " MB", signed=False),
        disk,
        "the accounting of bytes",
        data="accounting",
    ),
)


# ---- verdicts and their tables ------------------------------------------------------------------


def gather(suites: list[Suite]) -> dict[str, object]:
    """What other computations found, by the name that a claim's `data` gives.

    trees: the adjusted Rand index by place and seed, `{"glyphs": {0: 0.4, ...}}`.
    regret: ratios of regrets by structure and gamma, `{("unique", 0.5): Estimate(...)}`.
    accounting: `{"flops": {model: {method: number}}, "disk": {model: bytes}}`.

    Experiments that belong to no suite count where several suites are judged together.
    """
    found: dict[str, object] = {"trees": _agreements(suites)}
    simulated, counted = EXPERIMENTS
    if len(suites) > 1 and simulated.is_file():
        from analysis import regret

        found["regret"] = regret.improvement(regret.load(simulated))
    if len(suites) > 1 and counted.is_file():
        from analysis import accounting

        found["accounting"] = accounting.findings(accounting.load(counted))
    return found


def _agreements(suites: list[Suite]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for panel in (panel for suite in suites for panel in suite.panels):
        for run in panel.finished.get("treelora", panel.done.iloc[:0]).itertuples():
            if own := agreement(run.record):
                found.setdefault(panel.stream, {})[run.seed] = own.index
    return found


def judge(suites: list[Suite], found: Mapping[str, object] | None = None) -> list[Verdict]:
    """One verdict per claim and place that tests it, else one that says what would.

    Places with the same effects, as where suites share runs, are one.
    """
    found = gather(suites) if found is None else found
    panels = {
        f"{panel.slug} ({suite.name})" if len(suites) > 1 else panel.slug: panel
        for suite in suites
        for panel in suite.panels
    }
    verdicts = []
    for claim in CLAIMS:
        places: dict[tuple[str, tuple[Effect, ...]], list[str]] = {}
        for place, paper, effects in _measured(claim, panels, found):
            if effects:
                places.setdefault((paper, tuple(effects)), []).append(place)
        own = [Verdict(claim, ", ".join(same), *measured) for measured, same in places.items()]
        verdicts += own or [Verdict(claim, "", claim.paper(claim.modality))]
    return verdicts


def _measured(
    claim: Claim, panels: Mapping[str, Panel], found: Mapping[str, object]
) -> list[tuple[str, str, Effects]]:
    """By place, the paper's effect and those that are found."""
    if claim.data:
        results = claim.test(found[claim.data]) if claim.data in found else {}
        return [(place, claim.paper(""), effects) for place, effects in results.items()]
    return [
        (place, claim.paper(panel.modality), claim.test(panel))
        for place, panel in panels.items()
        if claim.modality in ("", panel.modality)
    ]


def table(verdicts: list[Verdict]) -> Table:
    """Every verdict with its effect."""
    columns = {
        **{"claim": "Claim", "paper": "In the paper", "place": "Here", "verdict": "Verdict"},
        **{"effect": "Effect [95 % interval]", "what": "of", "bar": "Supported if", "n": "Seeds"},
        **{"would_test": "What would test it", "beside": "Beside it"},
    }
    rows = []
    for verdict in verdicts:
        row = {
            "claim": verdict.claim.says,
            "paper": f"{verdict.paper} ({verdict.claim.where})",
            "place": verdict.place,
            "verdict": verdict.word,
            "would_test": verdict.would_test,
        }
        if effect := verdict.effect:
            row |= {"effect": effect.text(), "what": effect.what, "bar": effect.bar()}
            row |= {"beside": verdict.beside}
            row["n"] = effect.n or None
        rows.append(row)
    wide = ("claim", "paper", "effect", "would_test", "beside")
    shown = [Column(key, title, wide=key in wide) for key, title in columns.items()]
    return Table("claims", "The paper's claims", shown, rows, notes=list(RULE))


def _raw(effect: Effect | None) -> dict[str, object]:
    if not effect:
        return {}
    raw = exp if effect.unit == "times" else float
    ends = {end: raw(getattr(effect.estimate, end)) for end in ("mean", "low", "high")}
    return {"what": effect.what, "unit": effect.unit, "n": effect.n} | ends


def csv(verdicts: list[Verdict]) -> str:
    """Raw values: scores as fractions, ratios not as logarithms."""
    columns = ("claim", "place", "verdict", "what", "unit", "n", "mean", "low", "high")
    rows = []
    for verdict in verdicts:
        row = {"claim": verdict.claim.id, "place": verdict.place, "verdict": verdict.word}
        row |= {"paper": verdict.paper, "would_test": verdict.would_test}
        rows.append(row | _raw(verdict.effect))
        others = (effect for effect in verdict.effects if effect.beside)
        rows += [row | {"verdict": "beside", "would_test": ""} | _raw(e) for e in others]
    frame = pd.DataFrame(rows, columns=[*columns, "paper", "would_test"])
    return to_csv(frame.astype({"n": "Int64"}))
