"""The closed form against the libraries on fake tensors, event by event: what is taken and given back, in which order.

The order decides where the allocator puts a block, and so what is reserved. Blocks given back between two requests go
in any order: the allocator is the same afterwards.
"""

from collections.abc import Iterable
from itertools import takewhile
from typing import Any

import pytest

from tests.predict.real_models import DEEPSEEK, GPT2, LLAMA, MIXTRAL, PHI3, QWEN3_MOE
from vramplan.ledger import Phase
from vramplan.measure.trace import run_trace
from vramplan.predict.forecast import forecast
from vramplan.scenario_file import scenario_from_mapping
from vramplan.timeline import Alloc, EmptyCache, Enter, Event, Free

#: Below are statistics of rows and counters of tokens, of which the closed form writes down but some.
SMALLEST = 4096
BARE = {"type": "none"}
SCRIPT = {"base": "script", "upcast": "none", "autocast": False}
SMALL = {"rank": 8, "targets": ["q_proj", "v_proj"]}
TIED = {**LLAMA, "tie_word_embeddings": True}
OLMO2 = {**LLAMA, "model_type": "olmo2"}
NEOX = {"model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 512}  # fmt: skip
GEMMA2 = {**LLAMA, "model_type": "gemma2", "head_dim": 16, "sliding_window": 4096, "num_hidden_layers": 4}
#: Heads of 20, which flash takes as ones of 24.
ODD = {**LLAMA, "head_dim": 20}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flash under autocast": (LLAMA, {}),
    "eager in fp32": (LLAMA, {"stack": "script", "attention": "eager"}),
    "eager under autocast": (LLAMA, {"attention": "eager"}),
    "efficient in fp32": (LLAMA, {"stack": "script", "attention": "sdpa:efficient", "checkpointing": "reentrant"}),
    "without checkpoints": (LLAMA, {"stack": SCRIPT, "checkpointing": False}),
    "dropout, accumulating": (LLAMA, {"lora": {"rank": 8, "dropout": 0.1}, "grad_accum": 2}),
    "micro-batches in rounds": (LLAMA, {"grad_accum": 5}),
    "micro-batches in rounds, outputs held": (LLAMA, {"grad_accum": 5, "stack": "script"}),
    "full, tied": ({**LLAMA, "tie_word_embeddings": True}, {"method": "full", "quant": BARE}),
    "norms behind": (OLMO2, {}),
    "cuDNN": (LLAMA, {"gpu": "h200"}),
    "cuDNN with a mask": (LLAMA, {"gpu": "h200", "padding": True}),
    "efficient, wide heads": ({**LLAMA, "head_dim": 256}, {"padding": True, "gpu": "a100-80gb"}),
    "efficient, smaller tiles": ({**LLAMA, "head_dim": 128}, {"padding": True, "gpu": "rtx4090", "batch": 3}),
    "flash, padded heads": (ODD, {}),
    "flash, padded heads without checkpoints": (ODD, {"checkpointing": False, "batch": 3}),
    "flash, padded heads in a script": (
        {**ODD, "num_key_value_heads": 4},
        {"stack": SCRIPT, "checkpointing": False, "lora": SMALL},
    ),
    "flash, padded heads cut from one projection": (
        {**PHI3, "hidden_size": 80, "num_key_value_heads": 4},
        {"checkpointing": False},
    ),
    "flash, padded heads rotated in part": (
        {**NEOX, "hidden_size": 80, "rotary_pct": 0.5},
        {"checkpointing": "reentrant"},
    ),
    "padded heads in flash_attention_2": (ODD, {"attention": "flash_attention_2", "checkpointing": False}),
    "TRL, padded heads in flash_attention_2": (ODD, {"stack": "trl", "attention": "flash_attention_2"}),
    "samples in a row, padded heads": (
        ODD,
        {"stack": "trl", "attention": "flash_attention_2", "checkpointing": False, "padding": True},
    ),
    "odd heads by the efficient kernel in fp32": (ODD, {"stack": "script", "padding": True, "checkpointing": False}),
    "odd heads by math": (ODD, {"gpu": "t4", "dtype": "float16", "compute_dtype": "float16"}),
    "odd heads where cuDNN comes first": (ODD, {"gpu": "h200"}),
    "math": (LLAMA, {"attention": "sdpa:math"}),
    "biases": ({**LLAMA, "model_type": "qwen2"}, {"stack": "script"}),
    "one projection for all": (PHI3, {}),
    "rotated in part": (NEOX, {}),
    "outputs held into the next step": (LLAMA, {"stack": {"base": "script", "outputs": "held-next"}}),
    "held while accumulating": (LLAMA, {"stack": {**SCRIPT, "outputs": "held-next"}, "grad_accum": 2, "batch": 3}),
    "held with weights": (
        LLAMA,
        {"stack": {**SCRIPT, "outputs": "held-next"}, "attention": "eager", "checkpointing": False},
    ),
    "evaluated": (LLAMA, {"eval": {"batch": 2, "accumulate": 3}}),
    "evaluated in a script": (LLAMA, {"eval": {"batch": 1, "accumulate": 1}, "stack": "script"}),
    "evaluated in chunks": (LLAMA, {"eval": {"batch": 2, "accumulate": 2}, "stack": {**SCRIPT, "loss": "chunked"}}),
    "evaluated, norms behind": (OLMO2, {"eval": {"batch": 3, "accumulate": 2}}),
    "masks of two kinds": (GEMMA2, {"attention": "eager"}),
    "masks of two kinds, padded": (GEMMA2, {"padding": True, "checkpointing": "reentrant"}),
    "from a checkpoint": (LLAMA, {"load": "checkpoint"}),
    "from a checkpoint, in 8 bits": (LLAMA, {"load": "checkpoint", "quant": {"type": "int8"}}),
    "from a checkpoint, transposed": (GPT2, {"load": "checkpoint"}),
    "from a checkpoint, transposed, in 8 bits": (GPT2, {"load": "checkpoint", "quant": {"type": "int8"}}),
    "transposed, in 8 bits": (GPT2, {"quant": {"type": "int8"}}),
    "from a checkpoint, other names": (NEOX, {"load": "checkpoint"}),
    "an adapter on the head": (LLAMA, {"lora": {"rank": 8, "targets": ["q_proj", "lm_head"]}}),
    "adapters on a tied head and table": (
        TIED,
        {"lora": {"rank": 8, "targets": ["q_proj", "lm_head", "embed_tokens"]}, "stack": "script"},
    ),
    "an adapter on the table, accumulating": (
        LLAMA,
        {"lora": {"rank": 8, "targets": ["embed_tokens", "q_proj"]}, "grad_accum": 2},
    ),
    "TRL, an adapter on the table": (
        LLAMA,
        {"lora": {"rank": 8, "targets": ["embed_tokens", "q_proj"]}, "stack": "trl"},
    ),
    "table and head trained whole": (LLAMA, {"lora": {**SMALL, "modules_to_save": ["embed_tokens", "lm_head"]}}),
    "adapters and copies in the other 16-bit type": (
        LLAMA,
        {
            "method": "lora",
            "lora": {"rank": 64, "dtype": "float16", "modules_to_save": ["embed_tokens"], "modules_dtype": "float16"},
            "quant": BARE,
        },
    ),
    "norms trained whole, in a script": (LLAMA, {"lora": {**SMALL, "modules_to_save": ["norm"]}, "stack": "script"}),
    "a tied head trained whole": (TIED, {"lora": {**SMALL, "modules_to_save": ["lm_head"]}, "load": "checkpoint"}),
    "a tied table trained whole": (
        TIED,
        {"lora": {**SMALL, "modules_to_save": ["embed_tokens"], "modules_dtype": "float32"}, "stack": SCRIPT},
    ),
    "TRL, a tied head trained whole": (TIED, {"lora": {"modules_to_save": ["lm_head"]}, "stack": "trl"}),
    "TRL": (LLAMA, {"stack": "trl"}),
    "TRL, half a tile more": ({**LLAMA, "vocab_size": 40_000}, {"stack": "trl", "batch": 8, "seq": 769}),
    "TRL in 8 bits": ({**LLAMA, "tie_word_embeddings": True}, {"stack": "trl", "quant": {"type": "int8"}}),
    "TRL, prepared": (LLAMA, {"stack": {"base": "trl", "upcast": "all"}, "checkpointing": "reentrant"}),
    "TRL, everything": (LLAMA, {"stack": "trl", "method": "full", "quant": BARE, "grad_accum": 2}),
    "pairs": (LLAMA, {"stack": "trl-dpo"}),
    "pairs, accumulating, with a copied head": (
        TIED,
        {"stack": "trl-dpo", "grad_accum": 2, "lora": {"modules_to_save": ["lm_head"]}, "optimizer": "adamw_8bit"},
    ),
    "pairs, padded": (LLAMA, {"stack": "trl-dpo", "padding": True, "checkpointing": "reentrant"}),
    "pairs, evaluated": (LLAMA, {"stack": "trl-dpo", "eval": {"batch": 2}}),
    "pairs without dropout": (
        GPT2,
        {"stack": "trl-dpo", "method": "lora", "quant": BARE, "lora": {"rank": 8, "dropout": 0.1}, "seq": 64},
    ),
    "pairs, dropout that no module makes": (
        {**LLAMA, "attention_dropout": 0.1},
        {"stack": "trl-dpo", "attention": "eager", "checkpointing": False},
    ),
    "flash_attention_2 on fp32": (LLAMA, {"stack": "script", "attention": "flash_attention_2", "checkpointing": False}),
    "evaluated under a script's autocast": (
        LLAMA,
        {"stack": {"base": "script", "autocast": "bfloat16"}, "eval": {"batch": 2, "accumulate": 2}},
    ),
    "pairs, windows": (GEMMA2, {"stack": "trl-dpo", "attention": "eager"}),
    "TRL, nothing quantised": (LLAMA, {"stack": "trl", "method": "lora", "quant": BARE, "checkpointing": False}),
}


