"""The overview: what is said of all claims, how they are drawn, and where exhibits are found."""

import math
from math import isnan, log, nan
from xml.etree import ElementTree

import pytest
from fake_records import panel_of, record, seeds, suite_of

from analysis import exhibits, overview, pages
from analysis.claims.judge import judge, measure
from analysis.claims.summary import MIXED, Standing, chance, counts, findings, standings
from analysis.claims.verdict import ALIKE, CLAIMS, Effect, Reported, Verdict
from analysis.figures.lettering import width
from analysis.forest import NARROW, WIDE, forest
from analysis.records.metrics import Estimate
from analysis.scatter import HIGH, LETTER, LINE, Point, board, scatter
from analysis.scatter import WIDE as SCATTER_WIDE

SVG = "{http://www.w3.org/2000/svg}"


def verdict(id, setting, mean, half, n=3, **more):
    """On a claim that holds above 0."""
    sd = half / 4.302652729911275 * 3**0.5  # of three seeds
    effect = Effect("ours − theirs", Estimate(mean, sd, mean - half, mean + half), n, **more)
    return Verdict(CLAIMS[id], setting, setting, Reported("+8 points", 0.08, 0.08), (effect,))


YES, NO, OPEN = (("glyphs", 0.2, 0.1), ("docs", -0.2, 0.1), ("trace", 0.1, 0.3))


@pytest.mark.parametrize(
    ("places", "word"),
    [
        ([YES, OPEN], "supported"),
        ([NO, OPEN], "not supported"),
        ([YES, NO], MIXED),
        ([OPEN], "undecided"),
    ],
)
def test_a_claim_is_what_those_settings_say_that_tell(places, word):
    assert Standing(CLAIMS["search"], tuple(verdict("search", *p) for p in places)).word == word


def test_holm_counts_settings_once_and_only_what_varies():
    told = [verdict("search", "a", 0.5, 0.001), verdict("penalty", "a", 0.2, 0.19)]
    exact = Effect("x", Estimate(log(2), nan, log(2), log(2)), 0, unit="times")
    others = [
        verdict("depth", "a", 0.0, 0.2),
        Verdict(CLAIMS["disk"], "m", "m", Reported(""), (exact,)),
        Verdict(CLAIMS["epochs"], "", "", Reported("")),  # not run
    ]
    assert told[0].p < 0.05 / 3 and 0.05 / 2 < told[1].p < 0.05 and isnan(others[1].p)
    found = chance([*told, *others])
    assert (found.tested, found.n_effects, found.decided, found.stay) == (3, 3, 2, 1)


def test_verdicts_that_last_are_in_bold():
    told = [verdict("search", "last*s", 0.5, 0.001), verdict("search", "fades", 0.2, 0.19)]
    told.append(verdict("search", "open", 0.0, 0.2))
    assert r"| **last\*s**, fades |" in pages.headlines(told)


def test_p_is_that_of_the_interval():
    edge = verdict("search", "a", 0.1, 0.1)
    assert edge.p == pytest.approx(0.05)
    pair = Verdict(edge.claim, "a", "a", edge.paper, edge.effects * 2)
    assert pair.p == pytest.approx(0.1)  # either of two might have failed


