"""What accelerators can do at best, by NVIDIA's data sheets: for `whetstone plan`, so without torch, and for MFU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    flops: float  # a second: dense bfloat16 with float32 sums
    memory: float  # bytes
    bandwidth: float  # bytes a second between memory and processor


ACCELERATORS = {  # by words of the name that the driver gives
    "A100": Accelerator(312e12, 80e9, 2.04e12),
    "H100 PCIe": Accelerator(756e12, 80e9, 2.0e12),
    "H100 NVL": Accelerator(835e12, 94e9, 3.9e12),
    "H100": Accelerator(989e12, 80e9, 3.35e12),
    "H200": Accelerator(989e12, 141e9, 4.8e12),
    "B200": Accelerator(2250e12, 180e9, 7.7e12),
    "L40S": Accelerator(362e12, 48e9, 0.864e12),
    "L4": Accelerator(121e12, 24e9, 0.3e12),
    "RTX 3090": Accelerator(71e12, 24e9, 0.936e12),
    "RTX 4090": Accelerator(165e12, 24e9, 1.008e12),
}
