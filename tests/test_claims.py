"""The paper's claims: the rule, each verdict, what the paper reports; and the fidelity ledger."""

from contextlib import suppress
from math import exp, inf, log

import pytest
from fake_records import record, write

from analysis import claims, fidelity, reported
from analysis.__main__ import main
from analysis.effects import Effect
from analysis.metrics import Estimate
from analysis.runs import OUTDATED, read_suite
from analysis.variants import counterparts, find, plain, sweep, variants

NAN = float("nan")
SEEDS = 4
NOISE = (0.0, 0.01, -0.01, 0.005)


def run(label, seed, acc, method=None, config=None, train=None, ms=30.0, growth=1.0, suite="demo"):
    """A record of three tasks that ends with the same score on all; steps follow the epochs.

    `growth` is the cost of the last task over that of the second.
    """
    entry = record("docs" if suite == "docs" else "glyphs", label, seed, suite=suite)
    method = method or label
    entry["spec"]["method"] |= {"name": method}
    base = {"treelora": {"strength": 0.1, "search": "lcb", "layers": None}}.get(method, {})
    entry["spec"]["method"]["config"] = {"rank": 8} | base | (config or {})
    entry["spec"]["train"] |= {"epochs": 2, "learning_rate": 0.005, "curve_tests": 0} | (
        train or {}
    )
    epochs = entry["spec"]["train"]["epochs"]
    entry["spec"]["train"]["epochs"] = [epochs] * 3
    entry["stream"] = {"tasks": ["a", "b", "c"], "groups": ["x", "x", "y"]}
    acc = acc + NOISE[seed]
    entry["R"] = [[0.9, None, None], [0.5, 0.9, None], [acc, acc, acc]]
    cost = [1.0, 1.0, growth]
    entry["tasks"] = [
        entry["tasks"][0]
        | {"steps": 10 * epochs, "train_seconds": ms * 0.01 * epochs * c, "consolidate_seconds": 0}
        | {"peak_bytes": int(1e9 * c)}
        for c in cost
    ]
    return entry


def runs(label, acc, spread=0.0, **more):
    """All seeds; `spread` makes the difference to other labels vary by seed."""
    return [run(label, s, acc + spread * (-1) ** s, **more) for s in range(SEEDS)]


def judged(tmp_path, records, found=None):
    suite = read_suite(write(tmp_path / "runs.jsonl", records))
    return {verdict.claim.id: verdict for verdict in claims.judge([suite], found or {})}


# ---- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "region", "outcome"),
    [
        (0.1, 0.3, (0, inf), "supported"),
        (-0.3, -0.1, (0, inf), "not supported"),
        (-0.1, 0.3, (0, inf), "undecided"),
        (0.0, 0.0, (0, inf), "not supported"),  # no effect at all
        (-0.1, 0.1, (-0.2, 0.2), "supported"),
        (-0.1, 0.3, (-0.2, 0.2), "undecided"),
        (0.2, 0.3, (-0.2, 0.2), "not supported"),
        (-0.9, 0.1, (-inf, 0.2), "supported"),
        (NAN, NAN, (0, inf), "undecided"),  # one seed
    ],
)
def test_the_rule(low, high, region, outcome):
    assert Effect("x", Estimate((low + high) / 2, 0.1, low, high), 3, region).outcome == outcome


def test_the_least_favourable_effect_decides():
    def effect(what, low, high):
        return Effect(what, Estimate((low + high) / 2, 0.1, low, high), 3)

    good, better, open_, bad = (
        effect("good", 0.1, 0.2),
        effect("better", 0.3, 0.9),
        effect("open", -0.1, 0.9),
        effect("bad", -0.3, -0.1),
    )

    def verdict(*effects):
        made = claims.Verdict(claims.CLAIMS[0], "here", "", effects)
        return made.effect.what, made.word

    assert verdict(better, good) == ("good", "supported")
    assert verdict(better, open_) == ("open", "not testable")
    assert verdict(bad, better, open_) == ("bad", "not supported")


def test_the_number_of_seeds_that_would_tell():
    # quantiles from a printed table: t(15) = 2.131, t(16) = 2.120; 2.131 / 4 > 0.52 > 2.12 / 17^.5
    assert Effect("x", Estimate(0.52, 1.0, -1, 2), 3).seeds_needed == "about 17"
    assert Effect("x", Estimate(0.001, 1.0, -1, 2), 3).seeds_needed == "more than 1000"
    assert Effect("x", Estimate(0.52, 1.0, -1, 2), 3, (-inf, 1.04)).seeds_needed == "about 17"


