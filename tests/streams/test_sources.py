"""Archives, folders and digests: nothing leads outside, and no size is believed."""

import json
import os
import stat
import tarfile
import unicodedata
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.common.errors import DataError
from benchmarks.streams.common import packs, sources
from benchmarks.streams.common.sources import Archive, digest_of_files, files_in, folders_in
from tests.containers import archive_of

KINDS = [".tar", ".tar.gz", ".tar.xz", ".zip"]
GOOD = {"a/one": b"1" * 2000, "a/two": b"22", "b/one": b"three"}


@pytest.fixture(autouse=True)
def digests(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "DIGESTS", tmp_path / "digests")
    return tmp_path / "digests"


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_gives_what_is_asked_for_in_its_order_and_within_a_limit(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    members = [("b/large", b" " * (1 << 21)), *GOOD.items()]
    archive = Archive(archive_of(tmp_path / f"x{kind}", members), "nowhere")
    assert sorted(archive.names) == sorted(["b/large", *GOOD])
    found = [("a/one", GOOD["a/one"]), ("b/one", b"three")]
    assert list(archive.read(["b/one", "a/one"])) == found
    assert "a/two" in archive.where("a/two") and str(tmp_path) in archive.where("a/two")
    with pytest.raises(DataError, match="b/large in .* 1 MiB"):
        dict(archive.read(["b/large"]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_member_that_stands_twice_the_last_one_counts(kind, tmp_path):
    """As unpacking leaves it, for the digest as for the content."""
    found = set()
    for first in (b"old", b"older"):
        file = archive_of(tmp_path / f"{len(first)}{kind}", [("a.json", first), ("a.json", b"new")])
        pack = packs.Pack(file, [""])
        assert list(pack.read(["a.json"])) == [("a.json", b"new")]
        found.update(pack.digests(["a.json"]))
    assert len(found) == 1


def link(kind, name="a/link"):
    """A link of a tar file, of the kind, or of a zip file, where that is None."""
    if kind is None:
        member = zipfile.ZipInfo(name)
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        return member
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def pax_sparse():
    member = tarfile.TarInfo("a/big")
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40)}
    return member


def gnu_sparse():
    """A header of 512 bytes that claims a terabyte, and that more of its map follows."""
    block = bytearray(tarfile.TarInfo("a/big").tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"00000000000\0" * 2
    block[482:483] = b"\1"
    block[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def long_name():
    """The name of a member is said to have a gigabyte."""
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    return header.tobuf(tarfile.GNU_FORMAT)


def claim():
    """A member of which the archive has nothing."""
    member = tarfile.TarInfo("a/claim")
    member.size = 2**40
    return member


HOSTILE = {  # members, or raw bytes of a tar file -> what the sentence names
    "climbs": ([("../a.json", b"x")], "path '../a.json'", KINDS),
    "climbs from within": ([("a/../../b.json", b"x")], "path 'a/../../b.json'", KINDS),
    "climbs as Windows would": ([("a\\..\\b.json", b"x")], "path", KINDS),
    "absolute": ([("/etc/x.json", b"x")], "path '/etc/x.json'", KINDS),
    "steers a terminal": ([("a/\033[2J", b"x")], r"\\x1b\[2J", KINDS),
    "link in zip": ([(link(None), b"/etc/passwd")], "link 'a/link'", [".zip"]),
    "link": ([(link(tarfile.SYMTYPE), b"")], "link 'a/link'", [".tar", ".tar.gz"]),
    "hard link": ([(link(tarfile.LNKTYPE), b"")], "link 'a/link'", [".tar"]),
    "pax sparse": ([(pax_sparse(), b"")], "sparse file 'a/big'", [".tar", ".tar.gz"]),
    "GNU sparse": (gnu_sparse(), "sparse file 'a/big'", [".tar"]),
    "long name": (long_name(), "a header of 1,073,741,824 bytes", [".tar"]),
    "terabyte": ([(claim(), b"")], "truncated", [".tar", ".tar.gz"]),
    "many": ([(f"a/{i}", b"") for i in range(41)], "more than 40 members", KINDS),
}


@pytest.mark.parametrize(
    "name, kind", [(name, kind) for name, (_, _, kinds) in HOSTILE.items() for kind in kinds]
)
def test_a_hostile_archive_is_refused_in_one_sentence(name, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_MEMBERS", 40)
    members, expected, _ = HOSTILE[name]
    raw = isinstance(members, bytes)
    file = archive_of(tmp_path / f"x{kind}", [*GOOD.items(), *([] if raw else members)])
    if raw:
        file.write_bytes(members + file.read_bytes())
    with pytest.raises(DataError, match=expected) as caught:
        dict(Archive(file, "the right place").read(["a/one"]))
    assert str(file) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {file.name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_a_truncated_archive_names_where_another_comes_from(kind, cut, tmp_path):
    file = archive_of(tmp_path / f"x{kind}", [("a/one", os.urandom(100_000))])
    file.write_bytes(file.read_bytes()[: int(cut * file.stat().st_size * 0.98)])
    with pytest.raises(DataError, match="truncated .* the right place"):
        dict(Archive(file, "the right place").read(["a/one"]))


def test_what_is_no_archive_or_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    (tmp_path / "page").write_text("<html>Sign in to the network</html>")
    (tmp_path / "large").write_bytes(bytes(1 << 21))
    for name, target in (("null", "/dev/null"), ("zero", "/dev/zero"), ("gone", "nowhere")):
        (tmp_path / name).symlink_to(target)
    for name in ("page", "null"):
        with pytest.raises(DataError, match=name):
            _ = Archive(tmp_path / name, "nowhere").names
    for name in ("large", "zero", "gone"):
        with pytest.raises(DataError, match=name):
            sources.content(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["Screenshot 2024-01-01 at 1.00.00\u202fPM.png", "می\u200cخواهم.png", "👩\u200d🔬.png"]
)
def test_harmless_names_are_accepted(tmp_path, name):
    (tmp_path / name).touch()
    assert list(files_in(tmp_path)) == [name]


@pytest.mark.parametrize("name", [b"a\nb.png", b"\033[2J.png", "a\u2028b.png".encode(), b"\xe9"])
def test_names_that_steer_a_terminal_or_are_no_text_are_refused(tmp_path, name):
    (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(DataError, match="rename it"):
        files_in(tmp_path)


def test_names_are_composed_and_two_that_look_alike_are_refused(tmp_path):
    composed, apart = (unicodedata.normalize(form, "äpfel") for form in ("NFC", "NFD"))
    (tmp_path / apart).mkdir()
    assert list(folders_in(tmp_path)) == [composed]
    (tmp_path / composed).mkdir()
    with pytest.raises(DataError, match="'äpfel' twice"):
        folders_in(tmp_path)


def test_a_digest_is_remembered_until_the_file_changes(tmp_path, digests, monkeypatch):
    file = tmp_path / "image.png"
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    first = digest_of_files({"a": file})
    computed, real = [], sources.digest_of_file
    monkeypatch.setattr(sources, "digest_of_file", lambda *a: computed.append(a) or real(*a))
    assert digest_of_files({"a": file}) == first and not computed
    assert digest_of_files({"b": file}) != first
    file.write_bytes(b"two")  # just now: not remembered
    assert len({digest_of_files({"a": file}) for _ in range(2)} | {first}) == 2
    assert len(computed) == 2
    for damaged in ("no JSON", "[]"):
        next(digests.iterdir()).write_text(damaged)
        assert digest_of_files({"a": file}) != first


def test_an_archive_that_is_known_is_not_opened_again(tmp_path, digests, monkeypatch):
    file = archive_of(tmp_path / "x.tar.gz", [("t/train.json", b"[]")])
    os.utime(file, (1e9, 1e9))

    def found():
        return packs.Pack(file, ["", "t"]).digests(["t/train.json"])

    known = found()
    memory = next(digests.glob("*-members.json"))
    # What is remembered in another form, such as an earlier version's, is made anew.
    for remembered in ("[]", "{}", '{"t/train.json": "0"}', '{"members": {}}'):
        memory.write_text(remembered)
        assert found() == known
    monkeypatch.setattr(sources, "digest_of_file", None)
    monkeypatch.setattr(tarfile, "open", None)
    assert found() == known and json.loads(memory.read_text())["members"]


@pytest.mark.parametrize(
    "features, names",
    [
        ({"c": {"names": ["a", "b"], "_type": "ClassLabel"}}, ["a", "b"]),
        ({"c": {"dtype": "int64", "_type": "Value"}}, None),
        ({"c": {"_type": "Unheard"}}, None),
        (None, None),
    ],
)
def test_a_table_may_name_its_classes(features, names, tmp_path):
    written = json.dumps({"info": {"features": features}}) if features else "{"
    table = pyarrow.table({"c": [0, 1]}).replace_schema_metadata({"huggingface": written})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert sources.class_names(tmp_path / "x.parquet", "c") == names
