"""TRL's fused head: what its tiles take, by hand; the order of it all is held by `test_event_order`."""

import pytest
from real_models import LLAMA

from vramplan.errors import CannotRun
from vramplan.ledger import Component, Phase
from vramplan.predict.forecast import ledger
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping


def told(**keys: object) -> Scenario:
    return scenario_from_mapping({"model": LLAMA, "load": "random", "gpu": "a100-80gb", "stack": "trl", **keys})


def test_a_tile_has_4096_tokens_at_most() -> None:
    """With 2 x 1,500 tokens there is a label for 2,998, with 2 x 3,000 for 5,998, of which a tile takes 4,096."""
    sizes = {}
    for seq in (1500, 3000):
        kept = ledger(told(batch=2, seq=seq), "cuda")
        sizes[seq] = kept.bytes(Phase.LOSS, Component.WORKSPACE)
    tile = (4096 - 2998) * 32_768 * 2  # bfloat16, always 32,768 words wide
    # more tokens: 7 statistics, log-sum-exp, log-probability and entropy in fp32, whether the label comes first
    tokens = 3000 * (10 * 4 + 1)
    assert sizes[3000] - sizes[1500] == pytest.approx(tile + tokens, rel=0.01)


def test_logits_are_never_all_there() -> None:
    assert ledger(told(), "cuda").bytes(Phase.BACKWARD, Component.LOGITS) == 0


def test_the_cpu_is_refused() -> None:
    with pytest.raises(CannotRun, match="as it runs on a card") as caught:
        ledger(told(), "cpu")
    assert "--engine trace" in caught.value.hint
