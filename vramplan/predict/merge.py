"""What a merge leaves: how the merged model is quantised, what is saved of it, and what is lost on the way."""

from msgspec.structs import replace

from vramplan.predict.base import loaded_element
from vramplan.predict.quantization import is_quantized, pieces
from vramplan.record import Device
from vramplan.scenario import DType, Quant, QuantType, Scenario
from vramplan.units import human


def saved_bytes(scenario: Scenario) -> int:
    """Bytes of the tensors that are saved: the parameters of the merged model, packed where it is quantised."""
    quant, total = merged_quant(scenario), 0
    for weight, times in scenario.architecture.counted:
        if is_quantized(weight, quant):
            total += times * sum(piece.bytes for piece in pieces(weight, quant))
        else:
            total += times * weight.numel * loaded_element(weight, scenario)
    return total


def merged_quant(scenario: Scenario) -> Quant:
    """How the merged model is quantised: as it was loaded, or not at all once it was dequantised."""
    return replace(scenario.quant, type=QuantType.NONE, double=False) if scenario.merge.dequantize else scenario.quant


def save_note(scenario: Scenario, device: Device) -> str:
    """What is written, and what that takes outside the device's memory.

    transformers 5.17 `save_pretrained` writes file by file; safetensors copies a card's tensors to the host first.
    """
    written = f"{human(saved_bytes(scenario))} are written, in files of at most {scenario.merge.max_shard_size}"
    return f"{written}; each passes through host memory whole" if device == "cuda" else written


def merge_warnings(scenario: Scenario) -> tuple[str, ...]:
    """What merging into a quantised base changes besides memory."""
    quant = merged_quant(scenario)
    if quant.type is QuantType.NONE:
        return ()
    found = [
        f"merging into {quant.type.value} rounds the sum again: the merged model is not base plus adapter;"
        " quant.type: none merges in 16 bits, merge.dequantize: true from the quantised base"
    ]
    if quant.type.four_bit and scenario.lora.dtype is DType.FLOAT32 and scenario.dtype is not DType.FLOAT32:
        found.append(
            "the fp32 sums are quantised, and bitsandbytes remembers their dtype: a merged matrix that is dequantised"
            " takes 4 bytes per element, not 2"
        )
    return tuple(found)
