"""One step of the peer's on two devices: how far its gradient is from ours of one, with and without its averaging."""

import json
import sys
from pathlib import Path

from tests.peers.test_trl import distance, ours, peer, ragged

KINDS = {"tokens averaged": True, "each device by itself": False}


def main(folder: Path) -> None:
    rows = ragged(12)
    _, gradient = ours(rows)
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
        found[name] = distance(step.gradient, gradient)
    if trainer.accelerator.is_main_process:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
