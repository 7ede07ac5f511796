"""upload: the real client, to a stand-in for the Hub on the loopback (the Hub itself was not tried), and to none."""

import base64
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
from conversion.__main__ import main

ROOT = Path(__file__).parents[1]
REPO = "someone/tiny"


class Hub(http.server.BaseHTTPRequestHandler):
    """Takes what the client sends: repositories, blobs by their SHA-256, commits of files and blobs."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, **headers):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def take(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests.append(path)
        here = f"http://127.0.0.1:{server.server_port}"
        if path.startswith("/blob/"):
            server.blobs[path.removeprefix("/blob/")] = body
            return self.send(200, {})
        server.tokens.add(self.headers.get("Authorization"))
        if server.refuses:
            return self.send(403, {"error": "no"}, X_Error_Message="You may not write here")
        if path == "/api/repos/create":
            server.created.append(json.loads(body))
            return self.send(409 if len(server.created) > 1 else 200, {"url": f"{here}/{REPO}"})
        if path == "/api/validate-yaml":
            server.cards.append(json.loads(body)["content"])
            return self.send(200, {"errors": [], "warnings": []})
        if path == f"/api/models/{REPO}/preupload/main":
            large = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in large}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return self.send(200, {"files": files})
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = [
                item
                | (
                    {}
                    if item["oid"] in server.blobs
                    else {"actions": {"upload": {"href": f"{here}/blob/{item['oid']}"}}}
                )
                for item in json.loads(body)["objects"]
            ]
            return self.send(
                200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json"
            )
        if path == f"/api/models/{REPO}/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] != "header"]
            server.commits.append({
                value["path"]: base64.b64decode(value["content"]) if "content" in value else server.blobs[value["oid"]]
                for value in values
            })  # fmt: skip
            return self.send(200, {"commitUrl": f"{here}/{REPO}/commit/1", "commitOid": "1" * 40})
        return self.send(404, {}, X_Error_Code="RevisionNotFound")

    do_POST = do_PUT = do_GET = take


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests, server.created, server.commits, server.blobs, server.tokens = [], [], [], {}, set()
    server.refuses, server.cards = False, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def upload(port, directory, home, *more, token="hf_of_a_test", repo=REPO):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    environment |= {"HF_TOKEN": token} if token else {}
    return subprocess.run(
        [sys.executable, "-m", "conversion", "upload", str(directory), f"--repo={repo}", *more],
        capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment,
    )  # fmt: skip


def test_a_directory_arrives_whole_in_one_commit(hub, tmp_path):
    model = checkpoints.write(tmp_path / "model", checkpoints.CONFIG | {"auto_map": {}, "initializer_range": 0.02})
    (model / "README.md").write_text("A card.\n")
    (model / ".cache").mkdir()
    (model / ".cache" / "secret").write_text("not for others")
    dry = upload(hub.server_port, model, tmp_path / "home", "--dry_run")
    assert dry.returncode == 0 and "would upload 5 files" in dry.stdout and not hub.requests
    none = upload(hub.server_port, model, tmp_path / "home", token="")
    assert none.returncode == 2 and "there is no token" in none.stderr and not hub.requests
    done = upload(hub.server_port, model, tmp_path / "home", "--private")
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{hub.server_port}/{REPO}" in done.stdout and hub.tokens <= {"Bearer hf_of_a_test", None}
    assert (hub.created[0]["name"], hub.created[0]["organization"]) == ("tiny", "someone")
    assert hub.created[0].get("visibility") == "private" or hub.created[0].get("private") is True
    (commit,) = hub.commits
    assert commit == {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    assert all(hashlib.sha256(blob).hexdigest() == oid for oid, blob in hub.blobs.items()) and len(hub.blobs) == 2
    hub.requests.clear()
    (model / "README.md").write_text("Another card.\n")
    assert upload(hub.server_port, model, tmp_path / "home").returncode == 0  # the repository is there: fine
    assert hub.commits[1]["README.md"] == b"Another card.\n"
    assert not [path for path in hub.requests if path.startswith("/blob/")]  # large files are not sent again


def test_what_the_hub_says_is_told(hub, tmp_path):
    model = checkpoints.write(tmp_path / "model", checkpoints.CONFIG | {"auto_map": {}, "initializer_range": 0.02})
    other = upload(hub.server_port, model, tmp_path / "home", "--revision=draft")
    assert other.returncode == 2 and "Make the branch first" in other.stderr, other.stderr
    hub.refuses = True
    refused = upload(hub.server_port, model, tmp_path / "home")
    assert refused.returncode == 2 and "refuses to write someone/tiny" in refused.stderr, refused.stderr
    assert not hub.commits
    for stderr in (other.stderr, refused.stderr):
        assert "hf_of_a_test" not in stderr and "Traceback" not in stderr


def test_without_a_server_it_says_so(tmp_path):
    model = checkpoints.write(tmp_path / "model", checkpoints.CONFIG | {"auto_map": {}, "initializer_range": 0.02})
    server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
    server.server_close()
    done = upload(server.server_port, model, tmp_path / "home")
    assert done.returncode == 2 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr


BAD = {
    "a shard is missing": (lambda d: next(d.glob("*.safetensors")).unlink(), "is not there"),
    "a pickle": (lambda d: (d / "optimizer.pt").touch(), "refusing the pickle"),
    "code that is not there": (lambda d: None, "names modeling_llada2_moe.py"),
    "no model": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "half an adapter": (
        lambda d: (d / "adapter_config.json").write_text('{"r": 2}'),
        "adapter_model.safetensors is not",
    ),
    "an adapter's broken settings": (
        lambda d: (d / "adapter_config.json").write_text("{"),
        "no PEFT adapter's settings",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_directories_that_nobody_could_load_are_refused(case, tmp_path, capsys):
    model = checkpoints.write(tmp_path / "model")
    spoil, expected = BAD[case]
    spoil(model)
    assert main(["upload", str(model), f"--repo={REPO}"]) == 2
    assert expected in capsys.readouterr().err


def test_a_bad_name_is_refused(tmp_path, capsys):
    model = checkpoints.write(tmp_path / "model", checkpoints.CONFIG | {"auto_map": {}, "initializer_range": 0.02})
    assert main(["upload", str(model), "--repo=a/b/c"]) == 2
    assert "expected NAME or ORGANISATION/NAME" in capsys.readouterr().err