def test_effects_as_text():
    assert Effect("x", Estimate(0.1, 0.1, -0.02, 0.22), 3).text() == "+10.00 [−2.00, +22.00] points"
    times = Effect("x", Estimate(log(2), 0.1, log(1), log(4)), 3, (log(1.5), inf), "times")
    assert (times.text(), times.bar()) == ("2.00 [1.00, 4.00]×", "> 1.50×")
    assert Effect("x", Estimate(0.0), 1).bar() == "> 0"
    assert Effect("x", Estimate(0.0), 1, (-0.01, 0.01)).bar() == "within ±1.00 points"
    assert Effect("x", Estimate(0.0), 1, (-inf, 0.01)).bar() == "< +1.00 points"


# ---- which runs belong together -----------------------------------------------------------------


def test_variants_are_told_by_their_settings(tmp_path):
    records = [
        *runs("treelora", 0.5),
        *runs("strong", 0.5, method="treelora", config={"strength": 0.5}),
        *runs("dice", 0.5, method="treelora", config={"search": "random"}),
        *runs("both", 0.5, method="treelora", config={"search": "random", "strength": 0.5}),
        *runs("long", 0.5, method="treelora", train={"epochs": 5}),
    ]
    (panel,) = read_suite(write(tmp_path / "runs.jsonl", records)).panels
    assert variants(panel, "treelora")["both"] == {"search": "random", "strength": 0.5}
    assert find(panel, "treelora", {"epochs": 5}) == "long"
    assert find(panel, "treelora", {"epochs": 6}) is None
    assert sweep(panel, "treelora", "strength") == {0.1: "treelora", 0.5: "strong"}
    assert set(counterparts(panel, "treelora", {"search": "random"})) == {
        ("dice", "treelora"),
        ("both", "strong"),
    }
    assert variants(panel, "ewc") == {}


# ---- verdicts -----------------------------------------------------------------------------------

OTHERS = ("seqlora", "ewc", "gem", "l2p")


def tree(acc, label="variant", **more):
    return runs(label, acc, method="treelora", **more)


def others(acc, **more):
    return [entry for name in OTHERS for entry in runs(name, acc, **more)]


def with_curve(entries, score):
    for entry in entries:
        entry["test_curve"] = [
            {"task": task, "samples": n, "score": score + NOISE[entry["spec"]["seed"]]}
            for task in range(3)
            for n in (32, 64)
        ]
    return entries


