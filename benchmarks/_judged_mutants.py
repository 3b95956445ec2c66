"""The kinds of mutants, each with a judge: "right", "error" (a clear one), or what is wrong."""

import contextlib
import json
import shutil
import socketserver
import sys
import threading
import tomllib
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks import _mutants as mutants
from benchmarks._forked import command, complaint, forked

SMALL_RUN = """
[run]
name = "r"
threads = 1
[[stage]]
kind = "questions"
[[stage.source]]
kind = "procedural"
families = ["chain"]
level = 1
digits = [1, 1]
operators = "+"
train = 12
validation = 2
test = 4
benchmark = "b"
[[stage]]
kind = "rollouts"
samples = 2
[[stage]]
kind = "corpus"
validation_problems = 2
subset = { problems = 4 }
"""

Kind = tuple[st.SearchStrategy, Callable[[Any, Path], str]]


# --- recipes


def recipe_kind(base: Path) -> Kind:
    """A recipe of the project is planned, a small one is run."""
    folder = Path(__file__).parent.parent / "recipes"
    sources = [path.read_text() for path in sorted(folder.glob("*.toml")) if "extends" not in path.read_text()]

    def judge(mutant: tuple[str, bytes], place: Path) -> str:
        action, text = mutant
        (place / "mutant.toml").write_bytes(text)
        ended = command(place, action, "mutant.toml")
        said = complaint(ended)
        if said or ended.status:
            return said or "error"
        if Path("/x").exists():
            return "written to /x"
        read = forked(place, lambda: print(json.dumps(_resolved(place / "mutant.toml"), default=str)))
        return complaint(read) or _unlike(tomllib.loads(text.decode("utf-8-sig")), json.loads(read.out)) or "right"

    planned = st.tuples(st.just("plan"), mutants.recipes(sources))
    return planned | st.tuples(st.just("run"), mutants.recipes([SMALL_RUN])), judge


def _resolved(path: Path) -> dict[str, Any]:
    """What was read, without the stages that `[controls]` adds."""
    from whetstone.recipe import read_recipe

    recipe = read_recipe(path)
    resolved = recipe.resolved()
    written = [stage.control is None for stage in recipe.stages]
    return resolved | {"stage": list(compress(resolved["stage"], written))}


def _unlike(written: Any, read: Any, where: str = "") -> str:
    """Where what was read is not what was written; what was not written is a default."""
    if isinstance(written, dict) and isinstance(read, dict):
        return next(
            filter(
                None,
                (_unlike(v, read.get(k, read.get("inputs", {}).get(k)), f"{where}.{k}") for k, v in written.items()),
            ),
            "",
        )
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return next(
            filter(None, (_unlike(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(written, read, strict=True)))),
            "",
        )
    named = isinstance(written, str) and isinstance(read, dict) and read.get("name", read.get("kind")) == written
    same = isinstance(written, bool) == isinstance(read, bool) and written == read
    reference = (
        isinstance(written, str) and isinstance(read, str) and written in read
    )  # an input, as stage or stage/artifact
    ordered = (
        isinstance(written, list) and isinstance(read, list) and sorted(map(str, written)) == sorted(map(str, read))
    )
    return (
        ""
        if named or same or reference or ordered or (written == "" and read is None)
        else f"{where} = {written!r} was read as {read!r}"
    )


# --- rows


ROWS = [
    {"question": f"What is {n} + {n}?", "gold": str(2 * n), "prediction": rf"so \boxed{{{2 * n + n % 2}}}"}
    for n in range(8)
]


