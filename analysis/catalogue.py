"""What can be drawn: tables and figures, which register themselves where their functions stand.

    @table(need=lambda spec: spec["modality"] == "language")
    def routing(panel: Panel) -> Table: ...

    @figure("R, the score on every task after every task.")
    def curves(panel: Panel) -> Figure: ...

The function's name is the exhibit's. That is all there is to add, in any module of
`analysis.tables` or `analysis.figures`: command line, workflow and report take it from here, in
the order of the modules' names and then as the functions stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from analysis.records.runs import Panel


class Exhibit(NamedTuple):
    """A table or a figure.

    Attributes:
        draw: makes it of what it is `of`: a panel, or the facts of an experiment of no suite.
        caption: of a figure; a table states its own.
        need: whether a panel with a run of this spec has it; one run that needs it is enough.
    """

    draw: Callable
    of: type
    need: Callable[[dict], object]
    caption: str = ""


TABLES: dict[str, Exhibit] = {}
FIGURES: dict[str, Exhibit] = {}


def _always(spec: dict) -> bool:
    return True


def table(of: type = Panel, need: Callable[[dict], object] = _always) -> Callable:
    """Registers a function that makes a `Table`."""
    return _register(TABLES, of, need)


def is_result(spec: dict) -> bool:
    """Whether the run is more than a trial that settings are chosen by."""
    return not spec["stream"].get("holdout")


def figure(caption: str, of: type = Panel, need: Callable[[dict], object] = is_result) -> Callable:
    """Registers a function that makes a matplotlib `Figure`, by default not of trials."""
    return _register(FIGURES, of, need, caption)


def _register(exhibits: dict[str, Exhibit], *facts: object) -> Callable:
    def register(function: Callable) -> Callable:
        exhibits[function.__name__] = Exhibit(function, *facts)
        return function

    return register


def called(name: str, stream: str) -> str:
    """A figure's name: on streams on which the paper has the same in another figure, that one's."""
    return name.replace("fig4", {"imagenet_r": "fig6", "cub200": "fig7"}.get(stream, "fig4"))


def fitting(exhibits: dict[str, Exhibit], specs: list[dict]) -> dict[str, Exhibit]:
    """Those that make sense for a panel with runs of these specs."""
    return {name: own for name, own in about(exhibits, Panel).items() if any(map(own.need, specs))}


def about(exhibits: dict[str, Exhibit], kind: type) -> dict[str, Exhibit]:
    """Those of panels, or of one experiment."""
    return {name: own for name, own in exhibits.items() if own.of is kind}
