"""One matrix to a format and back: bitsandbytes 0.50.2 on the CPU, and the uniform control on its constants."""

from typing import TYPE_CHECKING, NamedTuple

import vramplan.training  # noqa: F401  its import keeps bitsandbytes from recommending packages on stderr
from vramplan.predict.quantization import NESTED_BLOCK
from vramplan.quant.formats import Format, Kind

if TYPE_CHECKING:
    import torch


class RoundTrip(NamedTuple):
    """A matrix after quantisation."""

    values: "torch.Tensor"
    """What the codes stand for, fp32, in the matrix's shape."""
    codes: "torch.Tensor"
    """One code per weight, uint8, in the weights' order."""
    levels: int
    """How many codes there are."""


def round_trip(weights: "torch.Tensor", made: Format) -> RoundTrip:
    """`weights` (fp32, two dimensions) quantised and dequantised; fp32 throughout, so no other rounding is in it.

    int8 alone goes through fp16, as transformers and bitsandbytes do (nn/modules.py Int8Params).
    """
    if made.kind is Kind.INT8:
        return _int8(weights)
    if made.kind is Kind.INT4:
        return _uniform(weights, made)
    return _four_bit(weights, made)


def _four_bit(weights: "torch.Tensor", made: Format) -> RoundTrip:
    import torch
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        weights, blocksize=made.block, compress_statistics=made.double, quant_type=made.kind.value
    )
    codes = torch.stack((packed >> 4, packed & 15), dim=-1).flatten()[: weights.numel()]  # the first weight is high
    return RoundTrip(functional.dequantize_4bit(packed, state), codes, 16)


def _uniform(weights: "torch.Tensor", made: Format) -> RoundTrip:
    """Evenly spaced levels from -7/7 to 7/7 of each block's largest weight; constants as bitsandbytes keeps them."""
    import torch
    from bitsandbytes import functional

    blocks = -(-weights.numel() // made.block)
    padded = torch.zeros(blocks * made.block)
    padded[: weights.numel()] = weights.flatten()
    padded = padded.view(blocks, made.block)
    largest = padded.abs().amax(dim=1)
    steps = torch.where(largest > 0, largest, 1.0)[:, None] / 7
    levels = (padded / steps).round_().clamp_(-7, 7)
    if made.double:
        offset = largest.mean()
        coded, state = functional.quantize_blockwise(largest - offset, blocksize=NESTED_BLOCK)
        largest = functional.dequantize_blockwise(coded, state) + offset
    values = (levels * (largest[:, None] / 7)).flatten()[: weights.numel()]
    codes = (levels + 7).to(torch.uint8).flatten()[: weights.numel()]
    return RoundTrip(values.view(weights.shape), codes, 15)


def _int8(weights: "torch.Tensor") -> RoundTrip:
    import torch
    from bitsandbytes import functional

    coded, scales, _ = functional.int8_vectorwise_quant(weights.half())
    values = functional.int8_vectorwise_dequant(coded, scales)
    return RoundTrip(values.float(), (coded.to(torch.int16) + 127).to(torch.uint8).flatten(), 255)
