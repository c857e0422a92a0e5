"""What figures share: sizes, a canvas with room for a legend, and the files that they become.

A figure has the width of a column of print or of two, and neither title nor foot: what is drawn is
said by its label (`Figure.get_label`), which stands under it on a page.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_pdf import PdfFile, RendererPdf
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter

from analysis.figures.lettering import drawn, use_fallbacks, width
from analysis.figures.style import Style, styles
from analysis.records.runs import Panel

ONE, TWO = 3.25, 6.75  # inches
GREY = "#595959"
EMPTY = "empty"  # the id of a figure that only says why
# The level of outputs without any model, in every plot of a text stream.
FLOOR = {"label": "floor", "color": GREY, "linestyle": ":", "linewidth": 1}
ROW, LETTER, HANDLE = 0.125, 0.047, 0.36  # inches that a legend's line, letter and sample need
HERE = Path(__file__).parent
fontManager.addfont(HERE / "FigureSans.ttf")
matplotlib.rc_file(HERE / "figures.mplstyle")
use_fallbacks()


def sheet(wide: float, high: float, says: str = "") -> Figure:
    """A figure of so many inches, whose label says what is drawn."""
    figure = Figure((wide, high))
    figure.set_label(says)
    return figure


def canvas(
    high: float,
    left: float,
    names: Iterable[str] = (),
    says: str = "",
    wide: float = ONE,
    bottom: float = 0.36,
) -> tuple:
    """A figure and its axes, `high` without margins, and below them room for a legend of `names`.

    All in inches, as a computed layout costs seconds.
    """
    below = ROW * _shape(names, wide)[1] + 0.04
    whole, bottom = high + bottom + below + 0.08, bottom + below
    figure = sheet(wide, whole, says)
    inner = (left / wide, bottom / whole, (wide - left - 0.08) / wide, high / whole)
    return figure, figure.add_axes(inner)


def _shape(names: Iterable[str], wide: float) -> tuple[int, int]:
    """Columns and rows of a legend."""
    names = list(names)
    columns = int(wide / (HANDLE + LETTER * max(map(width, names), default=1)))
    columns = max(1, min(columns, len(names)))
    return columns, -(-len(names) // columns)


def legend(figure: Figure, handles: Mapping[str, object] | None = None) -> None:
    """Below the axes, where it covers nothing: these by name, else what the first axes have."""
    own = dict(zip(*figure.axes[0].get_legend_handles_labels()[::-1], strict=True))
    if handles := handles or own:
        columns, _ = _shape(handles, figure.get_figwidth())
        look = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.03 / figure.get_figheight())}
        figure.legend(handles.values(), handles, ncols=columns, **look)


def says(panel: Panel, of: str = "", notes: Iterable[str] = ()) -> str:
    """Which runs a figure draws (`of`, else all means), which methods it does not, and `notes`."""
    parts = [f"{panel.stream}, {panel.backbone}; {of or seeds(panel)}."]
    absent = [
        f"{panel.titles[label]} ({runs['status'].iloc[0]})"
        for label, runs in panel.methods.items()
        if label not in panel.finished
    ]
    if absent:
        parts.append(f"Not drawn: {', '.join(absent)}.")
    if not of and (left_out := len(panel.finished) - len(panel.drawn)):
        parts.append(f"{left_out} variants of these methods are in the table of ablations.")
    parts += [f"{panel.titles[label]}: {why}." for label, why in panel.outdated.items()]
    return " ".join([*parts, *notes])


def seeds(panel: Panel) -> str:
    """Over what the means are."""
    seeds = {len(runs) for runs in panel.finished.values()}
    count = "–".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else "no"
    return "one seed" if count == "1" else f"mean ± sd over {count} seeds"


def names(panel: Panel, labels: Iterable[str]) -> dict[str, str]:
    """How these methods are called in a figure."""
    return {label: drawn(panel.titles[label]) for label in labels}


def say(axes, text: str) -> None:
    """Why there is nothing to draw."""
    axes.figure.set_gid(EMPTY)
    axes.set_axis_off()
    axes.text(0, 0.5, text)


def has_content(figure: Figure) -> bool:
    """Whether anything is drawn, other than why there is nothing."""
    return figure.get_gid() != EMPTY


def as_percent(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def looks(panel: Panel) -> dict[str, Style]:
    """How every method of the suite looks."""
    return styles(dict(panel.suite.runs[["method", "name"]].itertuples(index=False)))


@cache
def _for_browsers(font: FontProperties) -> FontProperties:
    font = font.copy()
    font.set_family("sans-serif")
    return font


_measured = cache(text_to_path.get_text_width_height_descent)


class _Svg(RendererSVG):
    """An SVG that can stand in a page beside others: no ids but those that `svg.hashsalt` salts."""

    def open_group(self, s: str, gid: str | None = None) -> None:
        """Groups would have ids that come again in every figure."""

    def close_group(self, s: str) -> None:
        """Nothing was opened."""

    def get_text_width_height_descent(self, *text) -> tuple[float, float, float]:
        """Names and ticks come again in every figure."""
        return _measured(*text)

    def draw_text(self, gc, x, y, s, prop, *how, **more) -> None:
        super().draw_text(gc, x, y, s, _for_browsers(prop), *how, **more)


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
        other = getattr(self.pdf, name)

        def draw(*what, **more) -> None:
            own(*what, **more)
            other(*what, **more)

        setattr(self, name, draw)  # found at once the next time
        return draw

    def draw_text(self, gc, x, y, *what, **more) -> None:
        self.svg.draw_text(gc, x, self.svg.height - y, *what, **more)  # whose y runs downwards
        self.pdf.draw_text(gc, x, y, *what, **more)


# What matplotlib says of strokes to a whole page, for the figure alone; and the figure in the dark,
# with colours of the same hue. Images, whose colours are a scale, stay as they are.
STROKES = "*{stroke-linejoin: round; stroke-linecap: butt}"
STYLE = (
    ":root{color-scheme:light dark}.plot{stroke-linejoin:round;stroke-linecap:butt}"
    "@media screen and (prefers-color-scheme:dark)"
    "{.plot,.plot image{filter:invert(1) hue-rotate(180deg)}}"
)


def render(figure: Figure, name: str) -> dict[str, bytes]:
    """A figure as the bytes of an `svg` and a `pdf` file.

    The ids in the SVG hold for figures of this name only, so that one page may have many.
    """
    (wide, high), dpi = figure.get_size_inches(), figure.dpi
    figure.dpi = 72  # both count in points
    matplotlib.rcParams["svg.hashsalt"] = name
    svg, pdf = io.StringIO(), io.BytesIO()
    # no dates, so that the same records give the same bytes
    file = PdfFile(pdf, metadata=dict.fromkeys(("CreationDate", "Producer", "Creator")))
    file.newPage(wide, high)
    undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    to_svg = _Svg(72 * wide, 72 * high, svg, image_dpi=dpi, metadata=undated)
    to_pdf = RendererPdf(file, dpi, high, wide)
    figure.draw(_Both(to_svg, to_pdf))
    for part in (to_svg, to_pdf, file):
        part.finalize()
    text = svg.getvalue().replace(STROKES, STYLE).replace("<svg ", '<svg class="plot" ', 1)
    return {"svg": text.encode(), "pdf": pdf.getvalue()}
