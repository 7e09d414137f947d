"""Against bitsandbytes itself: every tensor of a quantised weight, byte for byte."""

from collections import Counter

import bitsandbytes as bnb
import pytest
import torch

from vramplan.architecture import Weight, WeightKind
from vramplan.ledger import Component
from vramplan.predict.quantization import bits, not_quantized, packed_bytes, pieces, shared_pieces, stored
from vramplan.scenario import Quant, QuantType, Scenario

SHAPES = ((64, 64), (7, 9), (100, 333), (512, 257))


def quant(kind: QuantType, *, double: bool = False, block: int = 64, storage: str = "uint8") -> Quant:
    return Quant(type=kind, double=double, block_size=block, storage=storage)


def linear(shape: tuple[int, int]) -> Weight:
    return Weight("mlp.up_proj.weight", WeightKind.LINEAR, shape)


def storages(state: object) -> list[torch.Tensor]:
    """The tensors of a QuantState, nested ones too."""
    found = [value for name in ("absmax", "code", "offset") if isinstance(value := getattr(state, name), torch.Tensor)]
    nested = getattr(state, "state2", None)
    return found + (storages(nested) if nested is not None else [])


def sizes(tensors: list[torch.Tensor]) -> Counter[int]:
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)  # each its own memory
    return Counter(t.untyped_storage().nbytes() for t in tensors)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("block", [32, 64, 256, 4096])
@pytest.mark.parametrize("kind", [QuantType.NF4, QuantType.FP4])
def test_four_bit_is_what_bitsandbytes_stores(kind: QuantType, block: int, double: bool) -> None:
    for shape in SHAPES:
        weight = torch.randn(shape, dtype=torch.bfloat16)
        packed, state = bnb.functional.quantize_4bit(
            weight, blocksize=block, compress_statistics=double, quant_type=kind.value
        )
        predicted = pieces(linear(shape), quant(kind, double=double, block=block))
        assert Counter(piece.bytes for piece in predicted) == sizes([packed, *storages(state)])
        assert predicted[0].bytes == packed.untyped_storage().nbytes()
        assert predicted[0].component is Component.WEIGHTS


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_packed_storage_dtypes(storage: str) -> None:
    weight = torch.randn(96, 128)
    packed, _ = bnb.functional.quantize_4bit(weight, quant_type="nf4", quant_storage=getattr(torch, storage))
    assert packed_bytes(weight.numel(), quant(QuantType.NF4, storage=storage)) == packed.untyped_storage().nbytes()


def test_int8_is_weight_and_one_scale_per_row() -> None:
    value = torch.randn(96, 40, dtype=torch.bfloat16)
    parameter = bnb.nn.Int8Params(value, requires_grad=False).to("cpu")
    predicted = pieces(linear((96, 40)), quant(QuantType.INT8))
    assert parameter.CB.untyped_storage().data_ptr() == parameter.data.untyped_storage().data_ptr()
    assert [p.bytes for p in predicted] == [parameter.data.nbytes, parameter.SCB.untyped_storage().nbytes()]


def test_code_tables_are_per_matrix_and_one_map_is_the_process() -> None:
    states = [bnb.functional.quantize_4bit(torch.randn(64, 64), compress_statistics=True)[1] for _ in range(2)]
    tables = [tensor for state in states for tensor in (state.code, state.state2.code)]
    shared = bnb.functional.name2qmap["dynamic"]
    assert len({t.data_ptr() for t in (*tables, shared)}) == 5
    assert [piece.bytes for piece in shared_pieces(quant(QuantType.NF4, double=True))] == [shared.nbytes]
    assert shared_pieces(quant(QuantType.NF4)) == ()


def test_bits_per_parameter_of_a_7b() -> None:
    scenario = Scenario.load("llama-2-7b")
    # 4 bits packed; 32 bits per 64 weights is 0.5; 8 per 64 and 32 per 64 x 256 is 0.125 + 0.001953125.
    assert bits(scenario.architecture, quant(QuantType.NF4)).per_parameter == 4.5
    assert bits(scenario.architecture, quant(QuantType.NF4, double=True)).per_parameter == 4.126953125


