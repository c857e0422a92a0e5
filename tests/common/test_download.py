"""Downloads against a server on this machine: continued, checked, and refused in a sentence."""

import hashlib
import http.server
import threading

import pytest

from benchmarks.common import download
from benchmarks.common.files import DataError

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


def test_fetches_once_and_then_asks_nobody(server, tmp_path):
    target = tmp_path / "new" / "file.bin"
    assert download.fetch(server.url, DIGEST, target) == target
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == ["file.bin"]
    download.fetch(server.url, DIGEST, target)
    assert server.asked == [None]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.break_after = [300_000]
    download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_killed_download_is_continued_by_the_next_call(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1234])
    download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]


def test_killed_after_the_last_byte(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges, part", [(False, CONTENT[:99]), (True, CONTENT + b"more")])
def test_starts_over_where_continuing_is_impossible(server, tmp_path, ranges, part):
    server.ranges = ranges
    (tmp_path / "file.bin.part").write_bytes(part)
    download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_keeps_what_came_when_the_connection_keeps_breaking(server, tmp_path):
    server.break_after = [1000] * download.CONNECTIONS
    with pytest.raises(DataError, match="broke off after 3000 of 1024000 bytes.*run again"):
        download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:3000]
    assert not (tmp_path / "file.bin").exists()


def test_refuses_other_content(server, tmp_path):
    server.content = CONTENT[::-1]
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=f"should have sha256 {DIGEST}.*{found}"):
        download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert not list(tmp_path.iterdir())


def test_refuses_a_present_file_with_other_content(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"mine")
    with pytest.raises(DataError, match="delete it and run again"):
        download.fetch("http://127.0.0.1:9/", DIGEST, target)
    assert target.read_bytes() == b"mine"


def test_the_digest_of_the_first_use_is_enforced(server, tmp_path):
    target, record = tmp_path / "file.bin", tmp_path / "file.bin.sha256"
    (tmp_path / "file.bin.part").write_bytes(b"of who knows what")  # nothing to check it by
    download.fetch(server.url, None, target)
    assert target.read_bytes() == CONTENT
    assert record.read_text() == f"{DIGEST}\n"
    download.fetch(server.url, None, target)

    target.write_bytes(b"changed on disk")
    with pytest.raises(DataError, match="delete it"):
        download.fetch(server.url, None, target)
    target.unlink()
    server.content = b"changed on the server"
    with pytest.raises(DataError, match=f"should have sha256 {DIGEST}"):
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
    with pytest.raises(DataError, match="file.bin.sha256 needs the SHA-256 .*: delete it"):
        download.fetch(server.url, None, tmp_path / "file.bin")


@pytest.mark.parametrize("length", ["much", "-5", ""])
def test_a_length_that_is_no_number_is_no_length(server, tmp_path, monkeypatch, length):
    real = Handler.send_header
    monkeypatch.setattr(
        Handler,
        "send_header",
        lambda self, k, v: real(self, k, length if k == "Content-Length" else v),
    )
    download.fetch(server.url, DIGEST, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_no_network(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="could not be downloaded.*refused.*put the file at"):
        download.fetch(server.url, DIGEST, tmp_path / "file.bin")


def test_an_answer_without_the_file(server, tmp_path):
    url = server.url.replace("/file", "/missing")
    with pytest.raises(DataError, match="answered 404 Not Found: put the file at .*file.bin"):
        download.fetch(url, DIGEST, tmp_path / "file.bin")
    assert len(server.asked) == 1


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


def test_an_md5_is_enough(server, tmp_path):
    md5 = hashlib.md5(CONTENT).hexdigest()
    for _ in range(2):
        download.fetch(server.url, f"md5:{md5}", tmp_path / "file.bin")
    assert len(server.asked) == 1 and [f.name for f in tmp_path.iterdir()] == ["file.bin"]
    (tmp_path / "file.bin").write_bytes(b"changed")
    with pytest.raises(DataError, match=f"should have md5 {md5}, it has"):
        download.fetch(server.url, f"md5:{md5}", tmp_path / "file.bin")
    (tmp_path / "file.bin").unlink()
    server.content = b"changed"
    with pytest.raises(DataError, match=f"should have md5 {md5}, what came has .* removed"):
        download.fetch(server.url, f"md5:{md5}", tmp_path / "file.bin")


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_a_mirror_helps_out(server, tmp_path, digest):
    urls = (server.url.replace("/file", "/missing"), server.url)
    download.fetch(urls, digest, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and len(server.asked) == 2


def test_a_mirror_continues_what_another_began(server, tmp_path):
    server.break_after = [1000] * download.CONNECTIONS
    download.fetch((server.url, f"{server.url}?mirror"), DIGEST, tmp_path / "file.bin")
    assert server.asked[-1] == "bytes=3000-"
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_without_a_digest_a_mirror_starts_over(server, tmp_path):
    server.break_after = [1000] * download.CONNECTIONS
    download.fetch((server.url, f"{server.url}?mirror"), None, tmp_path / "file.bin")
    assert server.asked[-1] is None
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_what_happened_at_every_mirror_is_said_in_one_sentence(server, tmp_path):
    server.content = b"other"
    urls = (server.url.replace("/file", "/missing"), server.url, "http://127.0.0.1:9/")
    with pytest.raises(DataError) as caught:
        download.fetch(urls, DIGEST, tmp_path / "file.bin")
    text = str(caught.value)
    for part in ("/missing could not be downloaded, the server answered 404", "what came has"):
        assert part in text
    assert "127.0.0.1:9/ could not be downloaded" in text and text.count("put the file at") == 1
    assert not list(tmp_path.iterdir())
