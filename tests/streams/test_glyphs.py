"""glyphs: the same bytes everywhere, disjoint parts, no character twice."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmarks import streams
from benchmarks.common.errors import DataError
from benchmarks.streams import glyphs


@pytest.fixture(scope="module")
def glyph_folder(prepared_stream):
    return prepared_stream("glyphs")


@pytest.fixture(scope="module")
def fonts():
    return glyphs._Fonts()


@pytest.fixture(scope="module")
def glyph_data(glyph_folder):
    return dict(np.load(glyph_folder / "data.npz"))


def test_glyphs_are_the_pinned_bytes(glyph_folder, glyph_data, fonts):
    pretrain = dict(np.load(glyph_folder / "pretrain.npz"))
    known = streams.of({"name": "glyphs"}).fingerprint()
    assert glyphs.digest(glyph_data, pretrain) == glyphs.DIGEST == known
    again = glyphs._draw(fonts, "D", glyphs.N_TRAIN + glyphs.N_TEST)  # the first class of all
    assert np.array_equal(again[: glyphs.N_TRAIN], glyph_data["train_images"][: glyphs.N_TRAIN])
    assert not np.array_equal(again[:10], glyphs._draw(fonts, "F", 10))


def test_the_digest_of_glyphs_sees_every_byte():
    a = {"images": np.zeros((2, 2), np.uint8)}
    others = (
        {"images": np.array([[0, 0], [0, 1]], np.uint8)},
        {"labels": a["images"]},
        {"images": np.zeros((1, 4), np.uint8)},
        {"images": np.zeros((2, 2), np.int8)},
    )
    assert len({glyphs.digest(arrays) for arrays in (a, *others)}) == 5
    assert glyphs.digest({"x": np.arange(3, dtype=">i8")}) == glyphs.digest({"x": np.arange(3)})


def test_glyphs_structure(glyph_folder, glyph_data):
    manifest = json.loads((glyph_folder / "manifest.json").read_text())
    assert [len(task["classes"]) for task in manifest["tasks"]] == [10] * 10
    groups = Counter(task["group"] for task in manifest["tasks"])
    assert len(groups) >= 3 and min(groups.values()) >= 2
    for split, n in (("train", 80), ("test", 30)):
        assert glyph_data[f"{split}_images"].shape == (100 * n, 32, 32)
        assert np.array_equal(glyph_data[f"{split}_labels"], np.repeat(np.arange(100), n))
    with np.load(glyph_folder / "pretrain.npz") as pretrain:
        n = len(manifest["pretrain_classes"])
        assert np.array_equal(pretrain["labels"], np.repeat(np.arange(n), 60))
        assert len(pretrain["images"]) == 60 * n


def test_no_glyph_occurs_twice():
    tasks = [c for _, characters in glyphs.TASKS.values() for c in characters]
    everything = tasks + list("".join(glyphs.PRETRAIN.values()))
    assert len(set(everything)) == len(everything)


def test_no_image_occurs_twice(glyph_folder, glyph_data):
    images = [glyph_data["train_images"], glyph_data["test_images"]]
    images.append(np.load(glyph_folder / "pretrain.npz")["images"])
    unique = {image.tobytes() for image in np.concatenate(images)}
    assert len(unique) == sum(map(len, images))


def outline(fonts, character):
    """The character in the first font, its larger side 24 of 32 pixels, blurred, of length 1."""
    mask = fonts.render(character)[0]
    rows, columns = np.nonzero(mask)
    ink = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.uint8)
    size = [max(1, 24 * n // max(ink.shape)) for n in ink.shape[::-1]]
    canvas = Image.new("L", (32, 32))
    canvas.paste(
        Image.fromarray(ink).resize(size, Image.Resampling.BOX),
        ((32 - size[0]) // 2, (32 - size[1]) // 2),
    )
    values = np.asarray(canvas.reduce(2), dtype=float).ravel()
    return values / np.linalg.norm(values)


def test_no_two_glyphs_look_alike(fonts):
    tasks = [c for _, characters in glyphs.TASKS.values() for c in characters]
    alike = {
        frozenset(pair): outline(fonts, pair[0]) @ outline(fonts, pair[1])
        for pair in (("A", "Α"), ("A", "А"), ("Δ", "ᐃ"))
    }
    assert min(alike.values()) > 0.95  # the measure sees what it is for
    known = {c: outline(fonts, c) for c in tasks + list("".join(glyphs.PRETRAIN.values()))}
    for i, a in enumerate(tasks):
        for b in list(known)[i + 1 :]:
            assert known[a] @ known[b] < 0.95, f"{a} and {b}"


def test_only_fonts_that_have_a_character_draw_it(fonts):
    assert len(fonts.render("a")) == 21  # DejaVu, STIX and Computer Modern
    assert len(fonts.render("β")) == 16  # not Computer Modern, which has another letter there
    assert len(fonts.render("س")) == 4
    with pytest.raises(DataError, match="needs a font with '一'"):
        fonts.render("一")


def test_within_a_script_the_classes_can_be_told(glyph_data):
    """Nearest mean of blurred, polarity-free images beats chance (10 %) by far in every task."""

    def features(images):
        small = images.reshape(-1, 8, 4, 8, 4).mean((2, 4))
        small = small - np.median(small, axis=(1, 2), keepdims=True)
        small *= np.sign(small.sum((1, 2), keepdims=True))
        return (small / np.linalg.norm(small, axis=(1, 2), keepdims=True)).reshape(-1, 64)

    train, test = features(glyph_data["train_images"]), features(glyph_data["test_images"])
    means = train.reshape(100, 80, 64).mean(1)
    for task in range(10):
        x = test.reshape(10, 300, 64)[task]
        found = (x @ means[10 * task : 10 * task + 10].T).argmax(1)
        assert 0.25 < (found == np.repeat(np.arange(10), 30)).mean() < 0.97
