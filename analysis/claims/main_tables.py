"""Claims on the main tables: scores, forgetting, and speed on vision."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from analysis.claims import claimed
from analysis.claims.pairs import FORMS, form, minus, present, speed_up
from analysis.claims.verdict import ALIKE, Effects, claim, faster, span
from analysis.records.runs import Panel
from analysis.records.variants import variants


@claim(
    "accuracy",
    "The final score is at par with the best other method's",
    "Tables 1, 3",
    lambda modality: span(claimed.lead(modality)),
    "treelora beside at least three other methods of the paper's table",
)
def accuracy(panel: Panel) -> Effects:
    """TreeLoRA's final score minus each contender's of the paper's own table for such streams.

    Beside these, minus that of every other method, and of a contender's variant that is trained as
    TreeLoRA is, where each had the rate that was chosen for it.
    """
    region = (min(0.0, claimed.lead(panel.modality).min() / 100), inf)
    names = {label: panel.specs[label]["method"]["name"] for label in panel.finished}
    rivals = [
        label
        for label, name in names.items()
        # a method itself, not a variant of it
        if not label.startswith(f"{name}-") and name not in FORMS
        if label not in panel.upper_bounds
    ]
    table = claimed.main_table(panel.modality, "acc").columns
    contenders = [label for label in rivals if label == names[label] and label in table]
    ours = form(panel)
    if not present(panel, ours) or len(contenders) < 3:
        return []
    train = panel.specs[ours]["train"]
    beside = {label: "not in the paper's table" for label in rivals if names[label] not in table}
    beside |= {
        label: ALIKE
        for contender in contenders
        for label, changes in variants(panel, contender).items()
        if changes and changes.keys() <= train.keys() and panel.specs[label]["train"] == train
    }
    effects = [minus(panel, ours, label, region) for label in contenders]
    for label, why in beside.items():
        effect = minus(panel, ours, label, region)
        effects.append(replace(effect, beside=why))
    return effects


@claim(
    "forgetting",
    "It forgets less than SeqLoRA",
    "Tables 1, 3",
    lambda modality: span(claimed.less_forgetting(modality)),
    "treelora and seqlora",
)
def forgetting(panel: Panel) -> Effects:
    """BWT of SeqLoRA minus TreeLoRA's; beside it, how much more or less TreeLoRA learns at all, and
    what is left to it inside HiDe's decomposition when that is HiDeLoRA's too."""
    ours = form(panel)
    if not present(panel, ours, "seqlora"):
        return []
    learnt = minus(panel, ours, "seqlora", metric="learning_accuracy")
    effects = [
        minus(panel, "seqlora", ours, metric="bwt_paper"),
        replace(learnt, beside="right after learning"),
    ]
    if ours == "hidetreelora" and present(panel, "hidelora"):
        frame = minus(panel, "hidelora", ours, metric="bwt_paper")
        effects.append(replace(frame, beside=ALIKE))
    return effects


@claim(
    "speed-vision",
    "On vision it trains several times as fast as SeqLoRA and HiDeLoRA at the same epochs",
    "Abstract, Table 1",
    faster("seqlora"),
    "a vision stream with treelora and seqlora, or hidetreelora and hidelora",
    modality="vision",
)
def speed_on_vision(panel: Panel) -> Effects:
    """The speed-up over SeqLoRA, and inside HiDe's decomposition over HiDeLoRA."""
    pairs = [("seqlora", "treelora"), ("hidelora", "hidetreelora")]
    paper = claimed.headline("vision")
    return [
        speed_up(panel, other, paper, ours) for other, ours in pairs if present(panel, other, ours)
    ]
