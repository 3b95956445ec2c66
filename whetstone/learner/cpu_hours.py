"""The hours that training and sampling take on this machine's processor: for `whetstone plan`, so without torch.

Training is matrix products at the measured rate, and passes over memory between them (norms, rotary embedding, gates, softmax,
new pages), whose time goes with the bytes that autograd keeps. Fitted to 3 ns per byte on an AMD EPYC (AVX2), which SmolLM2
takes 3 and a model of 0.65 M weights 2.4: the time of PASSES passes of silu over as many bytes. With fused layers in bf16 it
holds, too: SmolLM2 was estimated to train 452 tokens a second on an AMD EPYC with AVX512-BF16, and did.
"""

from dataclasses import replace

from whetstone.run.cpu import has_bf16_products
from whetstone.run.folder import Stage
from whetstone.run.processes import cores, threads
from whetstone.run.progress import say
from whetstone.run.room import Estimate
from whetstone.run.settings import ParallelSettings, RunSettings
from whetstone.run.speed import measured_speed

PASSES = 14
SAMPLING_SHARE = 0.45  # share of the products' rate that sampling of dozens of sequences reaches


def forks_of(run: RunSettings, parallel: ParallelSettings) -> int:
    """The processes that share a step on a CPU: with one thread each, unless several `processes` train."""
    return (parallel.forks or cores()) if threads(run.threads) == 1 and parallel.processes == 1 else 1


def with_cpu_time(estimate: Estimate, stage: Stage, name: str, flops: float, kept: float = 0.0) -> Estimate:
    """The estimate plus the time of `flops` operations and of the passes over `kept` bytes, unless there is a GPU."""
    parallel, each = stage.parallel, threads(stage.run.threads)
    if parallel.device == "cuda":
        return estimate
    try:
        speed = measured_speed(each)
    except RuntimeError as error:
        say(f"note: {error}")
        return estimate
    if speed.gpu and parallel.device == "auto":
        return estimate
    sharing = forks_of(stage.run, parallel) * parallel.processes
    half = parallel.compute == "bfloat16" and (name != "sampling time" or has_bf16_products())
    rate = speed.bfloat16 if half else speed.float32
    seconds = (flops / rate + PASSES * kept / speed.passes) / sharing
    line = f"{estimate.bound}{clock(seconds)} on {'this CPU' if sharing == 1 else f'{sharing} processes of this CPU'}: "
    line += f"{flops:.3g} operations at {rate / 1e9:,.0f} GFLOP/s each, and what lies between them"
    return replace(estimate, lines=estimate.lines | {name: line}, seconds=seconds + (estimate.seconds or 0))


def clock(seconds: float) -> str:
    """
    >>> clock(50), clock(5_000), clock(1_570_000)
    ('50 s', '1.4 h', '18.2 days')
    """
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size or (size == 3_600 and seconds >= size):
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
