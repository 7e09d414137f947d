"""What PyTorch's CUDA build says about attention on every kind of card: `python -m benchmarks.nocard.facts`.

Writes tests/facts/attention.json: which kernel `scaled_dot_product_attention` takes, and what the efficient kernel's
backward and flash's forward ask of the allocator inside themselves. The tests hold vramplan's own rules to it.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

CARDS = ("t4", "v100-32gb", "a100-80gb", "rtx3090", "rtx4090", "h200", "b200", "rtx5090")
HEADS = (20, 32, 64, 80, 96, 128, 136, 192, 256, 264)
PAIRS = ((192, 128), (128, 64), (576, 512))
#: batch, heads, queries, keys: with and without room for splitting the keys further.
SHAPES = ((1, 1, 130, 130), (1, 2, 1000, 1000), (4, 40, 257, 257), (1, 32, 130, 130), (1, 2, 130, 700))


def facts() -> dict[str, Any]:
    """The answers of the card that this process sees."""
    import torch

    return {"torch": torch.__version__, "choices": [*_choices()], "efficient": [*_efficient()], "flash": [*_flash()]}


def _inputs(
    heads: int, kv_heads: int, sizes: tuple[int, int], dtype: Any, *, rows: tuple[int, int] = (256, 256)
) -> Any:
    import torch

    def made(count: int, length: int, size: int) -> Any:
        return torch.empty(1, length, count, size, dtype=dtype, device="cuda").transpose(1, 2).requires_grad_()

    return made(heads, rows[0], sizes[0]), made(kv_heads, rows[1], sizes[0]), made(kv_heads, rows[1], sizes[1])


def _choices() -> Iterator[dict[str, Any]]:
    import torch

    names = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}
    every = [(size, size) for size in HEADS] + list(PAIRS)
    for dtype, sizes, grouped, masked in product(
        ("float32", "float16", "bfloat16"), every, (False, True), (False, True)
    ):
        query, key, value = _inputs(8, 2 if grouped else 8, sizes, getattr(torch, dtype))
        mask = torch.empty(1, 1, 256, 256, dtype=torch.bool, device="cuda") if masked else None
        try:
            found = torch._fused_sdp_choice(query, key, value, mask, is_causal=not masked, enable_gqa=grouped)
        except RuntimeError:  # no kernel at all
            continue
        yield {"dtype": dtype, "sizes": sizes, "grouped": grouped, "masked": masked, "kernel": names[found]}


def _requests(run: Callable[[], object]) -> list[int]:
    """Bytes of every request that `run` makes of the allocator, in order."""
    import torch

    torch.cuda.memory._record_memory_history("all", context=None, stacks="python", max_entries=1000)
    run()
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(None)
    return [entry["size"] for entry in trace if entry["action"] == "alloc"]


def _efficient() -> Iterator[dict[str, Any]]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    every = [(size, size) for size in HEADS if size % 8 == 0] + list(PAIRS)
    for dtype, sizes, (batch, heads, queries, keys) in product(("float32", "float16"), every, SHAPES):
        query, key, value = (
            tensor.expand(batch, -1, -1, -1)
            for tensor in _inputs(heads, heads, sizes, getattr(torch, dtype), rows=(queries, keys))
        )
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        gradient = torch.empty_like(out)
        asked = _requests(partial(torch.autograd.grad, out, (query, key, value), gradient))
        yield {"dtype": dtype, "sizes": sizes, "shape": (batch, heads, queries, keys), "workspace": asked[-1]}


def _flash() -> Iterator[dict[str, Any]]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if torch.cuda.get_device_capability() < (8, 0):
        return
    for size, (batch, heads, queries, keys) in product(
        (64, 96, 128, 256), (*SHAPES, (1, 8, 33, 4096), (2, 14, 512, 512))
    ):
        query, key, value = (
            tensor.expand(batch, -1, -1, -1)
            for tensor in _inputs(heads, heads, (size, size), torch.float16, rows=(queries, keys))
        )
        with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            asked = _requests(partial(torch.nn.functional.scaled_dot_product_attention, query, key, value))
        yield {"size": size, "shape": (batch, heads, queries, keys), "parts": asked[2:4] if len(asked) > 4 else []}


def main() -> None:
    """Ask every card in a process of its own; without arguments this process starts them."""
    if sys.argv[1:] == ["--here"]:
        print(json.dumps(facts()))
        return
    from benchmarks.nocard.environment import ROOT, prepared
    from vramplan.predict.engine import LIBRARIES

    environment = prepared(LIBRARIES["torch"])
    answers = {card: json.loads(environment.ask(card, "benchmarks.nocard.facts", "--here")) for card in CARDS}
    file = ROOT / "tests" / "facts" / "attention.json"
    file.parent.mkdir(exist_ok=True)
    lines = [f' "{card}": {json.dumps(said)}' for card, said in answers.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
