"""A model's checkpoint for `from_pretrained`: every tensor of the real one, all zeros, and no space on the disk.

The file is sparse, and an emulated card copies nothing from it, so a 90 GB checkpoint loads in a minute. The kernel
must let a process map more than the memory there is: `sysctl vm.overcommit_memory=1`.
"""

import json
import struct
from pathlib import Path

import torch

from vramplan.scenario import Scenario
from vramplan.training.build import skeleton
from vramplan.training.load_fake import checkpoint_of

#: How safetensors writes dtypes.
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}


def write_checkpoint(scenario: Scenario, folder: Path) -> None:
    """The scenario's model below `folder`: config.json and model.safetensors, in 16 bits whatever the hub's is in."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {key: value for key, value in scenario.model.config.items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in checkpoint_of(skeleton(scenario)).items():
        begin, end = end, end + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
