"""Text of models, data, servers and names cannot steer the terminal: it is shown with its control characters as escapes."""

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import whetstone
from whetstone import cli, terminal
from whetstone.ask import Printer
from whetstone.problems.row import as_json
from whetstone.records import Score
from whetstone.run.progress import Bar, progress, say
from whetstone.run.tables import write_rows
from whetstone.run.visible import guard_libraries, visible, write_json_line

ROOT = Path(whetstone.__file__).parent
STEERS = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F))]
STEERS += ["\u2066", "\u2067", "\u2068", "\u2069"]
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\rb\b\x00\u202ec\u2066\x7fd"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\x9b31m\rb\x08\x00\u202ec\u2066\x7fd"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def harmless(text: str, *ours: str) -> bool:
    """Whether nothing steers but what is `ours`."""
    for sequence in ours:
        text = text.replace(sequence, "")
    return not any(character in text for character in STEERS)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["whetstone", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code or 0


def test_what_steers_is_shown_and_all_other_text_is_as_it_was():
    assert visible(HOSTILE) == SHOWN
    assert harmless(visible("".join(STEERS) + "\ud800"))
    assert visible("\ud800") == r"\ud800"
    plain = "x\ty\n½ π \u05d0 \u0627 👩‍🔬 \\boxed{7} [red] [/] :eyes:"
    assert visible(plain) == plain
    assert visible("x\ty\nz", one_line=True) == r"x\ty\nz"


def test_json_is_as_safe_and_gives_the_same_value_back():
    out = io.StringIO()
    row = {HOSTILE: [HOSTILE, "\ud800", "é\n\t"]}
    write_json_line(as_json(row), out)
    assert harmless(out.getvalue()) and "\ud800" not in out.getvalue() and "é" in out.getvalue()
    assert json.loads(out.getvalue()) == row and out.getvalue().count("\n") == 1
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write_json_line(as_json({"x": "é𝄞"}), ascii_only)
    ascii_only.seek(0)
    assert json.loads(ascii_only.read()) == {"x": "é𝄞"}


@pytest.mark.parametrize("thinking", ["show", "fold", "hide"])
def test_an_answer_cannot_steer_the_terminal_on_which_it_appears_piece_by_piece(thinking):
    out = Terminal()
    printer = Printer(thinking, out)
    for piece in ("<think>\x1b", "[2J</think>", HOSTILE, "\x1b", "[31m"):
        printer.write(piece)
    printer.end()
    assert harmless(out.getvalue(), "\x1b[2m", "\x1b[0m", "\r\x1b[2m", "\x1b[K", "\r")
    assert SHOWN + r"\x1b[31m" in out.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_bar_and_its_lines_show_hostile_labels_and_markup_as_text(stream):
    out = stream()
    with progress(2, f"scoring {HOSTILE} [/] [red]x", "rows\nx", stream=out) as bar:
        bar.advance(1, **{"right[/b]": HOSTILE})
        bar.write(f"   {HOSTILE} [/] :eyes:")
    shown = out.getvalue()
    assert f"scoring {SHOWN} [/] [red]x" in shown and f"{SHOWN} [/] :eyes:" in shown
    assert stream is Terminal or r"rows\nx" in shown, "rich cuts at 80 columns"
    assert harmless(re.sub(r"\x1b\[\??(25[hl]|1A|2K)|\r", "", shown)), "rich draws with these"
    assert stream is Terminal or harmless(shown)


def test_a_status_line_is_shown(capsys):
    say(f"base on {HOSTILE}")
    assert capsys.readouterr().err == f"base on {SHOWN}\n"


def test_show_is_safe_in_names_values_and_nested_values_on_a_terminal_too(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({f"name {HOSTILE}\n": HOSTILE, "nested": [{HOSTILE: HOSTILE}], "t": "a\tb\nc"}) + "\n")
    assert call(monkeypatch, "show", path) == 0
    output = capsys.readouterr().out
    assert harmless(output) and f"name {SHOWN}\\n" in output and "a\tb\nc" in output
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert call(monkeypatch, "show", path) == 0
    assert harmless(capsys.readouterr().out, "\x1b[1m", "\x1b[0m", "\x1b[2m")


def test_the_list_of_a_folders_tables_is_safe(tmp_path, monkeypatch, capsys):
    write_rows(tmp_path / "a\x1b[2Jb" / "table", [{"c\x1b[31m\n": 1}])
    assert call(monkeypatch, "show", tmp_path) == 0
    output = capsys.readouterr().out
    assert harmless(output) and r"a\x1b[2Jb/table  1 rows: c\x1b[31m\n" in output


def test_verifys_rows_and_summary_are_safe(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"pred": f"\\boxed{{7}} {HOSTILE}", "gold": "7", "id": HOSTILE}) + "\n")
    assert call(monkeypatch, "verify", path, "--prediction-field", "pred") == 0
    printed = capsys.readouterr()
    assert harmless(printed.out) and harmless(printed.err)
    assert json.loads(printed.out)["id"] == HOSTILE


