"""The load phase: what stays is what the libraries hold, what passes through by hand."""

from pathlib import Path

import pytest
from real_models import held, load, save_checkpoint, scenario

from vramplan.catalog.gpus import gpu
from vramplan.ledger import Component, Phase
from vramplan.predict.base import piece
from vramplan.predict.loading import write_first_step, write_load
from vramplan.predict.step import settled_biases
from vramplan.predict.writer import Writer
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.timeline import Alloc, EmptyCache, Free, Timeline

# One linear layer of the tiny llama is at most 160 x 64 = 10,240 elements, its embedding 512 x 64 = 32,768.
LARGEST = 10_240


def timeline(wanted: Scenario, device: Device) -> Timeline:
    writer = Writer()
    write_load(writer, wanted, device)
    return Timeline(tuple(writer.parts))


def left(run: Timeline) -> int:
    return run.ledger({}).steady


@pytest.mark.parametrize("keys", [{}, {"quant": {"double": False}}, {"quant": {"type": "int8"}}], ids=str)
@pytest.mark.parametrize("load_from", ["random", "checkpoint"])
def test_what_is_left_is_what_from_pretrained_leaves(keys: dict[str, object], load_from: str, tmp_path: Path) -> None:
    wanted = scenario("llama", method="inference", load=load_from, quant=keys.get("quant", {"type": "nf4"}))
    save_checkpoint("llama", tmp_path)
    shared = 1024 if wanted.quant.double else 0  # the process' code map belongs to no layer
    assert left(timeline(wanted, "cpu")) == held(load(tmp_path, wanted)) + shared


def test_one_16_bit_matrix_is_in_flight_at_a_time() -> None:
    wanted = scenario("llama", method="inference", quant={"type": "nf4", "double": False}, load="random")
    flying: set[int] = set()
    flights = 0
    for event in timeline(wanted, "cuda").events():
        if isinstance(event, Alloc) and "to be quantised" in event.label:
            assert not flying
            assert event.bytes <= 2 * LARGEST
            flying.add(event.block)
            flights += 1
        elif isinstance(event, Free):
            flying.discard(event.block)
    assert flights == 2 * 7
    assert not flying


def test_int8_on_cuda_takes_a_float16_copy_too() -> None:
    wanted = scenario("llama", method="inference", quant={"type": "int8"}, load="random")
    labels = [e.label for e in timeline(wanted, "cuda").events() if isinstance(e, Alloc)]
    assert sum("in float16" in label for label in labels) == 2 * 7


def test_the_warm_up_is_one_block_of_the_models_size() -> None:
    wanted = scenario("llama", method="inference", quant={"type": "nf4"}, load="checkpoint")
    first = next(e for e in timeline(wanted, "cuda").events() if isinstance(e, Alloc))
    # 2 layers of (64x64 + 32x64 + 32x64 + 64x64 + 3 x 160x64) = 43,008 elements at half a byte; embedding and head of
    # 512 x 64 and 5 norms of 64 at two bytes.
    assert first.bytes == 2 * 43_008 // 2 + 2 * (2 * 512 * 64 + 5 * 64)
    assert not any("warm-up" in e.label for e in timeline(wanted, "cpu").events() if isinstance(e, Alloc))


def test_the_warm_up_spares_the_cards_last_bytes() -> None:
    wanted = Scenario.load("llama-2-70b", gpu="t4")  # 35 GB in 4 bits
    first = next(e for e in timeline(wanted, "cuda").events() if isinstance(e, Alloc))
    spared = 1.2 * 1024**3  # modeling_utils.py caching_allocator_warmup
    assert first.bytes == int((gpu("t4").capacity - spared) // 2) * 2


def test_a_model_that_is_not_quantised_is_moved_whole() -> None:
    wanted = Scenario.load("llama-2-7b", method="lora", gpu="t4")
    first = next(e for e in timeline(wanted, "cuda").events() if isinstance(e, Alloc))
    assert (first.label, first.bytes) == ("model.embed_tokens.weight", 32_000 * 4096 * 2)  # no warm-up


def test_upcast_holds_old_and_new_and_then_empties_the_cache() -> None:
    wanted = scenario("llama", quant={"type": "nf4"}, load="random", lora={"rank": 2})
    events = list(timeline(wanted, "cuda").events())
    emptied = next(i for i, event in enumerate(events) if isinstance(event, EmptyCache))
    adapters = [i for i, e in enumerate(events) if isinstance(e, Alloc) and e.component is Component.ADAPTERS]
    assert emptied < min(adapters)
    new = next(i for i, e in enumerate(events) if isinstance(e, Alloc) and e.bytes == 4 * 512 * 64)
    assert isinstance(events[new + 1], Free)  # the 16-bit embedding goes after the fp32 one has come


@pytest.mark.parametrize(
    ("base", "upcast", "times"),
    [("script", "none", 0), ("script", "all", 1), ("hf-trainer", "none", 1), ("trl", "all", 2)],
)
def test_the_cache_is_emptied_by_the_preparation_and_by_the_trainer(base: str, upcast: str, times: int) -> None:
    wanted = scenario("llama", stack={"base": base, "upcast": upcast}, load="random")
    assert sum(isinstance(event, EmptyCache) for event in timeline(wanted, "cuda").events()) == times


def test_the_first_step_casts_biases_of_four_bit_layers_back() -> None:
    wanted = scenario("qwen2", quant={"type": "nf4"}, load="random")
    writer = Writer()
    groups = write_load(writer, wanted, "cuda")
    prepared = left(Timeline(tuple(writer.parts)))
    write_first_step(writer, groups, wanted, settled_biases(wanted, "cuda"))
    # q, k and v of 2 layers: 64 + 32 + 32 elements, from 4 bytes to 2
    assert prepared - left(Timeline(tuple(writer.parts))) == 2 * (64 + 32 + 32) * 2


def test_experts_of_a_checkpoint_are_stacked_and_joined_on_the_device() -> None:
    wanted = scenario("mixtral", method="inference", quant={"type": "nf4"}, load="checkpoint")
    one = 160 * 64 * 2  # a matrix of one of 4 experts in 16 bits
    down, pair = [one] * 4 + [4 * one], [one] * 8 + [4 * one] * 2 + [8 * one]
    sizes = [e.bytes for e in timeline(wanted, "cuda").events() if isinstance(e, Alloc) and "experts" in e.label]
    # gate and up (w1, w3): both lists, both stacks, then the parameter; down (w2): its matrices, then it; in 2 layers
    assert sizes == 2 * [*pair, *down]
    built = timeline(scenario("mixtral", method="inference", quant={"type": "nf4"}, load="random"), "cuda")
    assert not any("of an expert" in event.label for event in built.events() if isinstance(event, Alloc))


def test_every_weight_is_there_once() -> None:
    wanted = scenario("mixtral", method="inference", quant={"type": "nf4", "double": False}, load="checkpoint")
    architecture = wanted.architecture
    plain = [(w, n) for w, n in (*architecture.counted, *((b, 1) for b in architecture.buffers)) if w.kind != "linear"]
    ledger = timeline(wanted, "cpu").ledger({})
    expected = sum(n * piece(w, 4 if w.dtype == "float32" else 2, wanted.quant).bytes for w, n in plain)
    assert ledger.bytes(Phase.LOAD, Component.UNQUANTIZED) <= expected
    assert left(timeline(wanted, "cpu")) > expected
