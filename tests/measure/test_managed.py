"""Managed memory is refused before it could oversubscribe the card."""

import pytest

from vramplan.errors import CannotRun
from vramplan.measure.managed import MARGIN, check_managed
from vramplan.predict.forecast import forecast
from vramplan.scenario import Scenario
from vramplan.units import GIB, MIB


def scenario(optimizer: str) -> Scenario:
    return Scenario.load("llama-2-7b", batch=1, seq=512, optimizer=optimizer, lora={"rank": 64})


def test_a_paged_optimizer_needs_room_for_its_managed_states_too() -> None:
    paged = scenario("paged_adamw_32bit")
    # rank 64 on all linear layers of Llama-2-7B: 159,907,840 fp32 parameters, two fp32 states each; the adapters of
    # every matrix have at least 64 x 4096 = 262,144 elements, so all of them are paged
    assert forecast(paged, "cuda").managed == 2 * 4 * 159_907_840
    check_managed(paged, free=80 * GIB)
    with pytest.raises(CannotRun, match="oversubscribed managed memory") as caught:
        check_managed(paged, free=6 * GIB)
    assert caught.value.hint.startswith("use adamw_torch")


def test_a_limit_on_the_allocator_leaves_the_rest_to_managed_memory() -> None:
    paged = scenario("paged_adamw_32bit")
    managed = forecast(paged, "cuda").managed
    check_managed(paged, free=GIB + managed + MARGIN, memory_limit=GIB)
    with pytest.raises(CannotRun):
        check_managed(paged, free=GIB + managed + MARGIN - MIB, memory_limit=GIB)


def test_what_is_not_paged_is_never_refused() -> None:
    check_managed(scenario("adamw_8bit"), free=0)
