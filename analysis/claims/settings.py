"""Claims on single choices: lambda, learning rate, search, penalty, layers, epochs."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pandas as pd

from analysis.claims import claimed
from analysis.claims.pairs import form, minus
from analysis.claims.verdict import Effect, Effects, Reported, claim, span
from analysis.records.metrics import interval
from analysis.records.runs import Panel
from analysis.records.variants import alike, counterparts, difference, sweep

SUITES = "(suites ablations, cifar_ablations)"


def _robust(panel: Panel, key: str, block: str) -> Effects:
    """The score with every other value of a setting minus that with the suite's own.

    Values beyond those of Table 6 stand beside.
    """
    margin = claimed.robust_spread().max() / 100
    least, most = claimed.robust_range(block)
    ours = form(panel, key)
    effects = []
    for value, label in sweep(panel, ours, key).items():
        if label != ours:
            effect = minus(panel, label, ours, (-margin, margin))
            if not least <= value <= most:
                effect = replace(effect, beside="not in Table 6")
            effects.append(effect)
    return effects if any(not effect.beside for effect in effects) else []


def _spread(key: str) -> Reported:
    points = span([claimed.robust_spread()[key]], signed=False)
    return replace(points, low=-points.high)


@claim(
    "robust-lambda",
    "The score hardly depends on lambda",
    "Table 6",
    lambda _: _spread("lambda"),
    f"treelora with other values of strength {SUITES}",
)
def robust_lambda(panel: Panel) -> Effects:
    """Every other strength of the penalty."""
    return _robust(panel, "strength", "lambda")


@claim(
    "robust-learning-rate",
    "The score hardly depends on the learning rate",
    "Table 6",
    lambda _: _spread("learning-rate"),
    "treelora with other learning rates (suite ablations)",
)
def robust_learning_rate(panel: Panel) -> Effects:
    """Every other learning rate."""
    return _robust(panel, "learning_rate", "learning-rate")


def _mean_difference(panel: Panel, pairs: list[tuple[str, str]], what: str) -> Effects:
    """The mean of several differences within each seed as one effect."""
    if not pairs:
        return []
    each = [difference(panel, "acc", label, other) for label, other in pairs]
    values = pd.concat(each, axis=1).dropna().mean(axis=1)
    mean = f", mean of {len(pairs)} settings" if len(pairs) > 1 else ""
    return [Effect(what + mean, interval(values), len(values))]


def _table5(more: str, less: str) -> Reported:
    return span([claimed.ablation()[more] - claimed.ablation()[less]])


@claim(
    "search",
    "The bandit search chooses better tasks than chance",
    "Table 5",
    lambda _: _table5("lcb", "random"),
    f"treelora with search random {SUITES}",
)
def search(panel: Panel) -> Effects:
    """Bandit search minus random search, averaged over the settings that have both."""
    pairs = counterparts(panel, "treelora", {"search": "random"})
    return _mean_difference(panel, [(lcb, random) for random, lcb in pairs], "LCB − random")


@claim(
    "penalty",
    "The penalty helps even where tasks are chosen at random",
    "Table 5",
    lambda _: _table5("random", "none"),
    f"treelora with search random, and seqlora {SUITES}",
)
def penalty(panel: Panel) -> Effects:
    """Random search minus no penalty, which is SeqLoRA in the same setting, averaged as there."""
    pairs = counterparts(panel, "treelora", {"search": "random"})
    plain = [(random, alike(panel, random, "seqlora")) for random, _ in pairs]
    none = [(random, label) for random, label in plain if label]
    return _mean_difference(panel, none, "random − none")


@claim(
    "depth",
    "Adapting more layers gives a better score",
    "Table 4",
    lambda _: span([claimed.rise(claimed.by_depth())]),
    f"treelora with fewer layers {SUITES}",
)
def depth(panel: Panel) -> Effects:
    """All adapted layers minus the fewest."""
    labels = {layers or inf: label for layers, label in sweep(panel, "treelora", "layers").items()}
    if len(labels) < 2:
        return []
    return [minus(panel, labels[max(labels)], labels[min(labels)])]


@claim(
    "epochs",
    "Very few epochs nearly suffice",
    "Table 2",
    lambda _: span([claimed.rise(claimed.by_epochs())]),
    f"treelora with the fewest epochs of Table 2 and with more {SUITES}",
)
def epochs(panel: Panel) -> Effects:
    """The most epochs minus as few as the fewest of Table 2."""
    found, scores = sweep(panel, form(panel, "epochs"), "epochs"), claimed.by_epochs()
    few, most = scores.index[0], max((n for n in found if isinstance(n, int)), default=0)
    if few not in found or most <= few:
        return []
    margin = claimed.rise(scores) / 100
    return [minus(panel, found[most], found[few], (-inf, margin))]
