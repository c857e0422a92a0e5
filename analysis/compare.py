"""Published counterparts: the paper's and independent numbers, where the setting is the same.

A counterpart is shown only if every fact of its setting holds for the run. So numbers of another
stream, another backbone or a reduced data set never stand beside published ones.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from analysis.metrics import Estimate

VALUES = Path(__file__).parent / "values"
# How streams are called in the published tables, and the paper's epochs on them.
DATASETS = {
    "cifar100": ("split-cifar100", 20),
    "imagenet_r": ("split-imagenet-r", 50),
    "cub200": ("split-cub200", 50),
}
# Independent values state no schedule, so only data and backbone (by name) must be the same.
WHOLE = {"all_data": True, "n_tasks": 10, "image_size": 224}
# Appendix A.3 of the paper, but for epochs, learning rate and strength, which Tables 2 and 6 vary.
PAPER = WHOLE | {"backbone": "vit-b16-ibot21k", "batch_size": 192, "optimizer": "adam"}
LEARNING_RATE, STRENGTH = 0.005, 0.1
# What appendix A.3 says of single methods; its SeqLoRA's scores are those of unmasked training.
MASK = {"seqlora": "all"}
OWN = {
    "gem": {"memory_per_task": 100, "memory_strength": 0.05},
    "ewc": {"strength": 50.0},
    "l2p": {"pool_size": 30, "prompt_length": 5},
    "dualprompt": {"shared_layers": 2, "shared_length": 5, "task_layers": 3, "task_length": 20},
    "hidelora": {"rank": 10},
    "hidetreelora": {"depth": 5, "signature": "adapter", "similarity": "l1", "search": "lcb"},
}
# Inside HiDe's decomposition, as on vision in the paper; alone it is in none of its tables.
NAMES = {"hidetreelora": "treelora", "treelora": None}
# How the paper's metrics are called here, and what makes fractions of percent.
PAPER_METRICS = {"acc": ("acc", 0.01), "bwt": ("bwt_paper", 0.01), "time": ("time_seconds", 1.0)}

Found = tuple[dict[str, Estimate], str]


def facts(spec: dict) -> dict[str, object]:
    """What must agree with a published setting, read from the run's spec."""
    stream, backbone, train = (spec[part] for part in ("stream", "backbone", "train"))
    return {
        "all_data": all(stream[key] is None for key in stream if "_per_" in key),
        "n_tasks": stream["n_tasks"],
        "backbone": backbone["name"],
        "image_size": backbone.get("image_size"),
        "batch_size": train["batch_size"],
        "optimizer": str(train.get("optimizer")).lower(),
    }


def cells(spec: dict) -> list[tuple[str, str, str]]:
    """The cells of the paper's vision tables that a run of this spec repeats.

    Returns:
        Exhibit, block and column of each, as `values/reported_values.csv` names them.
    """
    method, train = spec["method"], spec["train"]
    block, usual = DATASETS.get(spec["stream"]["name"], ("", 0))
    name = NAMES.get(method["name"], method["name"])
    own = method["config"].items() >= OWN.get(method["name"], {}).items()
    mask = MASK.get(method["name"], "current")
    if not (
        block and name and own and train["mask"] == mask and facts(spec).items() >= PAPER.items()
    ):
        return []
    epochs = train["epochs"][0] if len(set(train["epochs"])) == 1 else None
    rate, strength = train["learning_rate"], method["config"].get("strength")
    varied = {"epochs": epochs != usual, "rate": rate != LEARNING_RATE}
    wanted = []
    if name == "treelora":
        varied["strength"] = strength != STRENGTH
        by_setting = {
            "epochs": ("table2", block, f"treelora-{epochs}-epochs"),
            "strength": ("table6", f"{block}/lambda", f"{strength:.1f}"),
            "rate": ("table6", f"{block}/learning-rate", f"{rate:.3f}"),
        }
        for key, cell in by_setting.items():
            if not any(varied[other] for other in varied if other != key):
                wanted.append(cell)
    if not any(varied.values()):
        wanted = [("table1", block, name), ("table11", block, name), *wanted]
    return [cell for cell in wanted if cell in _cells()]


@cache
def _cells() -> frozenset[tuple[str, str, str]]:
    rows = table("reported_values.csv")[["exhibit", "block", "column"]]
    return frozenset(rows.itertuples(index=False, name=None))


@cache
def table(name: str) -> pd.DataFrame:
    """A file of published values."""
    return pd.read_csv(VALUES / name)


def published(record: dict) -> dict[str, Found]:
    """The counterparts of a run, `paper` and `independent`: values by metric, and their source."""
    found = {"paper": _paper(record), "independent": _independent(record)}
    return {who: values for who, values in found.items() if values}


def _paper(record: dict) -> Found | None:
    found = cells(record["spec"])
    if not found:
        return None
    rows = table("reported_values.csv").dropna(subset="value")
    values = {}
    for exhibit, block, column in reversed(found):  # so that the first counts, if they differ
        place = (rows["exhibit"] == exhibit) & (rows["block"] == block)
        for row in rows[place & (rows["column"] == column)].itertuples():
            metric, scale = PAPER_METRICS[row.metric]
            values[metric] = Estimate(row.value * scale, row.std * scale)
    return values, f"the paper's {found[0][0]}, {found[0][1]}"


def _independent(record: dict) -> Found | None:
    spec, rows = record["spec"], table("external_values.csv")
    dataset, _ = DATASETS.get(spec["stream"]["name"], ("", 0))
    if not dataset or not facts(spec).items() >= WHOLE.items():
        return None
    rows = rows[(rows["dataset"] == dataset) & (rows["method"] == spec["method"]["label"])]
    rows = rows[rows["backbone"] == spec["backbone"]["name"]]
    if rows.empty:
        return None
    row = rows.iloc[0]
    metrics = [metric for metric in ("acc", "forgetting") if pd.notna(row[metric])]
    return {m: Estimate(row[m] * 0.01, row[f"{m}_std"] * 0.01) for m in metrics}, row["source"]


@cache
def elsewhere(stream: str) -> pd.DataFrame:
    """Published final scores on a stream's data, whatever their setting, as fractions.

    Returns:
        Methods, by our labels, x sources: the paper, and independent ones by their backbone, as far
        as a source has three methods. No rows for a stream that nobody else has.
    """
    dataset, _ = DATASETS.get(stream, ("", 0))
    rows = table("reported_values.csv")
    rows = rows[(rows["block"] == dataset) & rows["exhibit"].isin(["table1", "table11"])]
    rows = rows[rows["metric"] == "acc"].drop_duplicates("column")
    labels = {paper: ours for ours, paper in NAMES.items()} | {"seqlora": "seqlora-unmasked"}
    scores = {"paper": rows.set_index(rows["column"].replace(labels))["value"]}
    rows = table("external_values.csv")
    for backbone, own in rows[rows["dataset"] == dataset].groupby("backbone"):
        if len(own) > 2:
            scores[f"independent, {backbone}"] = own.set_index("method")["acc"]
    return 0.01 * pd.DataFrame(scores)