def test_what_is_beside_and_below_zero_is_told():
    effects = (
        Effect("less forgotten", Estimate(0.2, 0.01, 0.1, 0.3), 3),
        Effect("learnt", Estimate(-0.1, 0.01, -0.2, -0.05), 3, beside="right after learning"),
    )
    own = Verdict(CLAIMS["forgetting"], "glyphs", "glyphs", Reported(""), effects)
    (claim, text), *_ = findings([own])[0].items
    assert claim.id == "forgetting"
    assert text == ": glyphs +20.00 points but −10.00 points (learnt, right after learning)"
    open_ = Estimate(0.1, 0.2, -0.1, 0.3)
    for why, told in ((ALIKE, True), ("right after learning", False)):
        beside = Effect("the method alone", open_, 3, beside=why)
        own = Verdict(CLAIMS["forgetting"], "glyphs", "glyphs", Reported(""), (effects[0], beside))
        (_, text), *_ = findings([own])[0].items
        assert text.endswith("which may be chance") is told


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The measured claims of two suites that share a stream; the second has more seeds."""
    made = []
    for name, levels in (("one", (0.5, 0.4, 0.2)), ("two", (0.5, 0.45, 0.1))):
        labels = ("treelora", "seqlora", "ranpac")
        records = [r for x in zip(labels, levels, strict=True) for r in seeds(*x, suite=name)]
        records = records if name == "two" else [r for r in records if r["spec"]["seed"] < 3]
        made.append(suite_of(tmp_path_factory.mktemp(name), records))
    return made


def test_one_suite_speaks_for_a_setting(two):
    measured = [measure(suite) for suite in two]
    verdicts = judge(measured, {})
    (standing,) = [s for s in standings(verdicts) if s.claim.id == "forgetting"]
    assert [(v.setting, v.place) for v in standing.verdicts] == [("glyphs", "glyphs (two)")]
    assert sum(v.claim.id == "forgetting" for v in verdicts) == 2
    text = counts(verdicts, measured)
    assert text.startswith(f"Of {len(CLAIMS)} claims") and "(glyphs)" in text


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=lambda layout: layout.name)
def test_the_forest_has_a_row_for_each_claim_and_setting(layout):
    own = [verdict("search", *place) for place in (YES, NO, OPEN)]
    own.append(verdict("penalty", "far <b>", 0.9, 0.1))
    own.append(verdict("speed-vision", "glyphs", log(2), 0.1, unit="times", region=(0.5, 9)))
    svg = forest(own, layout, lambda v: f"#{v.claim.id}")
    root = ElementTree.fromstring(svg)
    rows = [a for a in root.iter(f"{SVG}a") if a.find(f"{SVG}title") is not None]
    looks = [row.get("class") for row in rows]
    assert looks == ["supported", "not-supported", "undecided", "supported", "supported"]
    assert {row.get("href") for row in rows} == {"#search", "#penalty", "#speed-vision"}
    marks = [float(c.get("cx")) for row in rows for c in row.iter(f"{SVG}circle")]
    assert all(layout.plot <= x <= layout.plot_end for x in marks)
    assert [len(row.findall(f"{SVG}path[@class='arrow']")) for row in rows] == [0, 0, 0, 1, 0]
    bands = [row.find(f"{SVG}rect") for row in rows]
    assert all(float(band.get("width")) > 0 for band in bands)


def test_points_of_a_scatter_are_inside_and_their_names_apart():
    points = [Point(f"method {i}", 0.3 + i / 1000, 10 + i / 10, "#000000") for i in range(9)]
    points += [Point("elsewhere", 0.1, nan, "#000000"), Point("far", 0.8, 5000, "#000000", True)]
    root = ElementTree.fromstring(scatter("x", "ACC", points, {"joint": 0.9, "floor": 0.2}))
    names = [
        (round(float(text.get("x"))), round(float(text.get("y"))))
        for group in root.iter(f"{SVG}g")
        for text in group.iter(f"{SVG}text")
    ]
    assert len(set(names)) == len(points)
    assert all(0 < x < SCATTER_WIDE and 0 < y < HIGH for x, y in names)
    hollow = [c for c in root.iter(f"{SVG}circle") if c.get("fill") == "none"]
    assert len(hollow) == 1


def test_a_name_is_nearest_to_its_own_point():
    """Where names that are merely free would stand beside another point."""
    crowd = {
        **{"InfLoRA": (0.464, 32), "CODA-Prompt": (0.443, 31)},
        **{"O-LoRA": (0.433, 45), "DualPrompt": (0.406, 29)},
    }
    points = [Point(name, *place, "#000000") for name, place in crowd.items()]
    root = ElementTree.fromstring(scatter("x", "ACC", points, {}))
    places, own = {}, {}
    for group in root.iter(f"{SVG}g"):
        (circle,), (text,) = group.iter(f"{SVG}circle"), group.iter(f"{SVG}text")
        places[text.text] = float(circle.get("cx")), float(circle.get("cy"))
        long = LETTER * width(text.text)
        left = float(text.get("x")) - (long if text.get("text-anchor") == "end" else 0)
        own[text.text] = left, left + long, float(text.get("y")) - 3.5
    for name, (left, right, y) in own.items():

        def distance(point, left=left, right=right, y=y):
            beside, above = max(left - point[0], point[0] - right, 0), abs(point[1] - y) - LINE / 2
            return math.hypot(beside, max(above, 0))

        assert min(places, key=lambda other: distance(places[other])) == name


def test_no_name_stands_on_that_of_a_level():
    points = [Point("first", 0.2, 10, "#000000"), Point("second", 0.5, 40, "#000000")]

    def place(level):
        root = ElementTree.fromstring(scatter("x", "ACC", points, {"joint": level}))
        (text,) = (t for t in root.iter(f"{SVG}text") if t.text == "second")
        return text.get("text-anchor"), text.get("y")

    assert place(0.3)[0] == "start"
    assert place(0.5) != place(0.3)


def test_methods_beyond_the_paper_stand_below_its_own(two):
    table = overview.scores({"glyphs": board(two[1].panels[0])})
    assert [row["method"] for row in table.rows] == ["TreeLoRA", "SeqLoRA"]
    assert [row["method"] for row in table.below] == ["RanPAC (beyond the paper)"]


def test_exhibits_are_found_or_say_what_would_make_them(tmp_path):
    records = [record("cifar100", method) for method in ("treelora", "seqlora")]
    ran = exhibits.ran(panel_of(tmp_path, records))
    files = ["demo/tables/accuracy-cifar100.md", "demo/figures/fig4a-cifar100.svg"]
    files += ["figures/regret_arms.svg", "demo/tables/accuracy-cifar100.csv"]
    index = {entry.exhibit.name: entry for entry in exhibits.index([ran], files)}
    assert index["Table 1"].files == files[:1] and index["Figure 4"].files == files[1:2]
    assert index["Theorem 1"].files == files[2:3]
    for missing in ("Table 2", "Table 3", "Table 11", "Table 13", "Figure 7"):
        assert index[missing].files == [] and "SUITE=paper" in index[missing].state


def test_every_table_of_the_paper_is_in_the_index():
    cells = set().union(*(exhibit.cells for exhibit in exhibits.EXHIBITS))
    known = {name for name, *_ in cells}
    wanted = set(exhibits.table("reported_values.csv")["exhibit"])
    assert wanted - known <= {"text", "appendix-a3"}
