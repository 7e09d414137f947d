"""Liger's fused loss, by hand: hidden states [2, 512, 64] and a head of 1,000 rows, so chunks of 64 tokens.

1,000 / 64 rounds up to 16, 1,024 tokens / 16 = 64, a power of two. In the sums T = 1,024 tokens, R = 64, V = 1,000.
"""

from typing import Any

import pytest

from tests.predict.real_models import LLAMA
from vramplan.ledger import Component, Phase
from vramplan.predict.engine import predict_analytic
from vramplan.predict.liger_loss import chunk_rows, liger_loss
from vramplan.predict.tape import BFLOAT16, FLOAT32, Kind, Tape
from vramplan.scenario_file import scenario_from_mapping
from vramplan.targets import resolve
from vramplan.timeline import Timeline

T, H, R, V = 1024, 64, 64, 1000
#: Labels padded [2, 513] and shifted [2, 512], the losses in fp32, a byte for each token that counts.
AROUND = 8 * 2 * 513 + 8 * T + 4 * T + T


def highest(hidden: Kind, head: Kind, autocast: Kind | None, *, trained: bool, capability: int = 8) -> int:
    """Bytes at the highest moment of the loss, the hidden states themselves not counted."""
    t = Tape("cuda", (capability, 0))
    t.enter(Phase.LOSS)
    x = t.new((2, 512, H), hidden, "hidden")
    t.require_grad(x)
    weight = t.parameter((V, H), head, trained=trained)
    with t.casting(autocast):
        loss = liger_loss(t, x, weight, "llama")
    assert loss.shape == ()
    return Timeline(t.script.template(1, 512).parts(1, 512)).ledger({}).allocated(Phase.LOSS) - x.numel * hidden.bytes


def test_chunks_are_as_wide_as_the_hidden_states_are_large() -> None:
    assert chunk_rows(T, H, V, "llama") == R
    assert chunk_rows(4 * 4096, 4096, 32000, "llama") == 2048  # the example in the package's own comment
    assert chunk_rows(7, 4096, 4096, "llama") == 7  # never more than there are tokens


@pytest.mark.parametrize(("kind", "size"), [(BFLOAT16, 2), (FLOAT32, 4)])
def test_one_type_needs_the_gradient_and_one_chunk_of_logits(kind: Kind, size: int) -> None:
    assert highest(kind, kind, None, trained=False) == AROUND + size * T * H + size * R * V


def test_autocast_of_an_fp32_head_adds_16_bit_copies() -> None:
    # the head's copy (2 V H) is there for the logits beside the chunk's (2 R V) and its input's (2 R H)
    assert highest(FLOAT32, FLOAT32, BFLOAT16, trained=False) == AROUND + 4 * T * H + 2 * (V * H + R * V + R * H)


def test_a_trained_head_gets_a_gradient_and_on_older_cards_a_product_first() -> None:
    common = AROUND + 2 * T * H + 2 * V * H + 2 * R * V
    assert highest(BFLOAT16, BFLOAT16, None, trained=True) == common
    # compute capability 7: the product in 16 bits, then in fp32
    assert highest(BFLOAT16, BFLOAT16, None, trained=True, capability=7) == common + 2 * V * H + 4 * V * H


def test_the_whole_prediction_has_no_logits_and_no_doubt() -> None:
    llama = {"stack": {"base": "hf-trainer", "loss": "liger"}, "gpu": "a100-80gb"}
    liger = predict_analytic(resolve("llama-3.1-8b", llama).single("the test"))
    torch = predict_analytic(resolve("llama-3.1-8b", {"gpu": "a100-80gb"}).single("the test"))
    assert liger.ledger.peak < torch.ledger.peak
    assert not any("--engine trace" in warning for warning in liger.warnings)


def test_adapters_on_the_head_are_never_trained() -> None:
    """Rank 8 on a head of [512, 64] in fp32: a gradient and two of Adam's states of 8 x (64 + 512) x 4 bytes less."""
    keys: dict[str, Any] = {"model": {**LLAMA}, "load": "random", "lora": {"rank": 8, "targets": ["q_proj", "lm_head"]}}
    with_liger = predict_analytic(scenario_from_mapping({**keys, "stack": {"loss": "liger"}}))
    without = predict_analytic(scenario_from_mapping(keys))
    size = 8 * (64 + 512) * 4
    for component, count in ((Component.OPTIMIZER, 2), (Component.GRADIENTS, 1), (Component.ADAPTERS, 0)):
        held = [result.ledger.bytes(Phase.STEP, component) for result in (without, with_liger)]
        assert held[0] - held[1] == count * size, component
    assert any("adapters on lm_head are never trained" in text for text in with_liger.warnings)
