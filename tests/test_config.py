"""Suites are checked before anything runs, one sentence each; keys change when they must."""

import copy
import dataclasses
import functools
import os
import typing

import pytest
import yaml

import baselines
from benchmarks.config import (
    SUITES,
    BackboneOptions,
    StreamOptions,
    TrainOptions,
    from_mapping,
    load_suite,
)
from benchmarks.files import DataError

MODALITIES = ("vision", "language")
hints = functools.cache(typing.get_type_hints)

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


def test_runs_are_the_product_of_methods_and_seeds(suite):
    runs = suite().runs
    assert len(runs) == 2 * 2 + 2
    assert len({run.key for run in runs}) == len(runs)
    assert runs[0].spec["train"]["epochs"] == [1] * 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.update(seed=[0]), "'seed' is no setting here: did you mean seeds"),
        (lambda d: d.pop("label"), "label is missing"),
        (lambda d: d.update(seeds=["a"]), "seeds must be a list of integers"),
        (lambda d: d.update(seeds=[1, 1]), "seeds must differ"),
        (lambda d: d.update(threads=0), "threads must be a positive integer, but is 0"),
        (lambda d: first(d)["stream"].update(name="glyph"), "did you mean 'glyphs'"),
        (lambda d: first(d)["backbone"].update(name="micro-vlt"), "did you mean micro-vit"),
        (lambda d: first(d)["backbone"].update(name="micro-llama"), "is vision, but backbone"),
        (lambda d: first(d)["methods"].update(treelorra={}), "did you mean treelora"),
        (
            lambda d: first(d)["methods"]["treelora"].update(strenght=1),
            "'strenght' is no setting here: did you mean strength",
        ),
        (
            lambda d: first(d)["methods"]["treelora"].update(strength=-1),
            "strength must not be negative, but is -1.0",
        ),
        (
            lambda d: first(d)["methods"]["treelora"].update(strength="much"),
            "strength must be float, but is 'much'",
        ),
        (
            lambda d: first(d)["methods"]["treelora"].update(search="lbc"),
            "search must be one of .* but is 'lbc': did you mean lcb",
        ),
        (
            lambda d: first(d)["methods"]["treelora"].update(preset="papers"),
            "preset must be one of paper, released, but is 'papers'",
        ),
        (
            lambda d: first(d)["methods"]["seqlora"].update(preset="paper"),
            "preset must be left out, as there are none",
        ),
        (
            lambda d: first(d)["methods"]["treelora"].update(depth=9),
            "depth must lie between 1 and the number of adapted matrices, 8, but is 9",
        ),
        (
            lambda d: first(d)["methods"]["treelora"].update(layers=2, depth=5),
            "number of adapted matrices, 4, but is 5",
        ),
        (
            lambda d: first(d)["methods"]["seqlora"].update(layers=7),
            "layers must lie between 1 and the backbone's 4, but is 7",
        ),
        (
            lambda d: first(d)["train"].update(epochs=[1, 2]),
            "epochs must be one number or 10 of them, one per task, but the list has 2",
        ),
        (lambda d: first(d)["train"].update(epochs=0), "epochs must be at least 1, but is 0"),
        (lambda d: first(d)["train"].update(mask="none"), "mask must be one of all, seen, current"),
        (lambda d: first(d)["train"].pop("mask"), "mask must be one of"),
        (lambda d: d["experiments"][1]["train"].update(mask="all"), "leave it out on language"),
        (lambda d: first(d)["train"].update(learning_rate=0), "learning_rate must be positive"),
        (
            lambda d: d["experiments"][1]["train"].update(loss_mean="batch"),
            "loss_mean must be samples or left out, not 'batch'",
        ),
        (lambda d: first(d)["train"].update(loss_mean="samples"), "loss_mean is of text; leave it"),
        (lambda d: first(d)["train"].update(precision="fp8"), "precision must be float32 or"),
        (
            lambda d: first(d)["train"].update(micro_batch_size=64),
            "micro_batch_size must lie between 1 and batch_size, 32, but is 64",
        ),
        (lambda d: first(d)["train"].update(augment="flip"), "augment must be crop_flip or left"),
        (lambda d: first(d)["train"].update(compile=1), "compile must be bool, but is 1"),
        (
            lambda d: d["experiments"][1]["train"].update(augment="crop_flip"),
            "augment is for images; leave it out on language",
        ),
        (lambda d: first(d)["stream"].update(n_tasks=11), "must be at most 10, but is 11"),
        (lambda d: first(d)["stream"].update(train_per_class=0), "must be at least 1, but is 0"),
        (lambda d: first(d)["stream"].update(order="random"), "order must be one of seed, fixed"),
        (lambda d: first(d).update(methods={}), "methods must map at least one"),
        (lambda d: first(d)["methods"].update({"Tree LoRA": {}}), "lower-case letters"),
        (lambda d: d["experiments"].append(first(d)), "seqlora stands twice on stream glyphs"),
        (lambda d: d.update(label=7), "label must be text, .* but is 7"),
        (lambda d: d.update(label=None), "label must be text, .* but is None"),
        (lambda d: d.update(seeds=[]), "seeds must be a list of integers"),
        (lambda d: d.update(seeds=[-1]), "seeds must lie between 0 and 4294967295"),
        (lambda d: d.update(seeds=[2**64]), "seeds must lie between 0 and 4294967295"),
        (lambda d: d.update(threads=10**9), "threads must be a positive integer"),
        (lambda d: d.update(experiments=[]), "experiments must be a list of at least one"),
        (lambda d: d.update(experiments=None), "experiments must be a list of at least one"),
        (lambda d: d.update(experiments={"a": 1}), "experiments must be a list of at least one"),
        (lambda d: first(d).update(train=None), "train must be a mapping of settings"),
        (lambda d: first(d).update(methods=None), "methods must map at least one"),
        (lambda d: first(d).update(methods=["seqlora"]), "methods must map at least one"),
        (lambda d: first(d)["methods"].update(seqlora=[]), "mapping of settings was expected"),
        (lambda d: first(d)["methods"]["seqlora"].update(method=1), "a method's name, but is 1"),
        (lambda d: first(d)["methods"]["seqlora"].update(preset=[1]), "preset must be left out"),
        (lambda d: first(d)["methods"].update({"a" * 101: None}), "up to 100"),
        (lambda d: first(d)["train"].update(clip_norm=0), "clip_norm must be positive, but is 0"),
        (lambda d: first(d)["train"].update(clip_norm=-1), "clip_norm must be positive"),
        (lambda d: first(d)["train"].update(clip_norm=float("inf")), "a finite number or null"),
        (lambda d: first(d)["train"].update(learning_rate=10**400), "learning_rate must be float"),
        (lambda d: first(d)["train"].update(learning_rate="1e400"), "be a finite number"),
        (lambda d: first(d)["train"].update(batch_size=True), "batch_size must be int"),
        (lambda d: first(d)["train"].update(epochs="12"), "epochs must be int or list"),
        (lambda d: first(d)["train"].update(batch_size=10**7), "batch_size must be at most"),
        (lambda d: first(d)["stream"].update(n_tasks=0), "n_tasks must be at least 1, but is 0"),
        (lambda d: first(d)["stream"].update(n_tasks=-1), "n_tasks must be at least 1"),
        (
            lambda d: first(d)["stream"].update(train_per_class=81),
            "train_per_class asks for 81 items, but glyphs has 8,000 in all",
        ),
        (lambda d: first(d)["stream"].update(train_per_task=4), "train_per_task is of language"),
        (
            lambda d: d["experiments"][1]["stream"].update(train_per_class=4),
            "train_per_class is of vision streams",
        ),
        (
            lambda d: d["experiments"][1]["stream"].update(test_per_task=10**5),
            "test_per_task asks for 100000 items, but docs has",
        ),
        (lambda d: first(d)["backbone"].update(image_size=0), "image_size must lie between 1"),
        (
            lambda d: first(d)["backbone"].update(image_size=36),
            "must be a multiple of 8, the patch",
        ),
        (
            lambda d: d["experiments"][1]["backbone"].update(image_size=32),
            "image_size is of pixels",
        ),
        (
            lambda d: first(d)["methods"].update(
                l2p={"cache_queries": True, "augment": "crop_flip"}
            ),
            "cache_queries needs the same pixels in every epoch",
        ),
    ],
)
def test_a_bad_suite_is_refused_with_a_sentence(suite, change, sentence):
    with pytest.raises(DataError, match=sentence.replace("(", r"\(")) as caught:
        suite(change)
    assert "\n" not in str(caught.value)
    assert "own.yaml" in str(caught.value)


