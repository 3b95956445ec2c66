"""One step of the peer's on two devices: its gradient, with and without its averaging."""

import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.peers.test_trl import peer, ragged

KINDS = {"tokens averaged": True, "each device by itself": False}


def main(folder: Path) -> None:
    rows = ragged(12)
    found = {}
    for name, averaged in KINDS.items():
        trainer, step = peer(
            folder / name,
            rows,
            ddp_backend="gloo",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=6,
            average_tokens_across_devices=averaged,
        )
        assert trainer.accelerator.num_processes == 2
        trainer.train()
        found[name] = step.gradient
    if trainer.accelerator.is_main_process:
        save_file(found, folder / "found.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
