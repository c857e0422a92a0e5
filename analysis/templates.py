"""The environment of all pages: every string in them is escaped, but for the SVGs made here."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.figures.canvas import TWO


def inline(svg: bytes) -> Markup:
    """An SVG of ours as an element of a page; `render` made its texts text and its ids its own."""
    return Markup(svg[svg.index(b"<svg") :].decode())


def wide(svg: bytes) -> bool:
    """Whether it has the width of two columns of print."""
    return f'width="{72 * TWO:g}pt"'.encode() in svg[:1000]


PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters |= {"inline": inline, "wide": wide}
