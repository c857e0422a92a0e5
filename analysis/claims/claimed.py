"""The effects that the paper itself reports, computed from `reported_values.csv`.

Scores are in percent, so that differences are points.
"""

from __future__ import annotations

import pandas as pd

from analysis.records.counterparts import exhibit


def main_table(modality: str, metric: str, column: str = "value") -> pd.DataFrame:
    """Table 1 on vision, Table 3 on language."""
    if modality == "language":
        return exhibit("table3", "op" if metric == "acc" else metric, column)
    return exhibit("table1", metric, column)


def lead(modality: str) -> pd.Series:
    """TreeLoRA's score minus the best other method's; negative where it falls short."""
    scores = main_table(modality, "acc")
    return scores["treelora"] - scores.drop(columns="treelora").max(axis=1)


def lead_over_olora() -> pd.Series:
    """Table 3: TreeLoRA's score, on fewer epochs, minus O-LoRA's."""
    scores = main_table("language", "acc")
    return scores["treelora"] - scores["olora"]


def less_forgetting(modality: str) -> pd.Series:
    """BWT of SeqLoRA minus TreeLoRA's."""
    forgotten = main_table(modality, "bwt")
    return forgotten["seqlora"] - forgotten["treelora"]


def headline(modality: str) -> float:
    """The speed-up of the abstract."""
    speedups = exhibit("text", "speedup")["treelora"]
    return float(speedups["llm" if modality == "language" else "vit"])


def times_faster(modality: str, other: str) -> pd.Series:
    """TIME of another method over TreeLoRA's."""
    seconds = main_table(modality, "time")
    return seconds[other] / seconds["treelora"]


def times_faster_at_equal_epochs(other: str = "olora") -> pd.Series:
    """The same in Table 10, where all have the same epochs."""
    seconds = exhibit("table10", "time")
    return (seconds[other] / seconds["treelora"]).dropna()


def lead_over_seqlora_at_equal_epochs() -> pd.Series:
    """TreeLoRA's score minus SeqLoRA's in Table 10 and in Table 5, where it is the first row."""
    scores = exhibit("table10", "op")
    lead = (scores["treelora"] - scores["seqlora"]).dropna()
    return pd.concat([lead, pd.Series({"table5": ablation()["lcb"] - ablation()["none"]})])


def gain_of_fewer_epochs() -> float:
    """SeqLoRA's score in Table 5, on TreeLoRA's schedule, minus that in Table 3, on its own."""
    longer = main_table("language", "acc").loc["mistral-7b-instruct-v0.3", "seqlora"]
    return float(ablation()["none"] - longer)


def time_spread(modality: str) -> float:
    """The largest deviation of TreeLoRA's TIME, as a fraction of it."""
    mean, sd = (main_table(modality, "time", column)["treelora"] for column in ("value", "std"))
    return float((sd / mean).max())


def by_epochs() -> pd.Series:
    """Table 2: the score by number of epochs."""
    row = exhibit("table2", "acc").iloc[0]
    return row.rename(lambda name: int(name.split("-")[1])).sort_index()


def by_depth() -> pd.Series:
    """Table 4: TreeLoRA's score by depth."""
    column = exhibit("table4", "op")["treelora"]
    return column.rename(lambda block: int(block.rpartition("-")[2])).sort_index()


def ablation() -> pd.Series:
    """Table 5: the score without a penalty, with random search and with LCB search."""
    row = exhibit("table5", "op").iloc[0]
    names = {
        "none": "treelora-no-penalty-no-search",
        "random": "treelora-penalty-random-search",
        "lcb": "treelora",
    }
    return pd.Series({name: row[column] for name, column in names.items()})


def robust_spread() -> pd.Series:
    """Table 6: the best score minus the worst, over values of `lambda` and of `learning-rate`."""
    scores = exhibit("table6", "acc").rename(lambda block: block.rpartition("/")[2])
    return scores.max(axis=1) - scores.min(axis=1)


def robust_range(block: str) -> tuple[float, float]:
    """Table 6: the least and the greatest value that was tried, of either."""
    values = exhibit("table6", "acc").loc[f"split-cifar100/{block}"].dropna().index.astype(float)
    return values.min(), values.max()


def flops() -> pd.Series:
    """Table 8: operations per token by method."""
    return exhibit("table8", "flops-per-token").iloc[0]


def disk() -> pd.Series:
    """Appendix A.3: extra megabytes by model."""
    return exhibit("appendix-a3", "extra-disk")["treelora"]


def rise(series: pd.Series) -> float:
    """The last value minus the first."""
    return float(series.iloc[-1] - series.iloc[0])
