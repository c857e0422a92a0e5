"""Suites are checked before anything runs, one sentence each; keys change when they must."""

import copy
import os

import pytest
import yaml

import baselines
from analysis.records.reading import published
from analysis.records.runs import read_suite
from analysis.tables.tuning import choices
from analysis.text import quoted
from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.runs.options import BACKBONE, TRAINING
from benchmarks.runs.suite import SUITES, load_suite
from tests import bounds
from tests.own_suite import own_suite

SUITE = {
    "label": "a test",
    "seeds": [0, 1],
    "experiments": [
        {
            "stream": {"name": "glyphs", "train_per_class": 4, "test_per_class": 2},
            "backbone": {"name": "micro-vit"},
            "train": {"epochs": 1, "mask": "current"},
            "methods": {"seqlora": {}, "treelora": {"strength": 0.2}},
        },
        {
            "stream": {"name": "docs", "train_per_task": 8, "test_per_task": 4},
            "backbone": {"name": "micro-llama"},
            "train": {"epochs": 1},
            "methods": {"olora": {}},
        },
    ],
}


@pytest.fixture
def suite(tmp_path):
    def load(change=lambda document: None):
        document = copy.deepcopy(SUITE)
        change(document)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(document))
        return load_suite(str(path))

    return load


def first(document):
    return document["experiments"][0]


@pytest.mark.parametrize("name", sorted(p.stem for p in SUITES.glob("*.yaml")))
def test_every_suite_that_comes_with_the_project_is_valid(name):
    assert load_suite(name).runs


def test_tuned_rows_have_what_the_published_trials_chose():
    """Of trials that are not published yet nothing is asked."""
    chosen = {}
    for name in sorted(path.stem for path in SUITES.glob("*.yaml")):
        for method, train in {
            run.key: (run.spec["method"], run.spec["train"]) for run in load_suite(name).runs
        }.values():
            trials, _, row = method.get("tuned", "").partition("/")
            if trials in published():
                if trials not in chosen:
                    [panel] = read_suite(published()[trials]).panels
                    chosen[trials] = choices(panel)
                have = train | method["config"]
                asked = chosen[trials][row].settings
                assert asked == {key: have[key] for key in asked}, f"{method['label']} of {name}"
            elif trials:
                assert trials in {path.stem for path in SUITES.glob("*.yaml")}


def test_runs_are_the_product_of_methods_and_seeds(suite):
    runs = suite().runs
    assert len(runs) == 2 * 2 + 2
    assert len({run.key for run in runs}) == len(runs)
    assert runs[0].spec["train"]["epochs"] == [1] * 10


