"""Methods by name, module or path; what is wrong with a file is one sentence about it alone."""

import importlib
import sys
from types import SimpleNamespace

import pytest

import baselines
from tests import tiny
from tests.conftest import pytest_configure

METHOD = """
from baselines.common.lora import LoraMethod
{0}

class Own(LoraMethod):
    pass
"""
TWIN = METHOD.format("").replace("Own", "OwnOnText")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a method of two files and a helper."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = tmp_path / "own_package"
    own.mkdir()
    (own / "own.py").write_text(METHOD.format("from ._share import SHARE"))
    (own / "own_language.py").write_text(TWIN)
    (own / "_share.py").write_text("SHARE = 0.5\n")
    yield own
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize("place", ["own_package/own.py", "own_package.own", "{}/own.py"])
def test_a_method_from_outside_has_its_helpers_and_its_twin(folder, place):
    place = place.format(folder)
    assert baselines.name_of(place) == "own"
    assert baselines.load(place, "vision").__name__ == "Own"
    assert baselines.load(place, "language").__name__ == "OwnOnText"
    assert baselines.of({"name": "own", "origin": place}) is baselines.load(place)
    assert tiny.pairs(place) == [(place, modality) for modality in tiny.MODALITIES]


@pytest.mark.parametrize("place", ["seqlora", "baselines.seqlora", "baselines/seqlora.py"])
def test_a_method_of_the_suite_has_one_class_however_it_is_named(place):
    assert baselines.load(place) is baselines.load("seqlora")
    assert baselines.name_of(place) == "seqlora"


BROKEN = {
    "syntax": ("def f(:\n", r"invalid syntax \(.*syntax.py, line 1\)"),
    "half": (METHOD.format("LoraMetod"), r"NameError.*'LoraMetod'.*half.py, line 3"),
    "helped": (METHOD.format("from . import _broken"), r"ZeroDivisionError.*_broken.py, line 2"),
    "neighbour": (METHOD.format("import _share"), "No module named '_share'.*from ._share import"),
    "empty": ("", "exactly one Method, but defines none"),
    "borrowed": ("from baselines.seqlora import SeqLoRA", "exactly one Method, but defines none"),
    "twice": (TWIN + METHOD.format(""), "exactly one Method, but defines OwnOnText, Own"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence(folder, name):
    content, expected = BROKEN[name]
    (folder / f"{name}.py").write_text(content)
    (folder / "_broken.py").write_text("x = 1\ny = x / 0\n")
    options = {"method": f"own_package/{name}.py", "stream": None}
    with pytest.raises(pytest.UsageError, match=expected) as caught:  # of `make contract`
        pytest_configure(SimpleNamespace(getoption=options.get))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("treelor", "'treelor'.*'treelora'"),
        ("xyz", "'xyz'.*codaprompt, "),
        ("own_package/none.py", "none.py.* is not there, as /.*correct the path"),
        ("own_package/my-own.py", "my-own.py.* is no file to import"),
        ("own_package.none", "own_package.none cannot be imported: ModuleNotFoundError"),
        ("nowhere.none", "nowhere.none cannot be imported: .*'nowhere'"),
        ("own_package/seqlora.py", "has the name of a file in baselines, seqlora: rename it"),
    ],
)
def test_a_place_without_a_method_is_one_sentence(folder, place, expected):
    for name in ("my-own", "seqlora"):
        (folder / f"{name}.py").write_text(METHOD.format(""))
    with pytest.raises(ValueError, match=expected):
        baselines.load(place)


def test_a_broken_file_fails_alone(folder, monkeypatch):
    """Dropped beside the methods it has a name, and all else is as before."""
    before = baselines.names(), tiny.pairs()
    (folder / "broken.py").write_text("import nowhere\n")
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(folder)])
    assert baselines.names() == sorted([*before[0], "broken", "own"])
    assert set(tiny.pairs()) - set(before[1]) >= {("broken", "vision"), ("own", "language")}
    with pytest.raises(ValueError, match="broken.py cannot be imported: .*'nowhere'"):
        tiny.method("broken", "vision")
    tiny.method("own", "vision")
    del sys.modules["baselines.own"]
