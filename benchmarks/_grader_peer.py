"""The verdicts of another harness's own metrics on given texts, in that harness's environment.

    python benchmarks/_grader_peer.py lm_eval|lighteval ROWS.jsonl OUT.json

ROWS: {"text", "gold"}, where gold is the bare reference. OUT: {"metrics": {name: [[right, what was read]]}, "cpu_s": seconds by
metric}. A metric that raises an error on a text calls it wrong, and what was read says so.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Grade = Callable[[str, str], tuple[bool, str]]
UNKNOWN = "?"
SHOWN = 60  # characters of what was read


def lm_eval_metrics() -> dict[str, Grade]:
    """The two filters of its GSM8K task, and the metric of its MATH tasks, which is math-verify's."""
    from _lm_eval_peer import task
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.api.registry import get_filter
    from lm_eval.tasks.minerva_math.utils import parse, process_results

    told = task({"rows": "", "stops": [], "max_tokens": 1})
    (metric,) = told["metric_list"]
    ignored = {"regexes_to_ignore": metric["regexes_to_ignore"], "ignore_case": metric["ignore_case"]}

    def by_filter(steps: list[dict[str, Any]]) -> Grade:
        filters = [get_filter(step.pop("function"))(**step) for step in steps]

        def grade(text: str, gold: str) -> tuple[bool, str]:
            taken: Any = [[text]]
            for each in filters:
                taken = list(each.apply(taken, [{}]))
            (read,) = taken
            found = exact_match_hf_evaluate(predictions=[read], references=[f"#### {gold}"], **ignored)
            return bool(found["exact_match"]), read

        return grade

    def math(text: str, gold: str) -> tuple[bool, str]:
        found = process_results({"answer": gold, "solution": f"$\\boxed{{{gold}}}$"}, [text])
        return bool(found["math_verify"]), ", ".join(map(str, parse(text)[-1:]))

    named = {f"lm-eval gsm8k {each['name']}": by_filter(each["filter"]) for each in told["filter_list"]}
    return named | {"lm-eval minerva_math math_verify": math}


def lighteval_metrics() -> dict[str, Grade]:
    """The metrics of its GSM8K and MATH-500 tasks."""
    from lighteval.metrics.metrics import Metrics
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    def by(metric: Any, dressed: str) -> Grade:
        def grade(text: str, gold: str) -> tuple[bool, str]:
            document = Doc(query="", choices=[dressed.format(gold)], gold_index=0)
            (mark,) = metric.compute_sample(doc=document, model_response=ModelResponse(text=[text])).values()
            read = (document.specific or {}).get("extracted_predictions")  # pass@k keeps none
            return bool(mark), UNKNOWN if read is None else ", ".join(read[:1])

        return grade

    math = Metrics.pass_at_k_math(sample_params={"k": 1, "n": 1})
    return {
        "lighteval gsm8k extractive_match": by(Metrics.expr_gold_metric.value, "#### {}"),
        "lighteval math_500 pass@k": by(getattr(math, "value", math), "$\\boxed{{{}}}$"),
    }


HARNESSES = {"lm_eval": lm_eval_metrics, "lighteval": lighteval_metrics}


def guarded(grade: Grade, text: str, gold: str) -> tuple[bool, str]:
    try:
        right, read = grade(text, gold)
    except Exception as error:
        return False, f"error: {type(error).__name__}"
    return right, read[:SHOWN]


def main() -> None:
    harness, given, out = sys.argv[1:]
    logging.disable(logging.CRITICAL)  # a warning for each text without an answer
    rows = [json.loads(line) for line in Path(given).read_text().splitlines()]
    found, taken = {}, {}
    for name, grade in HARNESSES[harness]().items():
        begin = time.process_time()
        found[name] = [guarded(grade, row["text"], row["gold"]) for row in rows]
        taken[name] = time.process_time() - begin
    Path(out).write_text(json.dumps({"metrics": found, "cpu_s": taken}))


if __name__ == "__main__":
    main()
