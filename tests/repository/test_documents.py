"""For readers: generated pages are current, and links lead somewhere."""

import re
from pathlib import Path

import pytest

from analysis import pages
from analysis.claims.judge import judge, measure
from analysis.forest import forest
from analysis.records.runs import read_suite
from benchmarks import documents
from tests.fake_records import record, write

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.slow
def test_generated_documents_are_current():
    assert documents.outdated(documents.documents()) == [], "run make docs"


def anchors(page: Path) -> set[str]:
    """What a link into the page can name: its own anchors and, as GitHub makes them, headings."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link or (target.exists() and (not anchor or anchor in anchors(target))):
            continue
        broken.append(link)
    assert broken == []


def test_the_architecture_names_each_module_once():
    """Those of a run's way; methods, streams and `__init__` files are named by their folder.

    Tables and figures need not be, so that one more is one file.
    """
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(\.\./([^)]+\.py)\)", page)
    rooms = ("baselines/common", "benchmarks", "analysis")
    modules = {
        p.relative_to(ROOT).as_posix() for room in rooms for p in (ROOT / room).rglob("*.py")
    }
    streams = {
        name for name in modules if re.fullmatch(r"benchmarks/streams/[a-z0-9_]*[a-z0-9]\.py", name)
    }
    wanted = {name for name in modules - streams if not name.endswith("__init__.py")}
    drawn = {name for name in wanted if re.match(r"analysis/(tables|figures)/", name)}
    assert len(set(named)) == len(named) and wanted - drawn <= set(named) <= wanted


def test_the_readme_is_read_in_a_minute():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 8 * 2**10 and len(text.split()) <= 900


def test_the_worked_example_is_the_one_that_is_tested():
    example = (ROOT / "examples/anchor.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```" in (ROOT / "docs/add-a-method.md").read_text(encoding="utf-8")


def test_the_widest_suite_speaks_for_a_stream(tmp_path):
    """In plots and the README's table; the page of claims has what every suite says."""
    suites = [
        read_suite(
            write(
                tmp_path / f"{name}.jsonl",
                [record("glyphs", method, seed, name) for method in methods for seed in seeds],
            )
        )
        for name, methods, seeds in (
            ("few", ("treelora", "seqlora"), range(3)),
            ("wide", ("treelora", "seqlora", "ewc"), range(3, 6)),
        )
    ]
    measured = [measure(suite) for suite in suites]
    verdicts = judge(measured, {})
    few, wide = (v.effect.text() for v in verdicts if v.claim.id == "forgetting")
    page = pages.claims_page(verdicts, measured, suites, {})
    assert all(text in page for text in (few, wide, "glyphs (few)", "glyphs (wide)"))
    spoken = forest(verdicts)
    assert wide.removesuffix(" points") in spoken and few.removesuffix(" points") not in spoken
    table = pages.headlines(verdicts).splitlines()
    assert len(table) == 2 + len(pages.HEADLINES)  # untested ones as well
    row = next(line for line in table if "#forgetting" in line)
    assert row.count("glyphs") == 1