def row_kind(base: Path) -> Kind:
    """Row 3 of eight is changed, as a value or in its bytes; the others keep their verdicts."""
    lines = [mutants.as_json(row) for row in ROWS]
    spoilt = mutants.changed(ROWS[3]).map(mutants.as_json) | mutants.spoilt_bytes(lines[3])
    shape = st.sampled_from(("jsonl", "jsonl", "json", "csv"))

    def judge(mutant: tuple[bytes, str, bool], place: Path) -> str:
        line, suffix, as_problems = mutant
        content = [*lines[:3], line, *lines[4:]]
        path = place / f"rows.{suffix}"
        if suffix == "csv":
            path.write_bytes(
                b"question,gold,prediction\n"
                + b"".join(_csv_line(row) for row in ROWS[:3])
                + line
                + b"\n"
                + b"".join(map(_csv_line, ROWS[4:]))
            )
        else:
            path.write_bytes(b"[" + b",".join(content) + b"]" if suffix == "json" else b"\n".join(content))
        if as_problems:
            return _as_problems(place, path, line)
        ended = command(place, "verify", str(path), "--output", "judged.jsonl")
        said = complaint(ended)
        if said or ended.status:
            return said or ("error" if suffix != "jsonl" else f"one row cost the others: {ended.err[:200]}")
        if suffix != "csv":  # a quote that opens in one line takes the next ones with it
            judged = [json.loads(line) for line in (place / "judged.jsonl").read_text().splitlines()]
            verdicts = {row["question"]: row["correct"] for row in judged if isinstance(row.get("question"), str)}
            for n, row in enumerate(ROWS):
                if n != 3 and verdicts.get(row["question"]) is not (n % 2 == 0):
                    return f"row {n} has the verdict {verdicts.get(row['question'])}"
        return "right"

    return st.tuples(spoilt, shape, st.booleans()), judge


def _csv_line(row: dict[str, str]) -> bytes:
    return ",".join(row.values()).encode() + b"\n"


def _as_problems(place: Path, path: Path, line: bytes) -> str:
    import pyarrow.parquet as pq

    source = f'kind = "file"\npath = "{path}"\ncolumns = {{ question = "question", answer = "gold" }}\n'
    (place / "r.toml").write_text(f'[run]\nname = "r"\n[[stage]]\nkind = "questions"\n[[stage.source]]\n{source}')
    ended = command(place, "run", "r.toml")
    said = complaint(ended)
    if said or ended.status:
        return said or ("error" if path.suffix != ".jsonl" else f"one row cost the others: {ended.err[:200]}")
    tables = sorted((place / "runs/r/01-questions/problems").glob("*.parquet"))
    problems = [row for table in tables for row in pq.read_table(table).to_pylist()]
    missing = {row["question"] for n, row in enumerate(ROWS) if n != 3} - {problem["question"] for problem in problems}
    if missing and path.suffix != ".csv":
        return f"rows that were not touched are gone: {missing}"
    raw = line.decode("utf-8", errors="replace")
    for problem in problems:
        for text in (problem["question"], problem["answer"]):
            if text.startswith(("{'", "['", "b'", "[{")) and text not in raw:
                return f"a Python repr was kept: {text!r}"
    return "right"


# --- run folders


