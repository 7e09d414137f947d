"""The data of a step: what padding puts into a batch, and what transformers then does."""

from typing import Any

import pytest
import torch
from tiny_models import tiny
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vramplan.training.batch import make_batches, make_evaluation_batch
from vramplan.training.meter import NoMeter
from vramplan.training.run import set_up

CPU = torch.device("cpu")


def test_padding_is_on_the_right_without_label_and_with_a_zero_in_the_mask() -> None:
    batches = make_batches(tiny(padding=True, grad_accum=2), 256, CPU, NoMeter())
    for batch in (*batches, make_evaluation_batch(tiny(padding=True), 2, 256, CPU)):
        mask, labels, ids = batch["attention_mask"], batch["labels"], batch["input_ids"]
        assert (mask.dtype, mask.shape) == (torch.int64, (2, 64))
        assert mask.sum() == 2 * 64 - 1
        assert mask[-1, -1] == 0
        assert torch.equal(labels == -100, mask == 0)
        assert torch.equal(labels[mask == 1], ids[mask == 1])


def test_without_padding_there_is_no_mask_and_the_tokens_are_the_same() -> None:
    plain, padded = (make_batches(tiny(padding=padding), 256, CPU, NoMeter())[0] for padding in (False, True))
    assert set(plain) == {"input_ids", "labels"}
    assert torch.equal(plain["input_ids"], padded["input_ids"])


class Calls(TorchFunctionMode):  # type: ignore[no-untyped-call]
    """Writes down what attention is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor | None] = []
        self.causal: list[bool] = []
        self.key_heads: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.masks.append(kwargs["attn_mask"])
            self.causal.append(kwargs["is_causal"])
            self.key_heads.append(args[1].shape[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("padding", [False, True])
def test_padding_gives_attention_a_mask_and_repeats_the_keys(padding: bool) -> None:
    step = set_up(tiny(padding=padding, checkpointing=False), CPU, NoMeter())
    calls = Calls()
    with calls:
        loss = step.run()
    assert torch.isfinite(loss)
    # the model has 4 heads for queries, 2 for keys, and 2 layers
    assert calls.key_heads == [4 if padding else 2] * 2
    assert calls.causal == [not padding] * 2
    if not padding:
        assert calls.masks == [None, None]
        return
    for mask in calls.masks:
        assert mask is not None
        assert (mask.dtype, mask.shape) == (torch.bool, (2, 1, 64, 64))
        assert torch.equal(mask[0, 0], torch.ones(64, 64).tril().bool())
        assert not mask[1, 0, -1, -1]  # padding sees everything before it, and nothing sees padding