# Where in the suite, which value, and what the sentence mentions: if nothing is said, the setting
# and the value.
WRONG = [
    ("seed", [0], "seeds"),
    ("label", 7),
    ("label", None),
    ("label", "  ", "label"),
    ("seeds", ["a"], "seeds", "'a'"),
    ("seeds", [1, 1]),
    ("seeds", []),
    ("seeds", [-1], "seeds", "-1"),
    ("seeds", [True], "seeds", "True"),
    ("seeds", [2**32], "seeds", str(2**32)),
    ("seeds", [2**64], "seeds"),
    ("keep", "all", "keep", "list"),
    ("keep", ["al"], "item 1 of keep", "'all' or 'adapters'", "'al'"),
    ("threads", 0),
    ("threads", 10**9),
    ("experiments", []),
    ("experiments", None),
    ("experiments", {"a": 1}),
    ("experiments.0", "text", "experiments"),
    ("experiments.0.train", None),
    ("experiments.0.methods", {}),
    ("experiments.0.methods", None),
    ("experiments.0.methods", ["seqlora"]),
    ("experiments.0.stream.name", "glyph", "'glyphs'"),
    ("experiments.0.stream.name", ["glyphs"]),
    ("experiments.0.stream.n_tasks", 11, "10"),
    ("experiments.0.stream.n_tasks", 0, "1"),
    ("experiments.0.stream.n_tasks", -1, "1"),
    ("experiments.0.stream.train_per_class", 0, "1"),
    ("experiments.0.stream.train_per_class", 81, "8,000"),
    ("experiments.0.stream.order", "random", "'seed' or 'fixed'"),
    ("experiments.0.stream.train_per_task", 4, "'train_per_class'"),
    ("experiments.1.stream.train_per_class", 4, "'train_per_task'"),
    ("experiments.1.stream.test_per_task", 10**5, "800"),
    ("experiments.1.stream.max_prompt_tokens", 3, "4"),
    ("experiments.1.stream.path", "x", "path"),
    ("experiments.0.backbone.name", "micro-vlt", "micro-vit"),
    ("experiments.0.backbone.name", "micro-llama", "language"),
    ("experiments.0.backbone.image_size", 0, "1"),
    ("experiments.0.backbone.image_size", 36, "8"),
    ("experiments.0.backbone.normalisation", "imagnet"),
    ("experiments.0.backbone.weights", "bfloat16", "weights", "vision"),
    ("experiments.1.backbone.image_size", 32, "image_size", "language"),
    ("experiments.0.train.epochs", [1, 2], "10"),
    ("experiments.0.train.epochs", 0, "1"),
    ("experiments.0.train.epochs", [0] * 10, "1"),
    ("experiments.0.train.epochs", "12"),
    ("experiments.0.train.mask", "none", "'current'"),
    ("experiments.0.train.learning_rate", 0),
    ("experiments.0.train.learning_rate", 10**400),
    ("experiments.0.train.learning_rate", "1e400", "learning_rate", "inf"),
    ("experiments.0.train.clip_norm", 0, "null"),
    ("experiments.0.train.clip_norm", -1),
    ("experiments.0.train.clip_norm", float("inf"), "finite"),
    ("experiments.0.train.batch_size", True),
    ("experiments.0.train.batch_size", 10**7, "1000000"),
    ("experiments.0.train.precision", "fp8", "'bfloat16'"),
    ("experiments.0.train.micro_batch_size", 64, "32"),
    ("experiments.0.train.augment", "flip", "'crop_flip'"),
    ("experiments.0.train.compile", 1),
    ("experiments.0.train.loss_mean", "samples", "loss_mean", "vision"),
    ("experiments.0.train.checkpointing", True, "vision"),
    ("experiments.1.train.mask", "all", "mask", "language"),
    ("experiments.1.train.loss_mean", "batch", "'samples'"),
    ("experiments.1.train.augment", "crop_flip", "augment", "language"),
    ("experiments.1.train.head_init", "zero", "head_init", "language"),
    ("experiments.0.methods.treelorra", {}, "treelora"),
    ("experiments.0.methods.Tree LoRA", {}, "method Tree LoRA"),
    ("experiments.0.methods." + "a" * 101, None, "100"),
    ("experiments.0.methods.seqlora", []),
    ("experiments.0.methods.seqlora.method", 1, "1"),
    ("experiments.0.methods.seqlora.preset", [1]),
    ("experiments.0.methods.seqlora.preset", "paper"),
    ("experiments.0.methods.seqlora.layers", 7, "4"),
    ("experiments.0.methods.treelora.strenght", 1, "'strength'"),
    ("experiments.0.methods.treelora.strength", -1),
    ("experiments.0.methods.treelora.strength", "much"),
    ("experiments.0.methods.treelora.search", "lbc", "lcb"),
    ("experiments.0.methods.treelora.preset", "papers", "'paper'"),
    ("experiments.0.methods.treelora.depth", 9, "8"),
    ("experiments.0.methods.treelora.rank", 10**18, "1,000,000"),
    ("experiments.0.methods.l2p", {"cache_queries": True, "augment": "crop_flip"}, "cache_queries"),
    ("experiments.0.methods.seqlora.title", "two\nlines", "title"),
    ("experiments.0.methods.seqlora.title", " ", "title"),
    ("experiments.0.methods.seqlora", {"title": "A", "grid": {"rank": [2]}}, "title"),
    ("experiments.0.methods.seqlora.tuned", "pilot", "tuned"),
    ("experiments.0.methods.seqlora.tuned", "cifar_pilto/ewc", "cifar_pilot"),
    ("experiments.0.methods.seqlora.tuned", "cifar_pilot/ecw", "no row of cifar_pilot", "'ewc'"),
    ("experiments.1.methods", {"seqlora": {"align": True}}, "align", "text"),
    ("experiments.0.methods.seqlora.grid", ["rank"], "grid"),
    ("experiments.0.methods.seqlora.grid", {"rank": []}, "grid, 'rank'"),
    ("experiments.0.methods.seqlora.grid", {"rank": [[2]]}, "grid, 'rank'", "[2]"),
    ("experiments.0.methods.seqlora.grid", {"rnk": [2]}, "seqlora-rnk-2", "'rank'"),
    ("experiments.0.methods.seqlora.grid", {"rank": [2, "a"]}, "seqlora-rank-a", "'a'"),
    ("experiments.0.methods.seqlora.grid", {"targets": ["v" * 99]}, "up to 100"),
    ("experiments.0.methods.seqlora", {"rank": 2, "grid": {"rank": [2]}}, "rank stands beside"),
    ("experiments.0.methods.seqlora.grid", {"rank": [*range(40)], "layers": [*range(40)]}, "1000"),
    ("experiments.0.methods.seqlora.method", "no/such.py", "no/such.py"),
    ("reference", "treelorra", "'treelora'"),
]