def folder_kind(base: Path) -> Kind:
    """A small finished run, and one whose last stage was interrupted; one file of it is changed."""
    whole = base / "whole"
    whole.mkdir(parents=True)
    (whole / "r.toml").write_text(SMALL_RUN)
    ended = command(whole, "run", "r.toml")
    if ended.status:
        raise RuntimeError(f"the run to be mutated failed: {ended.err}")
    expected = _corpus(whole)
    files = sorted(
        path.relative_to(whole)
        for path in (whole / "runs").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
    texts = [path for path in files if path.suffix in (".json", ".jsonl")]
    if not texts:
        raise RuntimeError(f"no JSON file below {whole / 'runs'}")

    @st.composite
    def cases(draw: st.DrawFn) -> tuple[Path, bytes, bool, str]:
        path = draw(st.sampled_from(texts * 3 + files))
        content = (whole / path).read_bytes()
        changed = draw(mutants.json_files(content) if path in texts else mutants.spoilt_bytes(content))
        return (
            path,
            changed,
            draw(st.booleans()),
            draw(st.sampled_from(("run", "run", "run", "plan", "show", "report", "force"))),
        )

    def judge(mutant: tuple[Path, bytes, bool, str], place: Path) -> str:
        path, content, interrupted, action = mutant
        shutil.copytree(whole, place, dirs_exist_ok=True)
        if interrupted:
            manifest = place / "runs/r/03-corpus/manifest.json"
            manifest.rename(manifest.with_name("started.json"))
            path = Path(str(path).replace("03-corpus/manifest.json", "03-corpus/started.json"))
        (place / path).write_bytes(content)
        words = {
            "run": ("run", "r.toml"),
            "force": ("run", "r.toml", "--force"),
            "plan": ("plan", "r.toml"),
            "show": ("show", "runs/r"),
            "report": ("report", "runs/r"),
        }[action]
        ended = command(place, *words)
        said = complaint(ended)
        if said or ended.status:
            return said or "error"
        if action in ("run", "force"):
            try:
                corpus = _corpus(place)
            except (OSError, ValueError) as error:
                return f"{path}: status 0, and a corpus that cannot be read: {error}"
            if corpus != expected:
                return f"{path}: status 0, and another corpus"
        return "right"

    return cases(), judge


def _corpus(place: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path) for path in sorted((place / "runs/r/03-corpus/corpus").glob("*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]


# --- server answers


class Answers(socketserver.StreamRequestHandler):
    """Sends what it is told, byte by byte, and closes."""

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline()).strip():
            if line.lower().startswith(b"content-length"):
                length = int(line.partition(b":")[2])
        self.rfile.read(length)
        with contextlib.suppress(OSError):
            self.wfile.write(self.server.answer)  # type: ignore[attr-defined]


MESSAGE = {"role": "assistant", "content": r"so \boxed{5}", "reasoning_content": "2 + 3"}
BODY = {
    "id": "x",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 20},
}


def server_kind(base: Path) -> Kind:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"

    def ask() -> None:
        from whetstone.decode.server_generator import Server, ServerError, ServerGenerator
        from whetstone.records import Message, Prompt, Sampling

        generator = ServerGenerator(Server(server=address, model="m", retries=1, longest_pause=0.02, timeout=5))
        try:
            for completion in generator.generate([Prompt("p", 0, (Message("user", "2 + 3?"),))], Sampling(0.6, 64)):
                print(json.dumps([completion.text, list(completion.usage or ())]))
        except ServerError as error:
            print(f"error: {error}".replace("\n", " "), file=sys.stderr)
            sys.exit(2)
        for _, reason in generator.failed:
            print(f"error: failed: {reason}".replace("\n", " "), file=sys.stderr)
            sys.exit(2)

    def judge(mutant: bytes, place: Path) -> str:
        server.answer = mutant  # type: ignore[attr-defined]
        ended = forked(place, ask)
        said = complaint(ended)
        if said or ended.status:
            return said or "error"
        for text, usage in map(json.loads, ended.out.splitlines()):
            if any(count < 0 for count in usage):
                return f"usage {usage}"
            if not _stands_in(text, mutant):
                return f"a text that is not in the answer: {text!r}"
        return "right"

    return mutants.answers(BODY), judge


def _stands_in(text: str, answer: bytes) -> bool:
    """Is each part of the text, thinking and content, a string of the answer's JSON?"""
    strings: list[str] = []
    body = answer.partition(b"\r\n\r\n")[2]
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        strings = [value for path in mutants.paths_of(found) if isinstance(value := _at(found, path), str)]
    parts = text.removeprefix("<think>\n").split("\n</think>\n\n")
    whole = json.dumps(BODY)
    return all(not part.strip() or any(part.strip() in value for value in strings) or part in whole for part in parts)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


KINDS = {"recipe": recipe_kind, "rows": row_kind, "run folder": folder_kind, "server": server_kind}
