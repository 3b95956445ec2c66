"""Peak figures of accelerators from NVIDIA's data sheets, under the driver's names. Loads no torch."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    flops: float  # per second: dense bfloat16 with float32 sums
    memory: float  # bytes
    bandwidth: float  # bytes per second between memory and processor


ACCELERATORS = {
    "B200": Accelerator(2250e12, 180e9, 7.7e12),
    "GH200": Accelerator(989e12, 96e9, 4.0e12),
    "H200": Accelerator(989e12, 141e9, 4.8e12),
    "H100 PCIe": Accelerator(756e12, 80e9, 2.0e12),
    "H100 NVL": Accelerator(835e12, 94e9, 3.9e12),
    "H100": Accelerator(989e12, 80e9, 3.35e12),
    "A100": Accelerator(312e12, 80e9, 2.04e12),
    "L40S": Accelerator(362e12, 48e9, 0.864e12),
    "L4": Accelerator(121e12, 24e9, 0.3e12),
    "RTX 4090": Accelerator(165e12, 24e9, 1.008e12),
    "RTX 3090": Accelerator(71e12, 24e9, 0.936e12),
}


def known(name: str) -> Accelerator | None:
    """The accelerator that a driver's name stands for, if it is in the table.

    >>> known("NVIDIA A100-SXM4-80GB").flops, known("NVIDIA H100 PCIe").flops, known("NVIDIA L40")
    (312000000000000.0, 756000000000000.0, None)
    """
    titles = sorted(ACCELERATORS, key=len, reverse=True)  # "H100 PCIe" before "H100"
    return next((ACCELERATORS[t] for t in titles if re.search(rf"\b{re.escape(t)}\b", name)), None)
