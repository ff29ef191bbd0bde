import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from buttress.data.formats.download import cache_folder, fetch
from buttress.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path; cuts the connection after ``cut`` bytes of an answer."""

    cut: int | None = None
    ranges = True
    status = 200
    content = CONTENT

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.sent = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/set/data.bin"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers["Range"]
        server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if server.status != 200:
            return self.send_error(server.status)
        if start >= len(server.content):
            return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: server.cut]
        server.sent += len(body)
        self.wfile.write(body)
        return None


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_file_is_fetched_once(server, tmp_path):
    path = fetch(server.url, MD5, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(server.url, MD5, path.parent) == path
    assert server.asked == [None]
    assert [entry.name for entry in path.parent.iterdir()] == ["data.bin"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 100_000
    for kept, expected in ((100_000, None), (200_000, "bytes=100000-")):
        with pytest.raises(UserError) as caught:
            fetch(server.url, MD5, tmp_path)
        line = str(caught.value)
        assert line.startswith(f"{server.url}: the download failed")
        assert f"{kept} bytes are kept in {tmp_path / 'data.bin.part'}" in line
        assert "\n" not in line
        assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:kept]
        assert not (tmp_path / "data.bin").exists()
        assert server.asked[-1] == expected
    server.cut = None
    assert fetch(server.url, MD5, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=200000-"
    assert server.sent == len(CONTENT)  # no byte twice
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.bin"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    server.cut, server.ranges = 100_000, False
    with pytest.raises(UserError):
        fetch(server.url, MD5, tmp_path)
    server.cut = None
    assert fetch(server.url, MD5, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_part_that_is_already_whole_is_put_in_place(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(server.url, MD5, tmp_path).read_bytes() == CONTENT
    assert server.sent == 0


@pytest.mark.parametrize("start", [b"", b"something else that was kept"])
def test_a_file_with_another_checksum_is_not_put_in_place(server, tmp_path, start):
    if start:
        (tmp_path / "data.bin.part").write_bytes(start)
    else:
        server.content = CONTENT[:-1] + b"?"
    with pytest.raises(UserError, match=f"expected a file with md5 {MD5}, got another one"):
        fetch(server.url, MD5, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert fetch(server.url, MD5, tmp_path).read_bytes() == CONTENT


def test_what_the_server_answers_is_in_the_line(server, tmp_path):
    server.status = 404
    with pytest.raises(UserError, match=rf"{server.url}: the download failed \(Not Found\); nothing came, or give"):
        fetch(server.url, MD5, tmp_path)
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:10])
    server.status = 503
    with pytest.raises(UserError, match=r"failed \(Service Unavailable\); 10 bytes are kept in .*data.bin.part"):
        fetch(server.url, MD5, tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:10]


def test_no_server_at_all_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"http://127.0.0.1:1/data.bin: the download failed \(.*refused"):
        fetch("http://127.0.0.1:1/data.bin", MD5, tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the download cannot be stored in .*file"):
        fetch(server.url, MD5, tmp_path / "file" / "folder")


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BUTTRESS_DATA", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BUTTRESS_DATA")
    assert cache_folder().name == "buttress"
