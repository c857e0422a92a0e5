"""What code a run's numbers come from, and whether git knows it."""

import subprocess

import pytest

import baselines
from benchmarks.runs import record, sources

METHOD = '''"""A method."""

from baselines.common.lora import LoraMethod  # what it is

from . import near
from .near import TEXT


class Mine(LoraMethod):
    """What it does."""

    def penalty(self, loss):
        """Nothing."""
        from mine.deep import far

        return 0.0 if "# no comment" else far
'''


@pytest.fixture
def package(tmp_path):
    """A package of a user's, with a method that imports two files of it."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    files = {"method": METHOD, "near": 'TEXT = """\n\na"""\n', "deep/far": "", "not_imported": ""}
    for name, text in {**files, "__init__": "", "deep/__init__": ""}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def digests(folder):
    """By path, as a new process would find them."""
    for cached in (sources.digest, sources._read):
        cached.cache_clear()
    return {sources.place(f): sources.digest(f) for f in sources.reached(folder / "method.py")}


def test_the_files_are_those_that_a_method_imports(package):
    found = digests(package).keys()
    own = {"mine/method.py", "mine/near.py", "mine/deep/far.py"}
    assert own == {file for file in found if file.startswith("mine")}
    assert {"baselines/common/lora.py", "baselines/common/loop.py"} <= found
    assert "baselines/ewc.py" not in found and not any("treelora" in file for file in found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# what it is", "# another comment"),
        ("A method.", "Another\n\n docstring.\n"),
        ("What it does.", "It does that."),
        ("\n\n\nclass", "\n# a comment\nclass"),
        ("(self, loss):", "(self, loss):  \n"),
    ],
)
def test_an_edit_that_changes_no_code_changes_no_digest(package, old, new):
    before = digests(package)
    (package / "method.py").write_text(METHOD.replace(old, new))
    assert digests(package) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("method", "0.0", "1.0"),
        ("method", "# no comment", "# another"),
        ("near", "\n\na", "\na"),  # a blank line of a text
        ("near", "\n\na", "\n \na"),
        ("deep/far", "", "far = 1"),
        ("near", "TEXT", "TEXT ="),  # what is no Python
    ],
)
def test_an_edit_of_code_is_named_and_can_be_undone(package, file, old, new):
    before, path = digests(package), package / f"{file}.py"
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    assert sources.changed(before, digests(package)) == [f"mine/{file}.py"]
    path.write_text(text)
    assert digests(package) == before


def test_a_file_of_ours_counts_for_every_method_that_imports_it():
    spec = {"modality": "vision", "stream": {"name": "glyphs"}}
    for name in baselines.names():
        found = sources.of(spec | {"method": {"name": name}})
        assert {"baselines/common/loop.py", "benchmarks/streams/glyphs.py"} <= found.keys()
    assert "treelora/search.py" in sources.of(spec | {"method": {"name": "treelora"}})


def git(folder, *arguments):
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def committed(folder):
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "x")


def test_code_that_git_does_not_track_is_uncommitted(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    (tmp_path / "baselines").mkdir()
    for file in (".gitignore", "baselines/tracked.py"):
        (tmp_path / file).write_text("ignored.py")
    committed(tmp_path)

    def dirty():
        return record.provenance()["dirty"]

    (tmp_path / "notes.py").touch()
    (tmp_path / "baselines/notes.txt").touch()
    assert not dirty()
    with monkeypatch.context() as unknown:
        unknown.setattr(record, "git", lambda *_, **__: None)  # as where git is not installed
        assert dirty()
    for file in ("baselines/new.py", "baselines/common/new.toml", "baselines/ignored.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
        assert dirty()
        (tmp_path / file).unlink()
    (tmp_path / "baselines/tracked.py").write_text("changed")
    assert dirty()


def test_code_outside_is_committed_where_it_is_in_a_repository(package):
    file = package / "method.py"
    assert not record.is_committed(file)
    committed(package)
    assert record.is_committed(file)
    file.write_text("changed")
    assert not record.is_committed(file)
