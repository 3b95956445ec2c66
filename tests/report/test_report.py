"""The report: one page, from a run folder alone."""

import base64
import gzip
import hashlib
import json
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import pytest

from whetstone.browser import asset
from whetstone.report import browse, charts, report
from whetstone.report.numbers import plus, seconds
from whetstone.report.published import published
from whetstone.report.read import RunRecord, StageRecord, model_facts, read_run
from whetstone.report.rollouts import CHARACTERS, choose_problems, split_thinking
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import read_rows, write_rows


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    return fake_run.make(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def html(run_folder) -> str:
    return report.write_report(run_folder).read_text(encoding="utf-8")


TEXTS = ("question", "gold", "text", "answer", "reason", "domain")


class Page(HTMLParser):
    """Tags that were opened and not closed, and every address asked for."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def without_scripts(html: str) -> str:
    """The page without the scripts that are ours, and without the data that they show."""
    for name in report.SCRIPTS:
        assert f"<script>{asset(name)}</script>" in html
        html = html.replace(f"<script>{asset(name)}</script>", "")
    return re.sub(r'<script type="text/plain" id="[a-z-]+">[A-Za-z0-9+/=]*</script>', "", html)


def stored(html: str, name: str):
    """What the page's script `name` is given."""
    return json.loads(gzip.decompress(base64.b64decode(html.partition(f'id="{name}-data">')[2].partition("<")[0])))


def test_the_page_is_well_formed_and_loads_nothing_from_the_network(html):
    page = Page(html)
    assert page.open == []
    assert page.addresses and all(address.startswith("#") for address in page.addresses)
    plain = without_scripts(html)
    assert not re.search(r"https?://|@import|url\(|<script", plain)
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", plain.lower())


def test_no_script_but_the_pages_own_may_run(html):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    ours = [base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode() for name in report.SCRIPTS]
    assert (
        allowed == ours
        and "default-src 'none'" in policy
        and "unsafe-inline' " not in policy.partition("script-src")[2]
    )


def test_the_browser_has_every_rollout_and_rls_own_with_their_rewards(html, run_folder):
    data = stored(html, "rollouts")
    assert len(data["rows"]["problem"]) == data["total"] == 10 * 2 * 60 * 8 + fake_run.RL_ROLLOUTS
    assert data["begin"] == ["tiny", "rl"]
    (rl,) = [place for place, where in enumerate(data["where"]) if where == ["tiny", "rl", "training problems"]]
    rows = [dict(zip(data["rows"], row, strict=True)) for row in zip(*data["rows"].values(), strict=True)]
    sampled = [row for row in rows if row["where"] == rl]
    assert [(row["step"], row["reward"], row["trained"]) for row in sampled[:2]] == [(1, 1.0, True), (1, -1.0, False)]
    assert data["problems"][sampled[0]["problem"]][2] == "What is 1/2 + 1/2?"
    assert sampled[0]["thinking"] == "halves" and sampled[0]["final"] == r"\boxed{1}"


def test_of_too_many_rollouts_all_those_of_some_problems_are_shown(run_folder, monkeypatch):
    monkeypatch.setattr(browse, "MOST", 2000)
    data = browse.as_json(read_run(run_folder))
    count = len(data["rows"]["problem"])
    assert 1000 < count < 3000 < data["total"]
    of_problem = Counter(
        p for p, where in zip(data["rows"]["problem"], data["rows"]["where"], strict=True) if where < 4
    )
    assert {count for p, count in of_problem.items()} == {2 * fake_run.SAMPLES}, "a problem is there with all samples"


def test_two_runs_stand_on_one_page_with_the_paired_difference_and_what_was_set_differently(run_folder, tmp_path):
    other = Path(shutil.copytree(run_folder, tmp_path / "other"))
    manifest = read_json(other / "07-rl" / "manifest.json")
    write_json(
        other / "07-rl" / "manifest.json", manifest | {"settings": manifest["settings"] | {"learning_rate": 0.5}}
    )
    rows = list(read_rows(other / "scores" / "rl" / "three_operations"))
    write_rows(other / "scores" / "rl" / "three_operations", [row | {"correct": False} for row in rows])
    path = report.write_report(run_folder, other)
    html = path.read_text(encoding="utf-8")
    assert path.name == "report_beside_other.html" and Page(html).open == []
    table = html.partition('id="beside"')[2].partition("</section>")[0]
    ours = next(
        s["mean"] for s in read_json(run_folder / "scores.json")["scores"] if (s["stage"], s["main"]) == ("rl", True)
    )
    assert f"+{100 * ours:.1f}</span>" in table, "all of the other's answers are wrong"
    assert "<td>rl.learning_rate</td><td><code>0.004</code></td><td><code>0.5</code></td>" in table
    lines = [line["name"] for chart in stored(html, "curves") if chart["group"] == "sft" for line in chart["lines"]]
    assert lines[:2] == ["loss, tiny", "loss, other"]
    assert {where[0] for where in stored(html, "rollouts")["where"]} == {"tiny", "other"}
    with pytest.raises(ValueError, match="is the run itself"):
        report.write_report(run_folder, run_folder)


def test_it_shows_the_score_of_every_stage_and_of_the_papers(html, run_folder):
    text = Page(html).text
    for score in read_json(run_folder / "scores.json")["scores"]:
        assert f"{100 * score['mean']:.1f}" in text
        assert f"{100 * score['low']:.1f}–{100 * score['high']:.1f}" in text
    for number in ("10.0", "71.8", "36.9", "57.5", "94.6", "52.0", "48.1", "91.2", "44.5"):
        assert number in text
    assert "Another model at another scale" in text


def test_published_scores_stand_beside_the_runs_last_with_what_their_protocols_have_other(run_folder):
    run = read_run(run_folder)
    ours = run.score("rl", run.benchmarks[0])
    row = {
        "benchmark": run.benchmarks[0],
        "model": "<other>",
        "value": 0.4813,
        "table": "again",
        "source": "their card",
    }
    row |= {"read": "secondary", "measure": "mean", "differs": ["samples 64, ours 8", "not stated: top_p"]}
    shown = published(replace(run, evaluation=run.evaluation | {"published": [row]}))
    assert shown.index(f">{100 * ours['mean']:.1f}<") < shown.index("48.13") and "&lt;other&gt;" in shown
    assert "samples 64, ours 8; not stated: top_p" in shown and "again (read in a copy): their card." in shown
    assert "cannot be compared" in shown and published(run) == ""


def test_what_a_model_wrote_is_escaped(html):
    assert "&lt;b&gt;Think&lt;/b&gt; &amp; answer." in html
    assert "<b>Think</b>" not in html


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'\x1b[2J\x00\u202e\u2066"


def poisoned(value):
    """The value with hostile text behind every string in it."""
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_hostile_text_in_rows_names_and_manifests_is_text_on_the_page(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "tiny<b>\x1b[2J")
    for table in folder.glob("scores/*/*"):
        if table.is_dir():
            rows = [{**row, **poisoned({key: row[key] for key in TEXTS})} for row in read_rows(table)]
            shutil.rmtree(table)
            write_rows(table, rows)
    for name in ("run.json", "03-corpus/card.json"):
        if (folder / name).exists():
            write_json(folder / name, poisoned(read_json(folder / name)))
    html = report.write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == [] and all(address.startswith("#") for address in page.addresses)
    assert HOSTILE.partition("\x1b")[0] in stored(html, "rollouts")["rows"]["final"][0], "its script writes text nodes"
    assert not re.search("[\x00-\x08\u202a-\u202e]", json.dumps(stored(html, "rollouts"), ensure_ascii=False))
    html = without_scripts(html)
    assert "<script" not in html and "<img" not in html and "<b>\\x1b" not in html
    assert html.count("&lt;script&gt;alert(1)") > 20
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert r"\x1b[2J\x00\u202e\u2066" in html


def test_a_stage_that_does_not_follow_the_one_before_is_a_control(run_folder):
    run = read_run(run_folder)
    assert [stage.name for stage in run.pipeline] == ["midtrain", "sft", "dpo", "rl"]
    assert [(control.name, of.name) for control, of in run.controls] == [
        ("midtrain-control-prompt", "midtrain"),
        ("sft-control-midtraining", "sft"),
        ("rl-control-random_reward", "rl"),
        ("more_midtrain", "sft"),
        ("sft_on_chosen", "dpo"),
    ]


@pytest.mark.parametrize(
    ("teacher", "student", "pipeline", "beside"),
    [
        ("teacher", "sft", ["sft", "distill"], ["longer", "teacher"]),  # recipes/distill.toml
        ("sft", "longer", ["sft", "longer", "teacher"], ["distill"]),  # its own ancestor teaches it
    ],
)
def test_a_stage_that_only_teaches_stands_beside_the_pipeline(teacher, student, pipeline, beside):
    def trained(name: str, **models: str) -> StageRecord:
        inputs = {name: {"stage": stage, "artifact": "model"} for name, stage in models.items()}
        return StageRecord(name, "sft", Path(name), {"inputs": inputs, "outputs": {"model": ""}})

    stages = [trained("sft"), trained("longer", model="sft"), trained("teacher", model="longer")]
    run = RunRecord(Path(), "r", [*stages, trained("distill", model=student, teacher=teacher)], [])
    assert [stage.name for stage in run.pipeline] == pipeline
    assert [stage.name for stage, _ in run.controls] == beside


def test_every_stage_stands_beside_its_controls_and_the_text_says_what_the_interval_means(html, run_folder):
    table = html.partition('id="controls"')[2].partition("</section>")[0]
    text = Page(f"<p>{table.partition('>')[2]}</p>").text
    scores = {s["stage"]: s for s in read_json(run_folder / "scores.json")["scores"] if s["main"]}
    for name in ("sft-control-midtraining", "rl-control-random_reward"):
        found = scores[name]["stage_minus_control"]
        assert f"{100 * found['difference']:+.1f}".replace("-", "−") in text
    rows = re.findall(r"<tr>.*?</tr>", table)
    readings = [row.rpartition("<td>")[2].removesuffix("</td></tr>") for row in rows if "three_operations" in row]
    assert readings == [*5 * ["outside the interval of its control"], "inside the interval of its control"]
    assert "Reinforcement learning" in rows[2] and "midtrain-control-prompt" in rows[2], (
        "a prompt beside all of training"
    )
    assert "4 examples" in text and "Be <b>brief</b>." in text and "chosen" in text
    assert "dpo gets no control midtraining: made up." in text
    assert "60 problems × 8, temperature 0.6; controls on 40 problems" in html
    ladder = html.partition('id="stages"')[2].partition("</section>")[0]
    assert ladder.index("sft-control-midtraining") < ladder.index("Rollout DPO"), "below its stage"


def test_the_same_problems_are_shown_across_stages_right_and_wrong(run_folder):
    run = read_run(run_folder)
    stages = ["base", "midtrain", "sft", "dpo", "rl"]
    problems = choose_problems(run, stages, "three_operations")
    assert all(list(answers) == stages for answers in problems)
    assert all(len({row["problem_id"] for row in answers.values()}) == 1 for answers in problems)
    verdicts = {row["correct"] for answers in problems for row in answers.values()}
    assert {True, False} <= verdicts
    patterns = {tuple(row["correct"] for row in answers.values()) for answers in problems}
    assert len(patterns) == len(problems), "every pattern of right and wrong has its turn before one comes twice"


def test_thinking_is_folded_and_long_texts_are_shortened():
    assert split_thinking("<think>a</think> b") == ("a", "b")
    assert split_thinking("<think>never ends") == ("never ends", "")
    assert split_thinking("plain") == ("", "plain")
    thinking, _ = split_thinking("<think>" + "x" * 3 * CHARACTERS)
    assert len(thinking) < CHARACTERS + 100
    assert f"{2 * CHARACTERS:,} characters left out" in thinking


def test_parameters_are_counted_from_the_weights_header(run_folder):
    facts = model_facts(run_folder / "07-rl" / "model")
    assert facts["parameters"] == 312 * 128 + 4 * 1500 * 128
    assert facts["num_key_value_heads"] == 2


def test_a_run_without_scores_or_curves_still_has_a_report(tmp_path):
    write_json(tmp_path / "early" / "01-questions" / "manifest.json", {"kind": "questions", "name": "questions"})
    html = report.write_report(tmp_path / "early").read_text(encoding="utf-8")
    assert Page(html).open == []
    assert "What each stage gave" not in html
    assert "01-questions" in html


def test_a_folder_without_stages_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"no complete stage.*whetstone run"):
        report.write_report(tmp_path)
    with pytest.raises(ValueError, match=r"is missing.*whetstone run"):
        report.write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a folder: name the file"):
        report.write_report(tmp_path, output=tmp_path)