#: Where a batch is so long that statistics of its tokens are larger.
SMALLEST_OF = {"TRL, half a tile more": 2**16}


def moves(events: Iterable[Event], smallest: int = SMALLEST) -> list[tuple[str, int]]:
    """What happens: phases as they begin, requests, and what is given back, smallest first."""
    sizes: dict[int, int] = {}
    phase = Phase.LOAD
    made: list[tuple[str, int]] = []
    freed: list[int] = []
    for event in events:
        if isinstance(event, Free) and sizes[event.block] >= smallest:
            freed.append(sizes[event.block])
        elif isinstance(event, Alloc):
            sizes[event.block] = event.bytes
            if event.bytes >= smallest:
                made += [*_given_back(freed), ("take", event.bytes)]
        elif isinstance(event, Enter) and event.phase is not phase:
            phase = event.phase
            made += [*_given_back(freed), (event.phase.value, 0)]
        elif isinstance(event, EmptyCache):
            made += [*_given_back(freed), ("empty the cache", 0)]
    return [*made, *_given_back(freed)]


def _given_back(sizes: list[int]) -> list[tuple[str, int]]:
    """What was given back since the last request, which is then forgotten."""
    given = [("give", size) for size in sorted(sizes)]
    sizes.clear()
    return given


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", CASES)
def test_the_order_is_the_libraries_own(name: str) -> None:
    model, keys = CASES[name]
    mapping = {"model": {**model}, "load": "random", "batch": 2, "seq": 96, "gpu": "a100-80gb", **keys}
    scenario = scenario_from_mapping(mapping)
    # loading, the first step with what it makes for all later ones, and the second
    told, run = forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline
    smallest = SMALLEST_OF.get(name, SMALLEST)
    assert moves(told.events(), smallest) == moves(run.events(), smallest)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("load", ["checkpoint", "random"])
