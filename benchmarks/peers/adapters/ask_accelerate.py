"""accelerate estimate-memory: the size of the model in a dtype; it knows no adapters, no batch and no sequence.

Its "training with Adam" is full training in fp32 or mixed precision, so for adapters the total size of the base in
the dtype it is stored in is what it has to offer. The command itself asks the hub; this is the function behind it.
"""

from accelerate import init_empty_weights
from accelerate.utils import calculate_maximum_sizes
from common import answer
from transformers import AutoConfig, AutoModel


def ask(question):
    """The total size at int4 or float16, as the command's table has it."""
    config = AutoConfig.from_pretrained(question["model"])
    with init_empty_weights():
        model = AutoModel.from_config(config, dtype="float32")
    total, _ = calculate_maximum_sizes(model)
    size = total / (8 if question["scenario"]["method"] == "qlora" else 2)
    return size, size


answer(ask)