BASE = runs("treelora", 0.5)
SEQ = runs("seqlora", 0.4)
HIDE = runs("hidetreelora", 0.5)
TEXT = {"suite": "docs"}  # a stream of text
TEXT_BASE = runs("treelora", 0.5, **TEXT)
LONG = {"train": {"epochs": 5}} | TEXT
DICE = tree(0.5, config={"search": "random"}, **TEXT)
LONGER = runs("long", 0.6, method="seqlora", **LONG)
SHORTER = [*runs("seqlora", 0.4, **LONG), *runs("brief", 0.45, method="seqlora", **TEXT)]
VERDICTS = [
    ("accuracy", [*BASE, *others(0.4)], "supported"),
    ("accuracy", [*BASE, *others(0.6)], "not supported"),
    ("accuracy", [*BASE, *others(0.5, spread=0.1)], "not testable"),
    ("accuracy", [*BASE, *SEQ], "not testable"),  # too few contenders
    ("accuracy", [*runs("treelora", 0.2), *HIDE, *others(0.4)], "supported"),  # the paper's form
    ("accuracy", [*BASE, *others(0.4), *runs("ranpac", 0.9)], "supported"),  # none of the paper's
    ("accuracy", [*BASE, *runs("ranpac", 0.4), *runs("olora", 0.4), *SEQ], "not testable"),
    ("accuracy", [*TEXT_BASE, *others(0.4, **TEXT), *runs("olora", 0.9, **TEXT)], "not supported"),
    ("forgetting", [*BASE[:2], *SEQ[2:]], "not testable"),  # no common seed
    ("forgetting", [*BASE, *SEQ], "supported"),
    ("forgetting", [*BASE, *runs("seqlora", 0.6)], "not supported"),
    ("speed-vision", [*BASE, *runs("seqlora", 0.4, ms=96)], "supported"),
    ("speed-vision", [*BASE, *SEQ], "not supported"),
    ("speed-vision", [*HIDE, *runs("hidelora", 0.5, ms=96)], "supported"),
    ("speed-vision", [*HIDE, *runs("hidelora", 0.5)], "not supported"),
    ("speed-equal-epochs", [*BASE, *runs("olora", 0.4, ms=45)], "supported"),
    ("speed-equal-epochs", [*BASE, *runs("olora", 0.4, ms=33)], "not supported"),
    ("speed-equal-epochs", [*BASE, *runs("olora", 0.4, train={"epochs": 5})], "not testable"),
    ("speed-same-schedule", [*TEXT_BASE, *runs("seqlora", 0.4, ms=60, **TEXT)], "supported"),
    ("speed-same-schedule", [*TEXT_BASE, *runs("seqlora", 0.4, ms=33, **TEXT)], "not supported"),
    ("speed-same-schedule", [*TEXT_BASE, *runs("seqlora", 0.4, **LONG)], "not testable"),
    ("speed-same-schedule", [*TEXT_BASE, *SHORTER], "not supported"),
    ("accuracy-same-schedule", [*TEXT_BASE, *SHORTER], "supported"),
    ("accuracy-same-schedule", [*TEXT_BASE, *runs("seqlora", 0.6, **TEXT)], "not supported"),
    ("fewer-epochs", [*TEXT_BASE, *SHORTER], "supported"),
    ("fewer-epochs", [*TEXT_BASE, *runs("seqlora", 0.4, **TEXT), *LONGER], "not supported"),
    ("fewer-epochs", [*TEXT_BASE, *runs("seqlora", 0.4, **LONG)], "not testable"),
    (
        "penalty",
        [*TEXT_BASE, *SHORTER, *tree(0.5, config={"search": "random"}, **TEXT)],
        "supported",
    ),
    ("robust-lambda", [*BASE, *tree(0.502, config={"strength": 0.5})], "supported"),
    ("robust-lambda", [*BASE, *tree(0.6, config={"strength": 0.5})], "not supported"),
    ("robust-lambda", [*BASE, *tree(0.502, config={"layers": 1})], "not testable"),
    ("robust-learning-rate", [*BASE, *tree(0.502, train={"learning_rate": 0.001})], "supported"),
    ("robust-learning-rate", [*BASE, *tree(0.4, train={"learning_rate": 0.001})], "not supported"),
    ("search", [*BASE, *tree(0.45, config={"search": "random"})], "supported"),
    ("search", [*BASE, *tree(0.5, config={"search": "random"})], "not supported"),
    ("search", [*BASE, *tree(0.5, spread=0.1, config={"search": "random"})], "not testable"),
    ("penalty", [*BASE, *SEQ, *tree(0.45, config={"search": "random"})], "supported"),
    ("penalty", [*BASE, *SEQ, *tree(0.35, config={"search": "random"})], "not supported"),
    ("depth", [*BASE, *tree(0.4, config={"layers": 1})], "supported"),
    ("depth", [*BASE, *tree(0.6, config={"layers": 1})], "not supported"),
    ("epochs", [*BASE, *tree(0.505, train={"epochs": 10})], "supported"),
    ("epochs", [*BASE, *tree(0.6, train={"epochs": 10})], "not supported"),
    ("epochs", [*BASE, *tree(0.6, train={"epochs": 1})], "not testable"),
    ("constant-time", [*BASE, *SEQ], "supported"),
    ("constant-time", [*runs("treelora", 0.5, growth=1.5), *SEQ], "not supported"),
    ("constant-memory", [*BASE, *SEQ], "supported"),
    ("constant-memory", [*runs("treelora", 0.5, growth=1.5), *SEQ], "not supported"),
    ("adaptation", [*BASE, *SEQ], "not testable"),
]


@pytest.mark.parametrize(("claim", "records", "word"), VERDICTS)
def test_every_verdict_can_be_reached(tmp_path, claim, records, word):
    verdict = judged(tmp_path, records)[claim]
    assert verdict.word == word, verdict.effects
    assert bool(verdict.would_test) == (word == "not testable")
    common = SEEDS if len(records) != SEEDS else 0
    assert not verdict.effect or verdict.effect.n == common


