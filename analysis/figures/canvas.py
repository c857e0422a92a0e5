"""What figures share: a canvas with title and foot, a legend, and the files that they become."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_pdf import PdfFile, RendererPdf
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis.figures.lettering import drawn, use_fallbacks, width
from analysis.figures.style import Style, styles
from analysis.records.runs import Panel

GREY = "#595959"
# No dates, so that the same records give the same bytes.
METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
matplotlib.rc_file(Path(__file__).with_name("figures.mplstyle"))
use_fallbacks()


def titled(title: str, foot: list[str], size: tuple[float, float]) -> Figure:
    """A figure with a title on top and lines of small print below; size in inches."""
    figure, (wide, high) = Figure(size, dpi=150), size
    bold = {"fontsize": 10, "fontweight": "bold"}
    figure.text(0.08 / wide, 1 - 0.1 / high, title, va="top", **bold)
    figure.text(0.08 / wide, 0.06 / high, "\n".join(foot), va="bottom", fontsize=7, c=GREY)
    return figure


def wrapped(foot: str, wide: float) -> list[str]:
    """A foot as lines for a figure of so many inches."""
    return textwrap.wrap(foot, int(wide * 18 * len(foot) / width(foot)))


def canvas(
    title: str,
    panel: Panel,
    size: tuple,
    left: float,
    right: float = 0.15,
    of: str = "",
    notes: Iterable[str] = (),
) -> tuple:
    """A figure and its axes; size and margins in inches, as a computed layout costs seconds.

    The foot states the suite's label, which runs are drawn (`of`, else the panel's), which methods
    are not, and `notes`.
    """
    foot = f"{panel.suite.label}. {panel.stream}, {panel.backbone}; {of or seeds(panel)}."
    absent = [
        f"{panel.titles[label]} ({runs['status'].iloc[0]})"
        for label, runs in panel.methods.items()
        if label not in panel.finished
    ]
    if absent:
        foot += f" Not drawn: {', '.join(absent)}."
    if not of and (left_out := len(panel.finished) - len(panel.drawn)):
        foot += f" {left_out} variants of these methods are in the table of ablations."
    foot += "".join(f" {panel.titles[label]}: {why}." for label, why in panel.outdated.items())
    foot += "".join(f" {note}" for note in notes)
    lines = wrapped(drawn(foot, 1000), size[0])
    wide, high = size[0], size[1] + 0.14 * len(lines)
    bottom, top = 0.55 + 0.14 * len(lines), 0.4
    figure = titled(drawn(title, 80), lines, (wide, high))
    inner = (wide - left - right) / wide, (high - bottom - top) / high
    return figure, figure.add_axes((left / wide, bottom / high, *inner))


def seeds(panel: Panel) -> str:
    """Over what the means are."""
    seeds = {len(runs) for runs in panel.finished.values()}
    count = "–".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else "no"
    return "one seed" if count == "1" else f"mean ± sd over {count} seeds"


def widest(panel: Panel, labels: Iterable[str]) -> float:
    """Inches that the longest name of these methods needs."""
    return 0.085 * max((width(drawn(panel.titles[label])) for label in labels), default=0)


def say(axes, text: str) -> None:
    """Why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0, 0.5, text, fontsize=9)


def as_percent(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def legend(axes, **named) -> None:
    """Right of the axes, where it covers nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), **named)


def looks(panel: Panel) -> dict[str, Style]:
    """How every method of the suite looks."""
    return styles(dict(panel.suite.runs[["method", "name"]].itertuples(index=False)))


class _Both:
    """Draws an SVG and a PDF in one go, as a figure takes longer to lay out than to write.

    Texts stand where the SVG's measures put them; the PDF's own differ by hundredths of a point.
    """

    def __init__(self, svg: RendererSVG, pdf: RendererPdf):
        self.svg, self.pdf = svg, pdf
        self.new_gc, self.flipy = pdf.new_gc, pdf.flipy  # its context can do what the other's can

    def __getattr__(self, name: str) -> object:
        """What draws, draws in both; everything else is the SVG's."""
        own = getattr(self.svg, name)
        if not name.startswith("draw_"):
            return own

        def draw(*what, **more) -> None:
            own(*what, **more)
            getattr(self.pdf, name)(*what, **more)

        return draw

    def draw_text(self, gc, x, y, *what, **more) -> None:
        self.svg.draw_text(gc, x, self.svg.height - y, *what, **more)  # whose y runs downwards
        self.pdf.draw_text(gc, x, y, *what, **more)


def render(figure: Figure) -> dict[str, bytes]:
    """A figure as the bytes of an `svg` and a `pdf` file."""
    (wide, high), dpi = figure.get_size_inches(), figure.dpi
    figure.dpi = 72  # both count in points
    svg, pdf = io.StringIO(), io.BytesIO()
    file = PdfFile(pdf, metadata=METADATA["pdf"])
    file.newPage(wide, high)
    to_svg = RendererSVG(72 * wide, 72 * high, svg, image_dpi=dpi, metadata=METADATA["svg"])
    to_pdf = RendererPdf(file, dpi, high, wide)
    figure.draw(MixedModeRenderer(figure, wide, high, dpi, _Both(to_svg, to_pdf)))
    for part in (to_svg, to_pdf, file):
        part.finalize()
    return {"svg": svg.getvalue().encode(), "pdf": pdf.getvalue()}