@pytest.mark.parametrize(
    ("place", "value", "more"), [(place, value, more) for place, value, *more in WRONG], ids=str
)
def test_a_bad_suite_is_refused_with_a_sentence(suite, place, value, more):
    *folders, name = place.split(".")

    def change(document):
        for folder in folders:
            document = document[int(folder) if folder.isdigit() else folder]
        document[int(name) if name.isdigit() else name] = value

    with pytest.raises(DataError) as caught:
        suite(change)
    sentence = str(caught.value)
    assert sentence.startswith("own.yaml: ") and "\n" not in sentence and len(sentence) < 1000
    if len(folders) > 1:
        assert f"experiment {int(folders[1]) + 1}: " in sentence
    for mentioned in more or (name[:99], quoted(value)):
        assert mentioned in sentence


@pytest.mark.parametrize("place", ["label", "seeds", "experiments", "train", "mask", "epochs"])
def test_what_is_missing_is_named(suite, place):
    def change(document):
        experiment = first(document)
        for mapping in (document, experiment, experiment.get("train")):
            if place in mapping:
                return mapping.pop(place)

    with pytest.raises(DataError, match=f"own.yaml.*{place}"):
        suite(change)


def test_what_may_stand_in_its_place_is_listed(suite):
    with pytest.raises(DataError, match="mask is missing: add all or seen or current"):
        suite(lambda d: first(d)["train"].pop("mask"))


def test_two_rows_of_one_name_are_refused(suite):
    with pytest.raises(DataError, match="seqlora stands twice on stream glyphs"):
        suite(lambda d: d["experiments"].append(first(d)))


def test_an_unknown_suite_or_file_is_named(tmp_path):
    with pytest.raises(DataError, match="'dmo'.*'demo'"):
        load_suite("dmo")
    with pytest.raises(DataError, match="no.yaml"):
        load_suite(str(tmp_path / "no.yaml"))


WRITTEN = """label: a test
seeds: [0]
experiments:
  - stream: {name: glyphs, train_per_class: 4}
    backbone: {name: micro-vit}
    train: {epochs: 1, mask: current}
    methods:
      seqlora: {}
"""