def test_methods_that_the_paper_lacks_stand_beside(tmp_path):
    ncm = runs("ncm", 0.7, method="ranpac")
    strong = runs("ranpac-strong", 0.9, method="ranpac")  # a variant is no method of its own
    records = [*BASE, *others(0.4), *runs("ranpac", 0.6), *ncm, *strong]
    found = judged(tmp_path, records)
    verdict = found["accuracy"]
    assert verdict.word == "supported" and verdict.effect.what == "treelora − seqlora"
    assert verdict.beside == "−20.00 points (treelora − ncm, not in the paper's table)"
    assert {e.what.split()[2].strip(",") for e in verdict.effects} == {*OTHERS, "ranpac", "ncm"}
    assert verdict.beside in claims.table([verdict]).markdown()
    rows = [line.split(",")[2:4] for line in claims.csv([verdict]).splitlines()[1:]]
    assert [word for word, _ in rows] == ["supported", "beside", "beside"]


def test_beside_forgetting_stands_what_was_learnt(tmp_path):
    slow = runs("treelora", 0.5)
    for entry in slow:
        entry["R"] = [[0.6, None, None], [0.5, 0.6, None], entry["R"][2]]
    verdict = judged(tmp_path, [*slow, *SEQ])["forgetting"]
    assert verdict.word == "supported"
    learnt = (2 * (0.6 - 0.9) + 0.1) / 3  # the last task ends as it was learnt
    assert verdict.beside.startswith(f"{100 * learnt:.2f}".replace("-", "−"))
    assert verdict.beside.endswith("(treelora − seqlora, right after learning)")


def test_no_common_seed_is_no_estimate(tmp_path):
    verdict = judged(tmp_path, [*BASE[:2], *SEQ[2:]])["forgetting"]
    assert verdict.would_test == "undecided: no seed has all of seqlora − treelora"
    assert "nan" not in claims.table([verdict]).markdown()


def test_a_setting_may_hold_settings():
    assert plain([[1, 2], [1, 2]]) == (1, 2) and plain([[1], [2]]) == (1, 2)
    assert hash(plain({"b": [1, {"a": 2}], "a": None})) is not None
    assert plain([3, 3]) == 3 and plain([]) == () and plain("x") == "x"


def test_adaptation_compares_the_curves_of_later_tasks(tmp_path):
    curve = {"curve_tests": 2}
    slow = with_curve(runs("seqlora-curve", 0.4, method="seqlora", train=curve), 0.3)
    fast = with_curve(tree(0.5, label="treelora-curve", train=curve), 0.4)
    verdict = judged(tmp_path, [*BASE, *SEQ, *slow, *fast])["adaptation"]
    assert verdict.word == "supported" and verdict.effect.estimate.mean == pytest.approx(0.1)
    assert verdict.effect.what.startswith("treelora-curve − seqlora-curve")


def test_the_speed_up_is_the_product_of_its_parts(tmp_path):
    language = {"suite": "docs"}
    records = [
        *runs("treelora", 0.5, ms=30, **language),
        *runs("olora", 0.5, ms=36, **language),
        *runs("slow", 0.5, method="olora", ms=36, train={"epochs": 5}, **language),
    ]
    found = judged(tmp_path, records)
    effect = found["speed-language"].effect
    per_step, steps = effect.parts
    assert exp(per_step.estimate.mean) == pytest.approx(1.2)
    assert exp(steps.estimate.mean) == pytest.approx(2.5)
    assert exp(effect.estimate.mean) == pytest.approx(1.2 * 2.5)
    assert effect.text() == "3.00× = 1.20 (time per step) × 2.50 (steps)"
    assert effect.what == "TIME of slow / treelora" and found["speed-language"].word == "supported"
    score = found["accuracy-own-epochs"]
    assert (score.effect.what, score.word) == ("treelora − slow", "supported")
    equal = found["speed-equal-epochs"].effect
    assert exp(equal.estimate.mean) == pytest.approx(1.2) and equal.parts[1].estimate.mean == 0
    assert exp(effect.region[0]) == pytest.approx(2.4**0.5)  # nearer to the paper's than to 1


