"""Claims on language, where TreeLoRA trains for fewer epochs: what is the method's, what theirs."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

from analysis.claims import claimed
from analysis.claims.pairs import equal_epochs, longer, minus, speed_up
from analysis.claims.verdict import Effect, Effects, Reported, claim, faster, span
from analysis.records.language import standard_error
from analysis.records.metrics import Estimate
from analysis.records.runs import Panel
from analysis.records.variants import settings, sweep

LONGER = "a language stream with olora for more epochs than treelora (suite ablations)"
SAME = "a language stream with treelora and seqlora for the same epochs"


@claim(
    "speed-language",
    "On language, with its shorter schedule, it trains several times as fast as O-LoRA",
    "Abstract, Table 3",
    faster("olora"),
    LONGER,
    modality="language",
)
def speed_at_own_epochs(panel: Panel) -> Effects:
    """The speed-up over O-LoRA, which trains for more epochs."""
    label = longer(panel, "olora")
    return [speed_up(panel, label, claimed.headline(panel.modality))] if label else []


@claim(
    "accuracy-own-epochs",
    "With its shorter schedule its score on language is at par with O-LoRA's",
    "Table 3",
    lambda _: span(claimed.lead_over_olora()),
    LONGER,
    modality="language",
)
def accuracy_at_own_epochs(panel: Panel) -> Effects:
    """TreeLoRA's score minus that of O-LoRA, which trains for more epochs."""
    label = longer(panel, "olora")
    margin = max(0.0, -claimed.lead_over_olora().min() / 100)
    return [minus(panel, "treelora", label, (-margin, inf))] if label else []


def _speed_at_equal_epochs(panel: Panel, other: str, paper: float) -> Effects:
    """The speed-up over another method on the same schedule."""
    pair = equal_epochs(panel, other)
    return [speed_up(panel, pair[1], paper, pair[0])] if pair else []


@claim(
    "speed-equal-epochs",
    "At equal epochs it is still faster than O-LoRA",
    "Table 10",
    lambda _: span(claimed.times_faster_at_equal_epochs(), "×", signed=False),
    "treelora and olora for the same epochs",
)
def speed_at_equal_epochs(panel: Panel) -> Effects:
    """The speed-up over O-LoRA on the same schedule."""
    paper = claimed.times_faster_at_equal_epochs().min()
    return _speed_at_equal_epochs(panel, "olora", paper)


def _method_or_schedule(modality: str) -> Reported:
    equal = span(claimed.times_faster_at_equal_epochs("seqlora"), "×", signed=False).text
    headline = span([claimed.headline(modality)], "×", signed=False)
    return replace(headline, text=f"{headline.text}; {equal} at equal epochs")


@claim(
    "speed-same-schedule",
    "Its speed on language is the method's: SeqLoRA on the same schedule is much slower",
    "Abstract, Table 10",
    _method_or_schedule,
    SAME,
    modality="language",
)
def speed_on_same_schedule(panel: Panel) -> Effects:
    """The speed-up over SeqLoRA on the same schedule."""
    return _speed_at_equal_epochs(panel, "seqlora", claimed.headline(panel.modality))


@claim(
    "accuracy-same-schedule",
    "On the same schedule its score on language is above SeqLoRA's",
    "Tables 5, 10",
    lambda _: span(claimed.lead_over_seqlora_at_equal_epochs()),
    SAME,
    modality="language",
)
def accuracy_on_same_schedule(panel: Panel) -> Effects:
    """TreeLoRA's score minus SeqLoRA's on the same schedule."""
    pair = equal_epochs(panel, "seqlora")
    return [minus(panel, *pair)] if pair else []


@claim(
    "fewer-epochs",
    "On language SeqLoRA gains when it trains as briefly as TreeLoRA",
    "Tables 3, 5",
    lambda _: span([claimed.gain_of_fewer_epochs()]),
    "a language stream with seqlora for treelora's epochs and for more (suite ablations)",
    modality="language",
)
def fewer_epochs(panel: Panel) -> Effects:
    """SeqLoRA's score on TreeLoRA's schedule minus that on the longest of its own."""
    long = longer(panel, "seqlora")
    if not long:
        return []
    short = sweep(panel, "seqlora", "epochs").get(settings(panel, "treelora")["epochs"])
    return [minus(panel, short, long)] if short else []


@claim(
    "noise",
    "The test sets of TRACE tell the margins of the main table",
    "Table 3",
    lambda modality: Reported(span(claimed.lead(modality)).text),
    "the stream trace",
    modality="language",
)
def noise(panel: Panel) -> Effects:
    """What OP may be off by for its number of test items, on the stream of Table 3.

    All the table's margins are to be told, so the smallest counts.
    """
    errors = standard_error(panel) if panel.stream == "trace" else None
    if not errors:
        return []
    low, high = (1.96 * error for error in errors)
    region = (-inf, claimed.lead("language").abs().min() / 100)
    what = "1.96 binomial standard errors of OP"
    return [Effect(what, Estimate((low + high) / 2, nan, low, high), 0, region)]