@pytest.mark.parametrize("model", [MIXTRAL, QWEN3_MOE, DEEPSEEK], ids=lambda model: model["model_type"])
def test_experts_are_loaded_in_the_libraries_order(model: dict[str, Any], load: str) -> None:
    mapping = {"model": {**model}, "load": load, "batch": 2, "seq": 16, "gpu": "a100-80gb"}
    scenario = scenario_from_mapping(mapping)
    told, run = (
        moves(takewhile(_loading, timeline.events()))
        for timeline in (forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline)
    )
    assert told == run


def _loading(event: Event) -> bool:
    return not isinstance(event, Enter) or event.phase is Phase.LOAD


@pytest.mark.filterwarnings("ignore")  # the libraries' own
def test_outside_the_table_too_the_first_product_takes_the_workspace() -> None:
    ernie = {**LLAMA, "model_type": "ernie4_5", "head_dim": 16}
    scenario = scenario_from_mapping({"model": ernie, "load": "random", "batch": 2, "seq": 96, "gpu": "a100-80gb"})
    told, run = (
        list(takewhile(_no_workspace, timeline.events()))
        for timeline in (forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline)
    )
    first = 8 * 96 * 4  # frequencies times positions in fp32: of 16 numbers a head, half as many frequencies
    assert [event.bytes for event in (told[-1], run[-1]) if isinstance(event, Alloc)] == [first, first]


def _no_workspace(event: Event) -> bool:
    return not isinstance(event, Alloc) or event.label != "cuBLAS workspace of the main thread"