def test_what_is_not_testable_says_what_would_test_it(tmp_path):
    found = judged(tmp_path, BASE)
    assert found["search"].would_test == (
        "needs treelora with search random (suites ablations, cifar_ablations)"
    )
    assert all(verdict.would_test for verdict in found.values() if not verdict.effects)
    assert {verdict.claim.id for verdict in found.values()} == {c.id for c in claims.CLAIMS}
    one = judged(tmp_path, [BASE[0], SEQ[0]])["forgetting"]
    assert one.word == "not testable" and "one seed" in one.would_test
    many = judged(tmp_path, [*BASE, *tree(0.51, spread=0.1, config={"search": "random"})])["search"]
    assert many.would_test.startswith("undecided: ") and "seeds would tell" in many.would_test


def test_runs_that_suites_share_are_judged_once(tmp_path):
    suites = []
    for name, more in (("one", []), ("two", runs("gem", 0.2, suite="two"))):
        records = [*runs("treelora", 0.5, suite=name), *runs("seqlora", 0.4, suite=name), *more]
        suites.append(read_suite(write(tmp_path / f"{name}.jsonl", records)))
    found = [v for v in claims.judge(suites, {}) if v.claim.id == "forgetting"]
    assert [verdict.place for verdict in found] == ["glyphs (one), glyphs (two)"]


def test_claims_on_what_other_computations_found(tmp_path):
    found = {
        "trees": {"glyphs": {0: 0.5, 1: 0.6, 2: 0.4}, "docs": {0: -0.1, 1: 0.1, 2: 0.0}},
        "regret": {
            ("unique", 0.5): Estimate(0.5, NAN, 0.4, 0.6),
            ("cluster", 0.5): Estimate(0.5, NAN, 0.4, 0.6),
            ("cluster", 0.9): Estimate(0.9, NAN, 0.8, 1.1),
            ("shuffled", 0.5): Estimate(2.0, NAN, 1.9, 2.1),
        },
        "accounting": {
            "flops": {"llm-7b": {"treelora": 1.1e9, "seqlora": 1e9, "olora": 1.2e9}},
            "disk": {"llm-7b": 67e6, "vit-b16": 0.9e6},
        },
    }
    suite = read_suite(write(tmp_path / "runs.jsonl", BASE))
    words = {(v.claim.id, v.place): v.word for v in claims.judge([suite], found) if v.claim.data}
    assert words == {
        ("tree", "glyphs"): "supported",
        ("tree", "docs"): "not testable",
        ("regret", "simulated trees, unique"): "supported",
        ("regret", "simulated trees, cluster"): "not testable",
        ("flops", "llm-7b"): "not supported",  # O-LoRA's are hardly more
        ("disk", "vit-b16"): "supported",
        ("disk", "llm-7b"): "not supported",
    }


def test_the_papers_own_effects():
    """By hand from its tables."""
    assert min(reported.lead("vision")) == pytest.approx(71.94 - 72.28)
    assert max(reported.lead("language")) == pytest.approx(36.14 - 33.73)
    assert reported.headline("vision") == 3.2 and reported.headline("language") == 2.4
    assert reported.times_faster("vision", "seqlora")["split-cifar100"] == pytest.approx(694 / 214)
    assert min(reported.times_faster_at_equal_epochs()) == pytest.approx(58 / 45)
    assert list(reported.times_faster_at_equal_epochs("seqlora")) == pytest.approx([43 / 45])
    equal = reported.lead_over_seqlora_at_equal_epochs()
    assert (min(equal), max(equal)) == pytest.approx((54.77 - 51.92, 62.76 - 49.03))
    assert reported.gain_of_fewer_epochs() == pytest.approx(51.92 - 46.94)
    assert reported.time_spread("vision") == pytest.approx(3 / 86)
    assert reported.rise(reported.by_epochs()) == pytest.approx(88.54 - 87.73)
    assert reported.rise(reported.by_depth()) == pytest.approx(43.52 - 21.49)
    assert dict(reported.robust_spread()) == pytest.approx({"lambda": 0.09, "learning-rate": 0.59})
    assert list(reported.ablation()) == [51.92, 54.03, 54.77]
    assert reported.flops()["olora"] / reported.flops()["treelora"] == pytest.approx(10)
    assert reported.disk()["llm-7b"] == 10


# ---- where they are shown -----------------------------------------------------------------------