def test_the_stage_gives_the_page(run_folder, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(run_folder, folder)
    stage = Stage(
        name="report",
        kind="report",
        folder=folder / "11-report",
        settings=report.Settings(kind="report"),
        inputs={},
        run=RunSettings(name="tiny"),
        model=ModelSettings(),
        parallel=ParallelSettings(),
        scores=ScoreSettings(),
    )
    summary = report.run(stage)
    json.dumps(summary)
    assert (folder / "report.html").read_bytes() == (folder / "11-report" / "report" / "report.html").read_bytes()


def test_an_incomplete_metrics_line_and_values_that_are_no_numbers_are_skipped(run_folder, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(run_folder, folder)
    with (folder / "05-sft" / "metrics.jsonl").open("a") as out:
        out.write('{"step": 121, "loss": NaN}\n{"step": 122, "los')
    (sft,) = (stage for stage in read_run(folder).stages if stage.name == "sft")
    assert len(sft.metrics()) == 121
    report.write_report(folder)


def test_a_line_goes_through_its_points():
    """Two points: the ends of the plot, the lower value lower on the page (larger y)."""
    svg = charts.line_chart([charts.Line("loss", [1, 2], [3.0, 1.0])])
    (points,) = re.findall(r'points="([^"]+)"', svg)
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert x1 < x2
    assert y1 < y2


def test_values_that_are_no_numbers_leave_gaps_and_no_values_draw_nothing():
    line = charts.Line("loss", [1, 2, 3], [1.0, math.inf, 2.0])
    (points,) = re.findall(r'points="([^"]+)"', charts.line_chart([line]))
    assert len(points.split()) == 2
    assert charts.line_chart([charts.Line("loss", [1], [math.nan])]) == ""
    assert "circle" in charts.line_chart([charts.Line("loss", [1], [2.0])])


def test_a_long_line_is_thinned_by_means():
    thin = charts.thin(charts.Line("a", range(1000), [2.0] * 1000), points=100)
    assert len(thin.xs) == 100
    assert set(thin.ys) == {2.0}
    assert thin.xs[0] == 4.5  # the mean of steps 0 to 9


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (0.28, 0.31), (0, 1e-5), (12_000, 20_000), (5, 5.0001)])
def test_ticks_are_round_and_inside(low, high):
    ticks = charts.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_numbers_are_short_and_have_units():
    assert [charts.number(x) for x in (0, 3e-5, 0.25, 12, 15_000, 2.5e6)] == [
        "0",
        "3.0e-5",
        "0.25",
        "12",
        "15k",
        "2.5M",
    ]
    assert [plus(x) for x in (0.031, -0.031, 0.0001, -0.0001)] == ["+3.1", "−3.1", "0.0", "0.0"]
    assert [seconds(x) for x in (4.4, 75, 3700)] == ["4 s", "1:15 min", "1:01 h"]
