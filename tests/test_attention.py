"""The choice of attention kernel: one rule of torch's sdp_utils.cpp per case, and the CUDA build's own answers."""

from dataclasses import replace

import pytest
from attention_facts import CARDS, facts

from vramplan.attention import AttentionInput, Choice, Kernel, resolve
from vramplan.catalog.gpus import gpu
from vramplan.scenario import DType

AMPERE = AttentionInput(
    dtype=DType.BFLOAT16, head_dim=128, value_dim=128, grouped=True, masked=False, capability=(8, 0)
)


def test_16_bit_causal_attention_is_flash() -> None:
    assert resolve(AMPERE) == Choice(Kernel.FLASH)


@pytest.mark.parametrize(
    ("change", "kernel", "reason"),
    [
        ({"dtype": DType.FLOAT32, "grouped": False}, Kernel.EFFICIENT, "float32"),
        ({"dtype": DType.FLOAT32}, Kernel.MATH, "enable_gqa"),  # neither flash nor efficient
        ({"masked": True, "grouped": False}, Kernel.EFFICIENT, "mask"),
        # transformers repeats keys and values where there is a mask, so that fp32 queries do not end in math
        ({"masked": True, "grouped": False, "dtype": DType.FLOAT32}, Kernel.EFFICIENT, "float32"),
        ({"masked": True, "grouped": False, "capability": (7, 5)}, Kernel.MATH, "bfloat16"),
        ({"capability": (7, 5), "dtype": DType.FLOAT16, "grouped": False}, Kernel.EFFICIENT, "7.5 is below 8.0"),
        ({"capability": (7, 5), "grouped": False}, Kernel.MATH, "bfloat16"),
        ({"head_dim": 320, "value_dim": 320, "grouped": False}, Kernel.EFFICIENT, "320 are larger than 256"),
        ({"head_dim": 192, "grouped": False}, Kernel.EFFICIENT, "192 for keys and 128 for values"),
        ({"head_dim": 100, "value_dim": 100, "masked": True, "grouped": False}, Kernel.MATH, "multiple of 8"),
    ],
)
def test_what_pushes_attention_off_flash(change: dict[str, object], kernel: Kernel, reason: str) -> None:
    choice = resolve(replace(AMPERE, **change))
    assert choice.kernel is kernel
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("change", "named", "refused"),
    [
        ({}, "flash", ""),
        ({}, "efficient", ""),  # grouped heads, which whoever names it repeats
        ({}, "math", ""),
        ({"capability": (7, 5)}, "flash", "7.5 is below 8.0"),
        ({"capability": (7, 5)}, "efficient", "bfloat16"),
        ({"capability": (7, 5), "dtype": DType.FLOAT16}, "efficient", ""),
        ({"dtype": DType.FLOAT32}, "flash", "float32"),
        ({}, "cudnn", ""),
        ({"capability": (7, 5)}, "cudnn", "7.5 is below 8.0"),
        ({"dtype": DType.FLOAT32}, "cudnn", "float32"),
        ({"head_dim": 100, "value_dim": 100}, "cudnn", "100 are no multiple of 8"),
    ],
)
def test_a_kernel_that_is_named_may_be_refused(change: dict[str, object], named: str, refused: str) -> None:
    choice = resolve(replace(AMPERE, **change), named)
    assert choice.kernel is Kernel(named)
    assert bool(choice.refused) is bool(refused)
    assert refused in choice.refused
    assert ("No available kernel" in choice.warning) is bool(refused)


@pytest.mark.parametrize(
    ("change", "kernel"),
    [
        ({}, Kernel.CUDNN),
        ({"masked": True}, Kernel.CUDNN),  # a mask, grouped heads: neither stops it
        ({"head_dim": 256, "value_dim": 256}, Kernel.CUDNN),
        ({"head_dim": 256, "value_dim": 256, "capability": (10, 0)}, Kernel.FLASH),
        ({"head_dim": 192, "capability": (10, 0)}, Kernel.CUDNN),  # DeepSeek's heads
        ({"head_dim": 100, "value_dim": 100}, Kernel.FLASH),  # no multiple of 8
        ({"dtype": DType.FLOAT32}, Kernel.MATH),
        ({"capability": (12, 0)}, Kernel.FLASH),
    ],
)
def test_hopper_and_data_centre_blackwell_prefer_cudnn(change: dict[str, object], kernel: Kernel) -> None:
    assert resolve(replace(AMPERE, **{"capability": (9, 0), **change})).kernel is kernel


def test_the_head_that_the_efficient_kernel_refuses_is_named() -> None:
    keys_fit = replace(AMPERE, grouped=False, head_dim=64, value_dim=100)
    assert resolve(keys_fit, pinned="efficient").refused == "heads of 100 are not a multiple of 8"


@pytest.mark.parametrize("card", CARDS)
def test_the_choice_is_what_the_cuda_build_answers(card: str) -> None:
    for row in facts(card)["choices"]:
        head_dim, value_dim = row["sizes"]
        call = AttentionInput(
            DType(row["dtype"]), head_dim, value_dim, row["grouped"], row["masked"], gpu(card).capability
        )
        assert resolve(call).kernel == row["kernel"], row


def test_a_named_kernel_is_taken() -> None:
    assert resolve(AMPERE, pinned="efficient").kernel is Kernel.EFFICIENT


def test_only_the_math_kernel_is_warned_about() -> None:
    assert resolve(AMPERE).warning == ""
    assert "[heads, seq, seq]" in resolve(replace(AMPERE, dtype=DType.FLOAT32)).warning


def test_a_named_kernel_without_grouped_queries_says_what_it_takes_for_granted() -> None:
    """On an emulated RTX 4090, transformers' own call of the efficient kernel stops there: 'No available kernel'."""
    assert "taken to be repeated" in resolve(AMPERE, pinned="efficient").warning
    assert not resolve(replace(AMPERE, grouped=False), pinned="efficient").warning
    assert not resolve(AMPERE, pinned="flash").warning


@pytest.mark.parametrize(
    ("capability", "taken"),
    [
        ((7, 5), ()),
        ((8, 0), (64, 80, 128)),
        ((8, 9), (64, 80, 128)),
        ((9, 0), (64, 80, 128, 136, 160, 192, 256, (192, 128))),
        ((10, 0), (64, 80, 128, (192, 128))),
        ((12, 0), (64, 80, 128)),
    ],
)
@pytest.mark.parametrize("dtype", [DType.BFLOAT16, DType.FLOAT16])
def test_cudnn_takes_the_heads_that_the_cuda_build_says(
    dtype: DType, capability: tuple[int, int], taken: tuple[int | tuple[int, int], ...]
) -> None:
    """`torch.backends.cuda.can_use_cudnn_attention` of 2.11 and 2.13 on emulated cards, masked and grouped or not."""
    sizes = (64, 80, 100, 128, 136, 160, 192, 256, 264, 512, (192, 128))
    found = []
    for size in sizes:
        keys, values = size if isinstance(size, tuple) else (size, size)
        call = replace(AMPERE, dtype=dtype, capability=capability, head_dim=keys, value_dim=values)
        if not resolve(call, "cudnn").refused:
            found.append(size)
    assert tuple(found) == taken
