"""The paper's tables, figures and theorem, each with what is drawn of it here, or why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from analysis.catalogue import called
from analysis.records.counterparts import Cell, cells, table
from analysis.records.runs import Panel
from analysis.records.variants import variants

ORDERS = tuple(f"order{i}" for i in range(1, 7))
PAPER = "make replicate SUITE=paper"


class Exhibit(NamedTuple):
    """One of the paper's.

    Attributes:
        name: as it is printed.
        shows: what it has.
        streams: on which; none where it belongs to no stream.
        files: how ours begin, or are called where there is no stream.
        varied: settings of which one must differ between runs of TreeLoRA.
        methods: one of which must have been run, where no number of the paper is repeated.
    """

    name: str
    shows: str
    streams: tuple[str, ...]
    files: tuple[str, ...]
    varied: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("treelora", "hidetreelora")

    @property
    def cells(self) -> set[Cell]:
        """The cells with numbers that the paper prints there."""
        rows = table("reported_values.csv")
        rows = rows[rows["exhibit"] == self.name.lower().replace(" ", "")]
        return set(rows[["exhibit", "block", "column"]].itertuples(index=False, name=None))


SCORES, CHOICES = ("tables/accuracy",), ("tables/ablations",)
RATES = ("strength", "learning_rate")
CURVES = ("figures/fig4a", "figures/fig4b", "figures/fig4c")
EXHIBITS = (
    Exhibit("Table 1", "Scores and times on images", ("cifar100", "imagenet_r", "cub200"), SCORES),
    Exhibit("Table 2", "Epochs", ("cifar100",), CHOICES, ("epochs",)),
    Exhibit("Table 3", "Scores and times on TRACE", ("trace",), SCORES),
    Exhibit("Table 4", "Depth", ("trace",), CHOICES, ("layers",)),
    Exhibit("Table 5", "Without penalty, without search", ("trace",), CHOICES, ("search",)),
    Exhibit("Table 6", "λ and learning rate", ("cifar100",), CHOICES, RATES),
    Exhibit("Table 7", "Math-LLM", ("math_llm",), SCORES),
    Exhibit("Table 8", "Operations per token", (), ("tables/operations",)),
    Exhibit("Table 9", "Fifteen tasks", ("long15",), SCORES),
    Exhibit("Table 10", "Six orders of tasks", ORDERS, SCORES),
    Exhibit("Table 11", "InfLoRA", ("cifar100",), SCORES, methods=("inflora",)),
    Exhibit("Table 12", "SAPT and TaSL", ("trace",), SCORES, methods=("sapt", "tasl")),
    Exhibit(
        "Table 13", "A model of 13B", ("trace",), SCORES, methods=("Llama-2-13b-chat",)
    ),  # by its cells
    Exhibit("Figure 1", "Score while a task is learnt", ("cifar100",), ("figures/fig1",)),
    Exhibit("Figure 4", "Curves, times, score by speed", ("cifar100",), CURVES),
    Exhibit("Figure 5", "The tree", ("trace",), ("figures/trees",)),
    Exhibit("Figure 6", "As Figure 4, on ImageNet-R", ("imagenet_r",), CURVES),
    Exhibit("Figure 7", "As Figure 4, on CUB-200", ("cub200",), CURVES),
    Exhibit("Figure 8", "The tree as it grows", ("trace",), ("figures/trees",)),
    Exhibit("Theorem 1", "Regret of the search", (), ("figures/regret",)),
    Exhibit("Appendix A.3", "Disk and memory", (), ("tables/disk",)),
)


# What its tables compare, by our names.
METHODS = frozenset(table("reported_values.csv")["column"]) | {"hidetreelora"}


@dataclass(frozen=True)
class Ran:
    """What exhibits need to know of a panel.

    Attributes:
        suite, slug, stream: its names.
        methods: by their own names.
        varied: the settings in which alone a run of TreeLoRA differs from its base.
        cells: numbers of the paper that runs repeat in its setting.
    """

    suite: str
    slug: str
    stream: str
    methods: frozenset[str]
    varied: frozenset[str]
    cells: frozenset[Cell]


def ran(panel: Panel) -> Ran:
    """The same of a panel."""
    found = (variants(panel, name) for name in ("treelora", "hidetreelora"))
    changes = [changes for own in found for changes in own.values() if len(changes) == 1]
    return Ran(
        panel.suite.name,
        panel.slug,
        panel.stream,
        frozenset(panel.specs[label]["method"]["name"] for label in panel.finished),
        frozenset(key for own in changes for key in own),
        frozenset(cell for label in panel.finished for cell in cells(panel.specs[label])),
    )


class Entry(NamedTuple):
    """A line of the index: what of an exhibit is here, and where, or what would make it."""

    exhibit: Exhibit
    state: str
    files: list[str]


def index(panels: list[Ran], files: Iterable[str]) -> list[Entry]:
    """All exhibits.

    Args:
        files: what was drawn: of suites below their folders, else of none.
    """
    files = [name for name in files if name.endswith((".svg", ".md"))]
    return [_entry(exhibit, panels, files) for exhibit in EXHIBITS]


def _entry(exhibit: Exhibit, panels: list[Ran], files: list[str]) -> Entry:
    if not exhibit.streams:
        return Entry(exhibit, "computed", [f for f in files if f.startswith(exhibit.files)])
    theirs = exhibit.cells
    fitting = [
        panel
        for panel in panels
        if panel.stream in exhibit.streams
        if panel.methods & {*exhibit.methods} or panel.cells & theirs
        if not exhibit.varied or panel.varied & {*exhibit.varied}
    ]
    drawn = [
        name
        for panel in fitting
        for stem in exhibit.files
        for kind in ("svg", "md")
        if (name := f"{panel.suite}/{called(stem, panel.stream)}-{panel.slug}.{kind}") in files
    ]
    if not drawn:
        return Entry(exhibit, f"not run: {_missing(exhibit, panels)}; {PAPER}", [])
    same = len(theirs & frozenset().union(*(panel.cells for panel in fitting)))
    state = "in another setting"
    if same:
        state = f"{same} of {len(theirs)} columns in the paper's setting"
    return Entry(exhibit, state, drawn)


def _missing(exhibit: Exhibit, panels: list[Ran]) -> str:
    """Which runs are not there."""
    streams = [panel.stream for panel in panels if panel.stream in exhibit.streams]
    if not streams:
        first, *_, last = exhibit.streams * 2
        return first if first == last else f"{first} to {last}"
    what = " or ".join(exhibit.varied or exhibit.methods).replace("_", " ")
    return f"{streams[0]} with other {what}" if exhibit.varied else f"{what} on {streams[0]}"
