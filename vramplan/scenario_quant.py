"""A file's keys as the quantisation of a scenario: what its checkpoint has already goes before the usual default."""

from msgspec import UNSET

from vramplan.checkpoint_quant import in_words, stored_quant
from vramplan.errors import UsageError
from vramplan.scenario import Load, Method, ModelRef, Quant, QuantType
from vramplan.scenario_schema import BLOCK_SIZES, ScenarioKeys


def resolve_quant(keys: ScenarioKeys, model: ModelRef, where: str) -> Quant:
    """The quantisation of a file's keys; a UsageError for what contradicts the method or the checkpoint."""
    given = keys.quant
    usual = _usual_quant(keys, model, where)
    if given.type is not UNSET:
        usual = Quant(type=given.type, double=given.type.four_bit)
    kind = usual.type
    if keys.method is Method.QLORA and kind is QuantType.NONE:
        raise UsageError(
            f"{where}: method qlora with quant.type none", hint="method: lora trains adapters on a 16-bit base"
        )
    if keys.method in (Method.LORA, Method.FULL) and kind is not QuantType.NONE:
        method = keys.method.value
        raise UsageError(
            f"{where}: method {method} with quant.type {kind.value}", hint="a quantised base is method: qlora"
        )
    if given.double is True and not kind.four_bit:
        raise UsageError(
            f"{where}: quant.double: true with quant.type {kind.value}",
            hint="double quantisation is of the constants of nf4 and fp4: set double: false, or another type",
        )
    _check_block_size(keys, where)
    double = usual.double if given.double is UNSET else given.double
    return Quant(type=kind, double=double, block_size=given.block_size, storage=given.storage)


def _usual_quant(keys: ScenarioKeys, model: ModelRef, where: str) -> Quant:
    """Where no type is given: what the checkpoint has already, else NF4 with double quantisation."""
    own = stored_quant(model.config) if keys.load is Load.CHECKPOINT else None
    if own and keys.method in (Method.LORA, Method.FULL):
        raise UsageError(
            f"{where}: method {keys.method.value} on a checkpoint that is quantised already, as {in_words(own)}, which"
            " transformers keeps",
            hint="method: qlora (--method qlora) trains adapters on it; or name the 16-bit checkpoint",
        )
    merges = keys.method is Method.MERGE and not keys.merge.dequantize  # people merge into 16 bits
    kind = QuantType.NONE if merges or keys.method in (Method.LORA, Method.FULL) else QuantType.NF4
    plain = Quant(type=kind, double=kind.four_bit)
    return plain if kind is QuantType.NONE else own or plain


def _check_block_size(keys: ScenarioKeys, where: str) -> None:
    size = keys.quant.block_size
    if size not in BLOCK_SIZES:
        allowed = ", ".join(map(str, BLOCK_SIZES))
        raise UsageError(f"{where}: quant.block_size: bitsandbytes has no blocks of {size}", hint=f"allowed: {allowed}")
    if size != 64 and keys.load is Load.CHECKPOINT:
        raise UsageError(
            f"{where}: quant.block_size {size} with load: checkpoint; transformers loads blocks of 64",
            hint="set load: random to study other block sizes",
        )
