"""download: against a Hub of our own on the loopback (the real client talks to it), and against none."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import checkpoints

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/LLaDA2.0-tiny"


def blob_id(data):
    """The id that git, and so the Hub, gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of `self.server.directory` as one repository, as far as the client asks."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def files(self):
        return {p.name: p.read_bytes() for p in sorted(self.server.directory.iterdir())}

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        self.server.tokens.add(self.headers.get("Authorization"))
        files = self.files()
        if path.startswith(f"/api/models/{REPO}/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)} for name, data in files.items()
            ]
            return self.send(200, json.dumps(entries).encode(), Content_Type="application/json")
        if path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            body = {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings, "tags": []}
            return self.send(200, json.dumps(body).encode(), Content_Type="application/json")
        name = path.rsplit("/", 1)[-1]
        if path.startswith(f"/{REPO}/resolve/") and name in files:
            data = files[name]
            served = data[:-1] + bytes([data[-1] ^ 1]) if name == self.server.spoiled else data
            about = {"ETag": f'"{blob_id(data)}"', "X_Repo_Commit": COMMIT}
            if self.command == "HEAD":
                return self.send(200, served, **about)
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.server.sent.append((name, start))
            if name == self.server.cut and not start:  # half of it, and then nothing more
                self.send_response(200)
                for key, value in {"Content-Length": str(len(data)), **about}.items():
                    self.send_header(key.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            if start:
                content = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return self.send(206, served[start:], Content_Range=content, **about)
            return self.send(200, served, **about)
        return self.send(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path):
    """A running Hub with a checkpoint, a pickle and a picture."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.directory = checkpoints.write(tmp_path / "hub")
    server.requests, server.sent, server.tokens, server.spoiled, server.cut = [], [], set(), None, None
    for name in ("pytorch_model.bin", "figure.png", "modeling_llada2_moe.py"):
        (server.directory / name).write_text("...")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(port, local_dir, *more, repo=REPO):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": f"{local_dir}.home",
        "HF_TOKEN": "hf_of_a_test",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "conversion", "download", "--repo_id", repo, "--local_dir", str(local_dir), *more],
        capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment,
    )  # fmt: skip


def test_only_what_is_needed_is_fetched_and_once(hub, tmp_path):
    dry = download(hub.server_port, tmp_path / "d", "--dry_run")
    assert dry.returncode == 0 and "would download" in dry.stdout and not (tmp_path / "d").exists()
    done = download(hub.server_port, tmp_path / "d")
    assert done.returncode == 0, done.stderr
    assert "split layout" in done.stdout
    fetched = {p.name for p in (tmp_path / "d").iterdir() if p.is_file()}
    assert "model-00001-of-00002.safetensors" in fetched and "modeling_llada2_moe.py" in fetched
    assert not fetched & {"pytorch_model.bin", "figure.png"}
    (tmp_path / "d" / "config.json").unlink()  # what an interrupted download lacks
    hub.requests.clear()
    assert download(hub.server_port, tmp_path / "d").returncode == 0
    gets = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert gets == [f"/{REPO}/resolve/{COMMIT}/config.json"]


def test_a_broken_connection_is_continued_where_it_broke(hub, tmp_path):
    (hub.directory / "vocab.json").write_bytes(b" " * 22_000_000)  # the client keeps what came in pieces of 10 MiB
    hub.cut = "vocab.json"
    done = download(hub.server_port, tmp_path / "d")
    assert done.returncode == 0, done.stderr
    assert [start for name, start in hub.sent if name == hub.cut] == [0, 10 * 2**20]
    assert (tmp_path / "d" / "vocab.json").read_bytes() == b" " * 22_000_000
    assert "Bearer hf_of_a_test" in hub.tokens


def test_a_file_that_came_wrong_is_named(hub, tmp_path):
    hub.spoiled = "model-00002-of-00002.safetensors"
    done = download(hub.server_port, tmp_path / "d")
    assert done.returncode == 2
    assert "not what someone/LLaDA2.0-tiny holds" in done.stderr and hub.spoiled in done.stderr


def test_an_unknown_repository_is_named(hub, tmp_path):
    done = download(hub.server_port, tmp_path / "d", repo="someone/nothing")
    assert done.returncode == 2 and "no such repository or revision: someone/nothing" in done.stderr


def test_without_a_network_it_says_what_to_do(hub, tmp_path):
    port = hub.server_port
    hub.shutdown()
    hub.server_close()  # from here on the port refuses
    done = download(port, tmp_path / "d")
    assert done.returncode == 2
    assert f"http://127.0.0.1:{port} cannot be reached" in done.stderr
    for advice in ("HF_ENDPOINT", "HTTPS_PROXY", "copy the directory here", "resumes"):
        assert advice in done.stderr
    assert not (tmp_path / "d").exists()