def test_tables_are_counted_apart() -> None:
    scenario = Scenario.load("llama-2-7b")
    found = bits(scenario.architecture, quant(QuantType.NF4, double=True))
    # 32 layers x 7 matrices, each with 64 B of codes, 1024 B of map and 4 B of offset; the process' map once.
    assert found.tables == 8 * (32 * 7 * (64 + 1024 + 4) + 1024) / 6_476_005_376


def test_quant_state_of_a_7b() -> None:
    scenario = Scenario.load("llama-2-7b", quant={"double": True})
    total = sum(
        piece.bytes * times
        for weight, times in scenario.architecture.counted
        if weight.kind is WeightKind.LINEAR
        for piece in pieces(weight, scenario.quant)
        if piece.component is Component.QUANT_STATE
    )
    # 6,476,005,376 / 64 = 101,187,584 blocks of 1 B; 395,264 blocks of 4 B; 224 matrices x (64 + 1024 + 4) B.
    assert total == 101_187_584 + 4 * 395_264 + 224 * 1092


@pytest.mark.parametrize(("kind", "double"), [(QuantType.NF4, True), (QuantType.NF4, False), (QuantType.INT8, False)])
def test_parts_add_up_to_all_pieces(kind: QuantType, double: bool) -> None:
    model, given = Scenario.load("llama-2-7b").architecture, quant(kind, double=double)
    matrices = [(weight, times) for weight, times in model.counted if weight.kind is WeightKind.LINEAR]
    total = sum(times * piece.bytes for weight, times in matrices for piece in pieces(weight, given))
    assert stored(model, given).total == total + sum(piece.bytes for piece in shared_pieces(given))


def test_parts_of_a_7b() -> None:
    found = stored(Scenario.load("llama-2-7b").architecture, quant(QuantType.NF4, double=True))
    # 6,476,005,376 weights: two to a byte; a byte per 64; 4 bytes per 64 x 256; 224 matrices
    assert found.packed == 6_476_005_376 // 2
    assert found.first == 6_476_005_376 // 64
    assert found.second == 4 * 6_476_005_376 // (64 * 256)
    assert found.offsets == 224 * 4
    assert found.tables == 224 * (64 + 1024) + 1024


def reason(model: str, path: str) -> str:
    architecture = Scenario.load(model).architecture
    weights = (*(weight for weight, _ in architecture.counted), *architecture.buffers)
    return not_quantized(next(weight for weight in weights if weight.path == path), architecture)


@pytest.mark.parametrize(
    ("model", "path", "why"),
    [
        ("llama-2-7b", "lm_head.weight", "the output head, which transformers leaves out"),
        ("llama-2-7b", "model.embed_tokens.weight", "nn.Embedding, no nn.Linear"),
        ("gpt2", "transformer.wte.weight", "nn.Embedding; the output head shares it"),
        ("gpt2", "transformer.wpe.weight", "nn.Embedding, no nn.Linear"),
        (
            "falcon-7b",
            "mlp.dense_h_to_4h.weight",
            "a subclass of nn.Linear, or skipped by transformers for this model: only nn.Linear itself is replaced",
        ),
        ("gpt-oss-20b", "mlp.experts.gate_up_proj", "32 experts in one parameter, no nn.Linear"),
        ("gpt-oss-20b", "mlp.experts.gate_up_proj_bias", "a bias of every expert, no nn.Linear"),
        ("gpt-oss-20b", "mlp.router.weight", "a bare parameter of the router, no nn.Linear"),
        ("gpt-oss-20b", "mlp.router.bias", ""),
        ("gpt-oss-20b", "self_attn.sinks", ""),
        ("llama-2-7b", "model.norm.weight", ""),
        ("llama-2-7b", "model.rotary_emb.inv_freq", ""),
    ],
)
def test_why_a_weight_is_not_quantised(model: str, path: str, why: str) -> None:
    assert reason(model, path) == why


def test_experts_end_to_end_in_a_matrix_are_no_bias() -> None:
    weight = Weight("ffn.experts.mlp.w1", WeightKind.EXPERTS, (16 * 10752, 6144))
    architecture = Scenario.load("llama-2-7b").architecture
    assert not_quantized(weight, architecture) == "every expert in one parameter, no nn.Linear"
