"""What the model learnt from, and how to repeat the run."""

from html import escape

from whetstone.report.charts import bars, histogram
from whetstone.report.numbers import n, panel, seconds, section, table
from whetstone.report.read import RunRecord, StageRecord
from whetstone.run.secrets import redacted

COUNTED = (("Levels", "levels"), ("Domains", "domains"), ("Sources", "sources"), ("Licences", "licences"))


def data(run: RunRecord) -> str:
    card = run.card()
    if not card:
        return ""
    rows = sorted(card["rows"].items(), key=lambda item: -item[1])
    counts = "".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in rows)
    panels = [panel(title, bars(card[key])) for title, key in COUNTED if card.get(key)]
    lengths = {float(low): count for low, count in card.get("characters", {}).items()}
    rates = {float(rate): count for rate, count in card.get("pass_rates", {}).items()}
    if lengths:
        panels.append(panel("Length of the accepted traces", histogram(lengths, card["characters_bin"], "characters")))
    if rates:
        drawn = histogram(rates, 0.1, "share of a problem’s rollouts that are right")
        panels.append(panel("The teacher’s pass rate", drawn))
    if card.get("drops"):
        panels.append(panel("Left out, by reason", bars(card["drops"]), "broad"))
    matches = card.get("contamination", {}).get("matches", {})
    counted = ", ".join(f"{count:,} {escape(rule)}" for rule, count in matches.items()) or "no match"
    note = (
        f"Training questions compared with every test question: {counted}. Equal questions, and long passages in common "
        "with the same numbers, are dropped; questions that differ in their numbers are only counted."
    )
    shown = f'<dl class="facts">{counts}</dl><div class="panels">{"".join(panels)}</div><p class="note">{note}</p>'
    return section("data", "Data", shown)


def reproduce(run: RunRecord) -> str:
    last = run.stages[-1].manifest
    versions = run.run.get("versions") or last.get("versions", {})
    recipe = escape(str(run.run.get("recipe_file", "RECIPE")))
    facts = {
        "Command": f"<code>whetstone run {recipe}</code>",
        "Revision": f"<code>{escape(str(last.get('git_revision') or 'not a checkout'))}</code>",
        "Versions": escape(", ".join(f"{name} {version}" for name, version in versions.items() if version)),
        "Python": escape(str(last.get("python", ""))),
        "System": escape(str(run.run.get("hardware", {}).get("system", ""))),
        "Finished": escape(str(last.get("finished", ""))[:19].replace("T", " ") + " UTC"),
    }
    pairs = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    stages = table(["stage", ">wall", ">CPU", ">memory", "settings"], [_stage(stage) for stage in run.stages])
    return section("reproduce", "How to repeat it", f'<dl class="pairs">{pairs}</dl>{stages}')


def _stage(stage: StageRecord) -> str:
    usage = stage.manifest
    cells = n(
        seconds(usage.get("wall_seconds", 0)),
        seconds(usage.get("cpu_seconds", 0)),
        f"{usage.get('peak_memory', 0) / 2**20:,.0f} MiB",
    )
    known = redacted(usage.get("settings", {}))  # a manifest of an older version may hold a secret
    settings = {name: value for name, value in known.items() if value is not None}
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    count = f"{len(settings)} setting{'s' if len(settings) != 1 else ''}"
    folded = f"<details><summary>{count}</summary><pre>{escape(lines)}</pre></details>" if settings else ""
    return f"<tr><td>{escape(stage.folder.name)}</td>{cells}<td>{folded}</td></tr>"
