"""The base model's own tensors: which component each belongs to, and its bytes at each stage of a run."""

from vramplan.architecture import Architecture, Weight, WeightKind
from vramplan.element_types import ELEMENT_BYTES
from vramplan.ledger import Component
from vramplan.predict.quantization import is_quantized
from vramplan.predict.writer import Piece
from vramplan.scenario import DType, Quant, QuantType, Scenario
from vramplan.stacks import Upcast

_LINEARS = (WeightKind.LINEAR, WeightKind.SUBLINEAR)


def component(weight: Weight, quant: Quant) -> Component:
    """Where a weight that is not quantised is counted: the linear layers of an unquantised model are `weights`."""
    plain = quant.type is QuantType.NONE and weight.kind in _LINEARS
    return Component.WEIGHTS if plain else Component.UNQUANTIZED


def loaded_element(weight: Weight, scenario: Scenario) -> int:
    """Bytes per element of an unquantised weight as loaded."""
    return ELEMENT_BYTES[weight.dtype or scenario.dtype]


def upcasts(weight: Weight, scenario: Scenario) -> bool:
    """Whether the weight is fp32 after the preparation: what a trainer casts back is not."""
    return is_made_fp32(weight, scenario) and not _cast_back(weight, scenario)


def _cast_back(weight: Weight, scenario: Scenario) -> bool:
    """Under `norms` embedding and head (TRL); under `rest` also every module with "norm" in its path.

    axolotl 0.19.0 loaders/model.py _convert_embedding_modules_dtype goes by that word, so GPT-2's `ln_1` stays fp32.
    """
    upcast = scenario.stack.upcast
    if upcast is Upcast.REST and "norm" in weight.owner:
        return True
    return upcast in (Upcast.NORMS, Upcast.REST) and is_vocabulary(weight, scenario.architecture)


def is_made_fp32(weight: Weight, scenario: Scenario) -> bool:
    """Whether peft's preparation makes the weight fp32, be it for good or not.

    peft 0.21.2 utils/other.py prepare_model_for_kbit_training: every 16-bit parameter that is not a `Params4bit`, so
    norms, biases, embeddings, head, experts and routers alike, int8 excepted by its dtype; buffers are no parameters.
    Inference and merging prepare nothing.
    """
    upcast = scenario.stack.upcast if scenario.method.trains else Upcast.NONE
    if upcast is Upcast.NONE or weight.kind is WeightKind.BUFFER or loaded_element(weight, scenario) != 2:
        return False
    return not is_quantized(weight, scenario.quant)


def is_vocabulary(weight: Weight, architecture: Architecture) -> bool:
    """Whether the weight is the input embedding or the output head (not, say, a table of positions)."""
    return weight.kind is WeightKind.HEAD or (weight.kind is WeightKind.EMBEDDING and weight == architecture.table)


def prepared_dtype(weight: Weight, scenario: Scenario) -> str:
    """Element type of an unquantised weight after the preparation."""
    return DType.FLOAT32 if upcasts(weight, scenario) else weight.dtype or scenario.dtype


def prepared_element(weight: Weight, scenario: Scenario) -> int:
    """Bytes per element of an unquantised weight after the preparation."""
    return ELEMENT_BYTES[prepared_dtype(weight, scenario)]


def piece(weight: Weight, element: int, quant: Quant) -> Piece:
    """The one tensor of an unquantised weight."""
    return Piece(component(weight, quant), weight.path, weight.numel * element)