def written(folder, text, name="own.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_suite(str(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (WRITTEN + "      seqlora: {rank: 4}\n", "'seqlora' stands twice, in lines 8 and 9"),
        (WRITTEN + "seeds: [1]\n", "'seeds' stands twice, in lines 2 and 9"),
        (WRITTEN + "      'seqlora': {}\n", "'seqlora' stands twice, in lines 8 and 9"),
        (WRITTEN.replace("epochs: 1", "epochs: 010"), "epochs .*'010'"),
        (WRITTEN.replace("epochs: 1", "epochs: 1:30"), "epochs .*'1:30'"),
        (WRITTEN.replace("epochs: 1", "epochs: 2024-05-01"), "'2024-05-01'"),
        (WRITTEN.replace("label: a test", "label: no"), "label .* False"),
        (WRITTEN.replace("a test", '"\\ud800"'), "a character that no file can hold"),
        (WRITTEN + "      [seqlora]: {}\n", "a name was expected in line 9"),
        (WRITTEN.encode("utf-16"), "is not UTF-8 text"),
        (WRITTEN.replace("a test", "caf\u00e9").encode("latin-1"), "is not UTF-8 text .byte 11"),
        (WRITTEN.replace("a test", "a\0test"), "is not valid YAML"),
        (WRITTEN.replace("      seqlora", "\tseqlora"), "is not valid YAML"),
        (WRITTEN + "---\n" + WRITTEN, "is not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("x" * 2_000_000, "that is no suite file"),
        ("", "own.yaml.*None"),
        (WRITTEN.replace("[0]", "9" * 5000), "seeds|is not valid YAML"),
    ],
)
def test_a_suite_file_is_checked_as_it_is_written(tmp_path, text, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        written(tmp_path, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert "own.yaml" in str(caught.value)


@pytest.mark.parametrize("label", ["no", "1", "1e3", "2024-05-01", "null", "0x10", "1.0"])
def test_a_name_is_text_whatever_yaml_would_make_of_it(tmp_path, label):
    loaded = written(tmp_path, WRITTEN + f"      {label}: {{method: seqlora, rank: 4}}\n")
    assert [r.spec["method"]["label"] for r in loaded.runs] == ["seqlora", label]


def test_a_byte_order_mark_is_no_part_of_a_suite(tmp_path):
    assert keys(written(tmp_path, b"\xef\xbb\xbf" + WRITTEN.encode())) == keys(
        written(tmp_path, WRITTEN)
    )


def test_a_suite_that_is_no_plain_file_is_refused(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("folder", "pipe"):
        with pytest.raises(DataError, match=f"{name}.yaml is no file"):
            load_suite(str(tmp_path / f"{name}.yaml"))


@pytest.mark.parametrize("laugh", ["seeds: *a8", "seeds: [0]\nlabel: *a8", "seeds: [0]\n? *a8"])
def test_what_anchors_multiply_is_not_written_out(tmp_path, laugh):
    levels = [f"  - &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    text = "\n".join(["experiments:", "  - &a0 [x]", *levels, laugh, "threads: 1\n"])
    with pytest.raises(DataError) as caught:
        written(tmp_path, text)
    assert len(str(caught.value)) < 500


def test_merges_of_merges_do_not_multiply(tmp_path):
    levels = [f"  - &m{i} {{<<: [{','.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    text = "\n".join(["seeds: [0]", "label: x", "experiments:", "  - &m0 {a: 1}", *levels, ""])
    with pytest.raises(DataError, match="'a' is no setting here"):
        written(tmp_path, text)


def test_a_merged_setting_gives_way_to_a_method_s_own(tmp_path):
    text = WRITTEN.replace("seqlora: {}", "seqlora: &own {rank: 4, dropout: 0.1}")
    loaded = written(tmp_path, text + "      treelora: {<<: *own, rank: 2}\n")
    configs = [run.spec["method"]["config"] for run in loaded.runs]
    assert [(c["rank"], c["dropout"]) for c in configs] == [(4, 0.1), (2, 0.1)]


@pytest.mark.parametrize(
    "name", ["my suite", "cafe\u0301", "\u5b9f\u9a13", "a (1)", "it's", "9.40\u202fPM"]
)
def test_a_harmless_file_name_is_accepted(tmp_path, name):
    assert written(tmp_path, WRITTEN, f"{name}.yaml").name == name


@pytest.mark.parametrize(
    "name", ["$(touch x)", "`x`", "a;b", "{run}", "a\nb", "\x1b[2J", "..", "-x", "runs", "a" * 200]
)
def test_a_file_name_that_is_no_plain_name_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="rename it") as caught:
        written(tmp_path, WRITTEN, f"{name}.yaml")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [*BACKBONE.values(), *TRAINING.values()])
def test_every_number_of_the_backbone_and_of_training_has_bounds(options):
    bounds.check(options)


def keys(loaded):
    return {(r.spec["method"]["label"], r.spec["seed"]): r.key for r in loaded.runs}


def test_a_changed_setting_changes_that_methods_keys_and_no_others(suite):
    before = keys(suite())
    after = keys(suite(lambda d: first(d)["methods"]["treelora"].update(strength=0.3)))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {("treelora", 0), ("treelora", 1)}


def test_a_setting_at_its_default_keeps_the_key(suite):
    same = suite(lambda d: first(d)["methods"]["seqlora"].update(rank=8, dropout=0))
    assert keys(same) == keys(suite())
    off = {"micro_batch_size": None, "compile": False, "augment": None}
    assert keys(suite(lambda d: first(d)["train"].update(off))) == keys(suite())
    unsplit = {"n_tasks": 10, "order": "seed", "first_task_classes": None}
    same = suite(lambda d: first(d)["stream"].update(unsplit))
    assert keys(same) == keys(suite())


def test_shared_settings_can_be_overridden_for_one_method(suite):
    loaded = suite(lambda d: first(d)["methods"]["seqlora"].update(learning_rate="1e-3"))
    rates = {r.spec["method"]["label"]: r.spec["train"]["learning_rate"] for r in loaded.runs}
    assert rates == {"seqlora": 0.001, "treelora": 0.005, "olora": 0.005}


def test_a_method_may_stand_twice_under_two_names(suite):
    def add(document):
        first(document)["methods"]["treelora-free"] = {"method": "treelora", "strength": 0}

    runs = [r for r in suite(add).runs if r.spec["method"]["label"] == "treelora-free"]
    assert {r.spec["method"]["name"] for r in runs} == {"treelora"}


def test_a_grid_is_short_for_the_rows_of_all_combinations(suite):
    def short(document):
        grid = {"learning_rate": [0.001, 1e-5], "search": ["lcb_flat", "random"]}
        first(document)["methods"]["t"] = {"method": "treelora", "rank": 4, "grid": grid}

    def written_out(document):
        for rate in (0.001, 1e-5):
            for search in ("lcb_flat", "random"):
                row = {"method": "treelora", "rank": 4, "learning_rate": rate, "search": search}
                label = f"t-learning-rate-{rate}-search-{search.replace('_', '-')}"
                first(document)["methods"][label] = row

    assert keys(suite(short)) == keys(suite(written_out))
    assert ("t-learning-rate-1e-05-search-lcb-flat", 1) in keys(suite(short))


def test_a_value_that_stands_twice_in_a_grid_is_refused(suite):
    with pytest.raises(DataError, match="seqlora-rank-4 stands twice"):
        suite(lambda d: first(d)["methods"]["seqlora"].update(grid={"rank": [4, 4]}))


def test_a_reference_is_a_row_of_any_experiment(suite):
    assert suite().reference is None
    assert suite(lambda d: d.update(reference="olora")).reference == "olora"


METHOD = """
from dataclasses import dataclass
from baselines.common.lora import LoraMethod, LoraSettings


class Mine(LoraMethod):
    title = "Mine++"

    @dataclass(frozen=True)
    class Config(LoraSettings):
        pull: float = 1.0
"""


def words(run):
    method = run.spec["method"]
    return {name: method.get(name) for name in ("label", "name", "title", "origin")}


def test_a_method_from_outside_is_named_by_its_file_wherever_the_suite_lies(
    tmp_path, suite, monkeypatch
):
    (tmp_path / "mine.py").write_text(METHOD)

    def add(document):
        rows = {"mine": {}, "mine-strong": {"pull": 2.0}, "ours": {"title": "Ours"}}
        document["experiments"] = [first(document)]
        first(document)["methods"] = {n: {"method": "./mine.py"} | row for n, row in rows.items()}

    monkeypatch.chdir(tmp_path.parent)
    runs = suite(add).runs[::2]
    shared = {"name": "mine", "origin": f"{tmp_path.name}/mine.py"}
    assert [words(run) for run in runs] == [
        shared | {"label": "mine", "title": "Mine++"},
        shared | {"label": "mine-strong", "title": None},
        shared | {"label": "ours", "title": "Ours"},
    ]
    assert runs[0].key == runs[2].key != runs[1].key  # its name and its place decide no number
    assert all(baselines.of(run.spec["method"]).__name__ == "Mine" for run in runs)


def test_two_files_of_one_name_are_refused(tmp_path, suite):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(METHOD)
    with pytest.raises(DataError, match="b/mine.py and .*a/mine.py .* the method mine: rename"):
        suite(
            lambda d: first(d)["methods"].update(
                x={"method": "a/mine.py"}, y={"method": "b/mine.py"}
            )
        )


def test_a_stream_from_outside_is_named_by_its_file(tmp_path, suite, monkeypatch):
    (tmp_path / "shades.py").write_text(
        "from benchmarks.streams.common.base import VisionStream\n\n\n"
        "class Shades(VisionStream):\n"
        "    n_tasks, n_classes = 2, 4\n\n"
        "    def fingerprint(self):\n"
        "        return 'd' * 64\n"
    )
    monkeypatch.chdir(tmp_path.parent)
    runs = suite(lambda d: first(d)["stream"].update(name="shades.py")).runs
    stream = runs[0].spec["stream"]
    origin = f"{tmp_path.name}/shades.py"
    assert (stream["name"], stream["origin"], stream["n_tasks"]) == ("shades", origin, 2)
    assert streams.of(stream).arguments == [origin]
    assert "origin" not in runs[-1].spec["stream"]


def test_a_path_in_the_working_directory_is_kept_without_what_lies_above(tmp_path, monkeypatch):
    (tmp_path / "own/first").mkdir(parents=True)
    for part in ("train", "test"):
        (tmp_path / f"own/first/{part}.json").write_text(f'[{{"prompt": "{part}", "answer": "b"}}]')
    monkeypatch.chdir(tmp_path)
    stream = {"name": "text", "path": str(tmp_path / "own"), "tasks": {"first": "exact"}}
    [run] = load_suite(str(own_suite(tmp_path, stream, backbone="micro-llama"))).runs
    assert run.spec["stream"]["path"] == "own"


def test_a_preset_is_spelt_out_and_can_be_changed(suite):
    def change(document):
        methods = first(document)["methods"]
        methods["released"] = {"method": "treelora", "preset": "released", "strength": 0.2}

    configs = {r.spec["method"]["label"]: r.spec["method"]["config"] for r in suite(change).runs}
    assert configs["released"]["search"] == "softmax" and configs["released"]["strength"] == 0.2
    assert configs["treelora"]["search"] == "lcb"


def test_an_offline_method_is_the_same_run_however_the_others_are_tested(suite):
    def final(document):
        first(document)["methods"]["joint"] = {}
        first(document)["train"]["evaluate"] = "final"

    plain, changed = keys(suite(lambda d: first(d)["methods"].update(joint={}))), keys(suite(final))
    same = {label for (label, _), key in plain.items() if key in changed.values()}
    assert same == {"joint", "olora"}  # that is of another experiment


def test_an_offline_method_states_that_no_class_is_masked(suite):
    loaded = suite(lambda d: first(d)["methods"].update(joint={}))
    masks = {r.spec["method"]["label"]: r.spec["train"]["mask"] for r in loaded.runs}
    assert masks == {"seqlora": "current", "treelora": "current", "joint": "all", "olora": None}


def test_a_method_may_stand_on_two_backbones(suite):
    def add(document):
        more = copy.deepcopy(first(document))
        more["backbone"]["name"] = "vit-ti"
        document["experiments"].append(more)

    loaded = suite(add)
    assert len({run.key for run in loaded.runs}) == len(loaded.runs) == 2 * (2 * 2) + 2


def test_on_vision_the_paper_suite_sets_contenders_as_their_own_code_does():
    """HiDe's frame (thu-ml/HiDe-Prompt and HiDe-PET), and the rows `-own`."""
    found = 0
    for run in load_suite("paper").runs:
        method, train = run.spec["method"], run.spec["train"]
        config, label = method["config"], method["label"]
        if run.spec["modality"] != "vision":
            continue
        if method["name"] in ("hidelora", "hidetreelora"):
            assert train["clip_norm"] == 2.0
            assert config.get("depth", 10) == config["layers"] * len(config["targets"]) == 10
        elif label == "hideprompt":
            rate = config["identity_rate"] * train["learning_rate"]
            assert rate == pytest.approx(0.0005 * 24 / 256)
        elif label == "l2p":
            of_hide = {"top_k": 4, "head_input": "cls", "positions": "none", "pool_size": 30}
            assert config.items() >= of_hide.items()
        elif label == "gem-seen":
            assert train["mask"] == "seen"
        elif label.endswith("-own"):
            assert train["batch_size"] == 128 and train["clip_norm"] is None
            usual = {"codaprompt": (0.001,), "inflora": (0.0005,), "sdlora": (0.008, 0.01)}
            assert train["learning_rate"] in usual[method["name"]]
            assert train["head_init"] == (None if method["name"] == "sdlora" else "linear")
        else:
            continue
        found += 1
    assert found == 3 * (3 * 8 + 10)  # seeds, rows on each stream, and those of Tables 2 and 6


LANGUAGE = [f"table{i}" for i in (3, 4, 5, 7, 9, 10, 12, 13)]


def test_the_paper_suite_has_a_run_for_every_cell_of_the_paper():
    from analysis.records import counterparts as compare

    covered = {cell for run in load_suite("paper").runs for cell in compare.cells(run.spec)}
    values = compare.table("reported_values.csv")
    scores = values["exhibit"].isin(["table1", "table2", "table6", "table11", *LANGUAGE])
    scores |= values["metric"].str.startswith("op-")  # in the text
    wanted = set(values[scores][["exhibit", "block", "column"]].itertuples(index=False, name=None))
    assert wanted and wanted == covered
