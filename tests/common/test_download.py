"""Downloads against a server on this machine: continued, checked, and refused in a sentence."""

import hashlib
import http.server
import threading

import pytest

from benchmarks.common import download
from benchmarks.common.errors import DataError

CONTENT = bytes(range(256)) * 4000  # about 1 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` with ranges; may break connections off after some bytes."""

    content = CONTENT
    ranges = True
    break_after: list[int]  # bytes sent by the next connections before they break
    asked: list[str | None]  # the Range header of every request


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, header = self.server, self.headers.get("Range")
        server.asked.append(header)
        if self.path == "/missing":
            return self.send_error(404)
        content, status = server.content, 200
        if header and server.ranges:
            start = int(header.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            content, status = content[start:], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: server.break_after.pop(0)] if server.break_after else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with Server(("127.0.0.1", 0), Handler) as running:
        running.break_after, running.asked = [], []
        running.url = f"http://127.0.0.1:{running.server_port}/file"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(tmp_path, urls, digest=DIGEST):
    """Where the file is, which has to have come whole, with nothing left beside it."""
    target = tmp_path / "new" / "file.bin"
    assert download.fetch(urls, digest, target) == target and target.read_bytes() == CONTENT
    record = {f"{target.name}.sha256"} if digest is None else set()
    assert {file.name for file in target.parent.iterdir()} == {target.name, *record}
    return target


@pytest.fixture
def part(tmp_path):
    """What an earlier download left."""
    (tmp_path / "new").mkdir()
    return tmp_path / "new/file.bin.part"


@pytest.mark.parametrize(
    "before, breaks, asked",
    [
        (b"", [], [None]),
        (b"", [300_000], [None, "bytes=300000-"]),
        (CONTENT[:1234], [], ["bytes=1234-"]),  # of a killed call
        (CONTENT, [], [f"bytes={len(CONTENT)}-"]),
    ],
)
def test_a_download_is_continued_and_then_nobody_is_asked(
    server, part, tmp_path, before, breaks, asked
):
    if before:
        part.write_bytes(before)
    server.break_after = breaks
    for _ in range(2):
        fetch(tmp_path, server.url)
    assert server.asked == asked


@pytest.mark.parametrize("ranges, before", [(False, CONTENT[:99]), (True, CONTENT + b"more")])
def test_starts_over_where_continuing_is_impossible(server, part, tmp_path, ranges, before):
    server.ranges = ranges
    part.write_bytes(before)
    fetch(tmp_path, server.url)


def test_keeps_what_came_when_the_connection_keeps_breaking(server, part, tmp_path):
    server.break_after = [1000] * download.CONNECTIONS
    with pytest.raises(DataError, match="3000 of 1024000 bytes.*run again"):
        fetch(tmp_path, server.url)
    assert part.read_bytes() == CONTENT[:3000] and len(list(part.parent.iterdir())) == 1


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_other_content_is_refused_on_the_server_and_on_the_disk(server, tmp_path, algorithm):
    def of(content):
        return hashlib.new(algorithm, content).hexdigest()

    digest = of(CONTENT) if algorithm == "sha256" else f"md5:{of(CONTENT)}"
    target = fetch(tmp_path, server.url, digest)
    target.write_bytes(b"mine")
    with pytest.raises(DataError, match=f"{algorithm} {of(CONTENT)}.*{of(b'mine')}.*delete it"):
        download.fetch(server.url, digest, target)
    assert target.read_bytes() == b"mine"
    target.unlink()
    server.content = CONTENT[::-1]
    found = of(server.content)
    with pytest.raises(DataError, match=f"{algorithm} {of(CONTENT)}.*{found} and was removed"):
        download.fetch(server.url, digest, target)
    assert not list(target.parent.iterdir())


def test_the_digest_of_the_first_use_is_enforced(server, part, tmp_path):
    part.write_bytes(b"of who knows what")  # nothing to check it by
    target = fetch(tmp_path, server.url, None)
    record = target.with_name("file.bin.sha256")
    assert record.read_text() == f"{DIGEST}\n"
    fetch(tmp_path, server.url, None)
    target.write_bytes(b"changed on disk")
    with pytest.raises(DataError, match="delete it"):
        download.fetch(server.url, None, target)
    target.unlink()
    server.content = b"changed on the server"
    with pytest.raises(DataError, match=DIGEST):
        download.fetch(server.url, None, target)
    assert record.read_text() == f"{DIGEST}\n"


@pytest.mark.parametrize("name", ["file.bin", "file.bin.part", "file.bin.sha256"])
@pytest.mark.parametrize("kind", ["device", "folder"])
def test_no_file_in_the_place_of_one_is_named(server, tmp_path, name, kind):
    place = tmp_path / name
    place.mkdir() if kind == "folder" else place.symlink_to("/dev/null")
    with pytest.raises(DataError, match=f"{name} is a folder, a pipe, a socket or a device"):
        download.fetch(server.url, None, tmp_path / "file.bin")
    assert not server.asked


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"md5:abc", DIGEST[:-1].encode(), b"x" * 64])
def test_a_record_that_names_no_digest_trusts_nothing(server, tmp_path, content):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    (tmp_path / "file.bin.sha256").write_bytes(content)
    with pytest.raises(DataError, match="file.bin.sha256 .*: delete it"):
        download.fetch(server.url, None, tmp_path / "file.bin")


@pytest.mark.parametrize("length", ["much", "-5", ""])
def test_a_length_that_is_no_number_is_no_length(server, tmp_path, monkeypatch, length):
    real = Handler.send_header
    monkeypatch.setattr(
        Handler,
        "send_header",
        lambda self, k, v: real(self, k, length if k == "Content-Length" else v),
    )
    fetch(tmp_path, server.url)


def test_no_network_and_no_file_are_named(server, tmp_path):
    with pytest.raises(DataError, match="404 Not Found: put the file at .*file.bin"):
        fetch(tmp_path, server.url.replace("/file", "/missing"))
    assert len(server.asked) == 1
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="refused.*put the file at .*file.bin"):
        fetch(tmp_path, server.url)


@pytest.mark.parametrize("content", [CONTENT, b"little"])
def test_a_full_disk(server, tmp_path, monkeypatch, content):
    server.content = content
    # /dev/full accepts nothing, as a full disk does.
    monkeypatch.setattr(
        "builtins.open",
        lambda path, mode, real=open, **options: real(
            "/dev/full" if mode in ("ab", "wb") else path, mode, **options
        ),
    )
    with pytest.raises(DataError, match="file.bin.part could not be written .No space left.*room"):
        download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert len(server.asked) == 1


@pytest.mark.parametrize("digest, asked", [(DIGEST, "bytes=3000-"), (None, None)])
def test_a_mirror_continues_what_another_began_if_it_can_be_checked(
    server, tmp_path, digest, asked
):
    server.break_after = [1000] * download.CONNECTIONS
    urls = [server.url.replace("/file", "/missing"), server.url, f"{server.url}?mirror"]
    fetch(tmp_path, urls, digest)
    assert server.asked[-1] == asked and len(server.asked) == 2 + download.CONNECTIONS


def test_what_happened_at_every_mirror_is_said_in_one_sentence(server, tmp_path):
    server.content = b"other"
    urls = (server.url.replace("/file", "/missing"), server.url, "http://127.0.0.1:9/")
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, urls)
    said = ("/missing could not be downloaded", "404", "what came has", "127.0.0.1:9/ could")
    assert all(part in str(caught.value) for part in said)
    assert str(caught.value).count("put the file at") == 1
    assert not list((tmp_path / "new").iterdir())
