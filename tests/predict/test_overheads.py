"""What matrix products keep, by thread, and which release of PyTorch keeps more."""

from typing import Any

import pytest

from vramplan.predict.overheads import CUBLAS_WORKSPACE, CUBLAS_WORKSPACE_LARGE, LT_WORKSPACE, kept
from vramplan.scenario import Scenario


def sizes(model: str, **changes: Any) -> tuple[list[int], list[int]]:
    """Of the main thread and of autograd's."""
    made = kept(Scenario.load(model, **{"gpu": "a100-80gb", **changes})).items()
    main, backward = (
        [piece.bytes for product, piece in made if product.backward is thread] for thread in (False, True)
    )
    return main, backward


PLAIN, BIASED = [CUBLAS_WORKSPACE], [CUBLAS_WORKSPACE, LT_WORKSPACE]


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        ("llama-3.2-1b", {"torch": "2.11"}, (PLAIN, PLAIN)),
        ("qwen2.5-0.5b", {"torch": "2.11"}, (BIASED, BIASED)),  # queries, keys and values have one
        ("qwen2.5-0.5b", {"torch": "2.12"}, (PLAIN, PLAIN)),
        ("qwen2.5-0.5b", {"torch": "2.11", "checkpointing": False}, (BIASED, PLAIN)),  # nothing is computed twice
        ("qwen2.5-0.5b", {"torch": "2.11", "quant": {"type": "int8"}}, (PLAIN, PLAIN)),  # bitsandbytes adds it
        ("phi-2", {"torch": "2.11", "quant": {"type": "int8"}}, (BIASED, PLAIN)),  # its head stays as it is
        ("falcon-7b", {"torch": "2.11"}, (PLAIN, PLAIN)),  # norms with a bias are no products
    ],
)
def test_products_with_a_bias_keep_a_workspace_more_up_to_torch_2_11(
    model: str, changes: dict[str, Any], expected: tuple[list[int], list[int]]
) -> None:
    assert sizes(model, **changes) == expected


def test_the_workspace_of_an_h200_is_the_large_one() -> None:
    assert sizes("llama-3.2-1b", gpu="h200") == ([CUBLAS_WORKSPACE_LARGE], [CUBLAS_WORKSPACE_LARGE])


def test_those_of_a_consumer_blackwell_grew_with_torch_2_12() -> None:
    assert sizes("llama-3.2-1b", gpu="rtx5090", torch="2.11") == (PLAIN, PLAIN)
    assert sizes("llama-3.2-1b", gpu="rtx5090", torch="2.12") == ([CUBLAS_WORKSPACE_LARGE], [CUBLAS_WORKSPACE_LARGE])