def test_an_error_names_a_hostile_file_as_text(tmp_path, monkeypatch, capsys):
    for words in (
        ("show", "x\x1b[2J"),
        ("verify", "x\x1b[2J\r"),
        ("generate", "-m", "./x\x1b[2J", "hi"),
        ("run", "\x9b2J"),
    ):
        assert call(monkeypatch, *words) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and harmless(printed.out) and harmless(printed.err)


def test_tables_show_markup_emoji_names_and_controls_as_text(capsys):
    from whetstone.terminal import print_scores

    numbers = {"mean": 0.5, "low": 0.4, "high": 0.6, "majority": 0.5, "truncated": 0.0, "mean_tokens": 3.0}
    names = "[red]x[/red]", "[/]", ":eyes:", HOSTILE, "two\nlines"
    print_scores([Score("m", name, True, 8, 2, pass_at_k={"1": 0.5}, temperature=1.0, **numbers) for name in names])
    output = capsys.readouterr().out
    assert harmless(output)
    for name in ("[red]x[/red]", "[/]", ":eyes:", r"two\nlines"):
        assert name in output


def test_a_runs_table_shows_markup_in_a_benchmarks_name_as_text(walk, rooms, monkeypatch, capsys):
    assert call(monkeypatch, "run", walk) == 0
    scores = walk.parent / "runs" / "walk" / "scores.json"
    scores.write_text(scores.read_text().replace('"easy"', '"[/red] easy"'))
    from whetstone.recipe import read_recipe
    from whetstone.terminal import print_results

    capsys.readouterr()
    print_results(read_recipe(walk))
    output = capsys.readouterr().out
    assert "[/red] easy mean@2" in output and "base" in output


def test_what_libraries_log_and_warn_is_shown(monkeypatch, capsys):
    for owner, name in ((sys, "excepthook"), (warnings, "formatwarning")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back after the test
    guard_libraries.__wrapped__()
    log = logging.getLogger("test_terminal")
    handler = logging.StreamHandler(io.StringIO())
    log.addHandler(handler)
    log.warning("unknown key %s", HOSTILE)
    assert handler.stream.getvalue() == f"unknown key {SHOWN}\n"
    assert SHOWN in warnings.formatwarning(HOSTILE, UserWarning, "file.py", 1)
    sys.excepthook(ValueError, ValueError(HOSTILE), None)
    assert capsys.readouterr().err == f"ValueError: {SHOWN}\n"


def test_no_other_module_prints():
    """A new `print` would be a new way to the terminal: use `write_line`, `say` or a table."""
    printing = set()
    for path in ROOT.rglob("*.py"):
        if path.parent.name == "isolation":  # runs inside the sandbox, whose output is captured
            continue
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "print(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                printing.add(path.relative_to(ROOT).as_posix())
    assert printing == {"run/visible.py", "run/watchdog.py"}, "the watchdog runs alone and writes its own words"


def test_a_bars_line_is_one_line():
    assert "\n" not in Bar(2, "two\nlines", "x", 0, io.StringIO(), live=False).line()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_character_that_the_terminals_encoding_lacks_costs_no_result(encoding):
    """`schema` writes an ellipsis; so do tables of scores, after minutes of sampling."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "whetstone.cli", "schema"]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "…" in json.dumps(json.loads(ended.stdout), ensure_ascii=False)


def test_a_narrow_terminal_cuts_no_name_and_no_number(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_console", lambda width: Console(width=80, markup=False, highlight=False))
    shares = {"1": 1.0, "2": 1.0, "4": 1.0, "8": 1.0}
    terminal.print_scores([Score("s", "words", True, 200, 8, 1.0, 0.342, 1.0, shares, 0.987, 0.0, 64.0, 0.6)])
    printed = capsys.readouterr().out
    for cell in ("words", "200", "100.0", "34.2", "98.7", "@8", "64", "0.6"):
        assert f"{cell} " in printed