def test_several_suites_have_one_overview(tmp_path):
    sources = [
        str(write(tmp_path / f"{name}.jsonl", [*runs("treelora", 0.5, suite=name), *extra]))
        for name, extra in (("one", runs("seqlora", 0.4, suite="one")), ("two", []))
    ]
    out = tmp_path / "out"
    assert main([*sources, "--out", str(out), "--exhibits", "claims", "report"]) == 0
    page = (out / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('<a href="')[1:]]
    assert all((out / link).is_file() for link in links)
    assert {"./one/report/index.html", "claims.csv", "figures/regret_arms.svg"} <= set(links)
    assert "Theorem 1 as an experiment" in page and "Operations per token" in page
    assert "glyphs (one)" in page and "+6.67 points" in page
    alone = (out / "one/report/index.html").read_text()
    assert '<a href="#claims">' in alone and "It forgets less than SeqLoRA" in alone
    lines = (out / "claims.csv").read_text().splitlines()
    row = next(line for line in lines if line.startswith("forgetting"))
    assert row.startswith("forgetting,glyphs (one),supported,seqlora − treelora,points,4,0.")
    assert claims.RULE[0][:60] in (out / "claims.md").read_text()
    assert r"p{26mm}" in (out / "claims.tex").read_text()


# ---- the ledger ---------------------------------------------------------------------------------

ENTRIES = [(group, entry) for group, entries in fidelity.read().items() for entry in entries]


def test_every_entry_is_complete():
    known = {"topic", "paper", "released", "here", "option", "variant", "metric"}
    for group, entry in ENTRIES:
        assert {"topic", "paper", "released", "here"} <= entry.keys() <= known, (group, entry)
        texts = [value for value in entry.values() if isinstance(value, str)]
        assert all(text and "\n" not in text for text in texts), entry["topic"]
    topics = [entry["topic"] for _, entry in ENTRIES]
    assert len(set(topics)) == len(topics)


OPTIONS = [
    (entry["topic"], owner, settings)
    for _, entry in ENTRIES
    for owner, settings in entry.get("option", {}).items()
]


@pytest.mark.parametrize(("topic", "owner", "settings"), OPTIONS, ids=lambda value: str(value)[:30])
def test_every_option_exists(topic, owner, settings):
    """In some stream, or in the training of some modality."""
    import baselines
    from benchmarks import streams
    from benchmarks.common.files import DataError
    from benchmarks.common.options import field_names, parse
    from benchmarks.runs.options import TRAINING

    def takes(cls, mapping):
        with suppress(DataError):
            return parse(cls, mapping)

    assert settings, topic
    if owner == "stream":
        classes = {name: streams.load(name).Options for name in ("glyphs", "docs", "trace")}
        assert any(takes(cls, {"name": name} | settings) for name, cls in classes.items())
        return
    method = baselines.load(owner)
    training = {name for cls in TRAINING.values() for name in field_names(cls)}
    shared = {key: value for key, value in settings.items() if key in training}
    needed = {"vision": {"epochs": 1, "mask": "all"}, "language": {"epochs": 1}}
    assert any(takes(cls, needed[modality] | shared) for modality, cls in TRAINING.items())
    own = {key: value for key, value in settings.items() if key not in training}
    if "preset" in own:
        assert own.pop("preset") in method.presets
    assert takes(method.Config, own)


def test_what_is_called_older_is_older_than_todays_code():
    import baselines

    for method, entries in OUTDATED.items():
        for modality, below, why in entries:
            assert 1 < below <= baselines.load(method, modality).version and why


def test_differences_are_measured_where_a_run_differs_in_just_these_settings(tmp_path):
    records = [
        *BASE,
        *tree(0.6, label="dice", config={"search": "random"}),
        *tree(0.7, label="strong", config={"strength": 0.5}),
        *tree(0.65, label="both", config={"strength": 0.5, "search": "random"}),
    ]
    suites = [read_suite(write(tmp_path / "runs.jsonl", records))]
    entry = {"option": {"treelora": {"search": "random"}}}
    assert set(fidelity.measured(entry, suites).split("; ")) == {
        "glyphs (demo): +10.00 points, 4 seeds",
        "glyphs (demo): both − strong −5.00 points, 4 seeds",
    }
    assert fidelity.measured({"option": {"treelora": {"search": "lcb_flat"}}}, suites) == (
        "not measured"
    )
    by_label = {"option": {"treelora": {"preset": "released"}}, "variant": "dice"}
    assert "+10.00 points" in fidelity.measured(by_label, suites)
    assert fidelity.measured({"metric": "bwt_standard"}, suites).startswith("glyphs (demo): +")
    assert fidelity.measured({}, suites) == ""
