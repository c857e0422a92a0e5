# %% [markdown]
# A method of one's own beside others, from a notebook. Cells are run in the checkout (`%cd` to
# it), with the checkout's own environment; as a script, `PYTHONPATH=. python examples/notebook.py`.

# %%
from pathlib import Path

from analysis.draw import FIGURES
from analysis.records.runs import read_suite
from benchmarks.runs.replicate import replicate

# %% What a suite file says. `anchor` is a file of ours, edited as we go on.
suite = {
    "label": "a first look, a few steps whose numbers mean little",
    "seeds": [0, 1],
    "experiments": [
        {
            "stream": {"name": "glyphs", "n_tasks": 3, "train_per_class": 8, "test_per_class": 4},
            "backbone": {"name": "micro-vit"},
            "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.003, "mask": "current"},
            "methods": {
                "seqlora": {},
                "anchor": {"method": Path("examples/anchor.py"), "strength": 0.1},
            },
        }
    ],
}

# %% Only what is missing is made. A row is a run.
runs = replicate(suite, "first-look")
print(runs[["method", "seed", "acc", "bwt_paper", "train_seconds", "path"]].to_string())

# %% The same figures and tables as in a report. `%matplotlib inline` lets a cell show a figure.
(panel,) = read_suite(Path("results/first-look/runs.jsonl")).panels
figure = FIGURES["fig4a"].draw(panel)
figure.savefig("results/first-look/curves.png")