def test_an_unknown_suite_or_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no suite is called 'dmo'.*did you mean demo"):
        load_suite("dmo")
    with pytest.raises(DataError, match="no.yaml does not exist"):
        load_suite(str(tmp_path / "no.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("label: [")
    with pytest.raises(DataError, match="broken.yaml is not valid YAML"):
        load_suite(str(broken))


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
        (WRITTEN.replace("epochs: 1", "epochs: 010"), "epochs must be int .*'010'"),
        (WRITTEN.replace("epochs: 1", "epochs: 1:30"), "epochs must be int .*'1:30'"),
        (WRITTEN.replace("epochs: 1", "epochs: 2024-05-01"), "'2024-05-01'"),
        (WRITTEN.replace("label: a test", "label: no"), "label must be text, .* but is False"),
        (WRITTEN.replace("a test", '"\\ud800"'), "a character that no file can hold"),
        (WRITTEN + "      [seqlora]: {}\n", "a name was expected in line 9"),
        (WRITTEN.encode("utf-16"), "is not UTF-8 text"),
        (WRITTEN.replace("a test", "caf\u00e9").encode("latin-1"), "is not UTF-8 text .byte 11"),
        (WRITTEN.replace("a test", "a\0test"), "is not valid YAML"),
        (WRITTEN.replace("      seqlora", "\tseqlora"), "is not valid YAML"),
        (WRITTEN + "---\n" + WRITTEN, "is not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("x" * 2_000_000, "that is no suite file"),
        ("", "a mapping of settings was expected, but found None"),
        (WRITTEN.replace("[0]", "9" * 5000), "seeds must be|is not valid YAML"),
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
    with pytest.raises(DataError, match="rename the file") as caught:
        written(tmp_path, WRITTEN, f"{name}.yaml")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


NUMBERS = [
    (cls, field.name)
    for cls in (
        *(StreamOptions, BackboneOptions, TrainOptions),
        *(baselines.load(name, m).Config for name in baselines.names() for m in MODALITIES),
    )
    for field in dataclasses.fields(cls)
    if {int, float} & {*typing.get_args(hints(cls)[field.name]), hints(cls)[field.name]}
]


@pytest.mark.parametrize(("cls", "name"), dict.fromkeys(NUMBERS), ids=str)
def test_every_number_of_every_setting_has_bounds(cls, name):
    """No setting, of a method or shared, takes what is not finite, negative, too large or true."""
    needed = {"name": "glyphs"} if "name" in hints(cls) else {}
    needed |= {"epochs": 1} if "epochs" in hints(cls) else {}
    for value in (float("nan"), float("inf"), -float("inf"), ".inf", -1, -0.5, 10**18, True):
        hint = hints(cls)[name]
        if value == 10**18 and float in (hint, *typing.get_args(hint)):
            continue  # a large number, and a number it is
        with pytest.raises(DataError, match=name):
            from_mapping(cls, needed | {name: value}, "here")


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
    off = {"micro_batch_size": None, "compile": False, "augment": None, "loss_mean": None}
    assert keys(suite(lambda d: first(d)["train"].update(off))) == keys(suite())
    same = suite(lambda d: first(d)["stream"].update(n_tasks=10))
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


def test_a_preset_is_spelt_out_and_can_be_changed(suite):
    def change(document):
        methods = first(document)["methods"]
        methods["released"] = {"method": "treelora", "preset": "released", "strength": 0.2}

    configs = {r.spec["method"]["label"]: r.spec["method"]["config"] for r in suite(change).runs}
    assert configs["released"]["search"] == "softmax" and configs["released"]["strength"] == 0.2
    assert configs["treelora"]["search"] == "lcb"


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
    from analysis.paper import counterparts as compare

    covered = {cell for run in load_suite("paper").runs for cell in compare.cells(run.spec)}
    values = compare.table("reported_values.csv")
    scores = values["exhibit"].isin(["table1", "table2", "table6", "table11", *LANGUAGE])
    scores |= values["metric"].str.startswith("op-")  # in the text
    wanted = set(values[scores][["exhibit", "block", "column"]].itertuples(index=False, name=None))
    assert wanted and wanted == covered
