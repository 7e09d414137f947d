"""The closed form of a merge: copies of one matrix, counted by hand; the library is asked in tests/measure."""

import pytest

import vramplan
from vramplan.ledger import Component, Ledger, Phase
from vramplan.predict.forecast import ledger
from vramplan.predict.merge import saved_bytes
from vramplan.record import Device
from vramplan.scenario import Scenario

#: Llama-2-7B: the largest matrix is 11008 x 4096, the first of its layer's feed-forward.
GATE = 11008 * 4096
#: 32 layers of 4 x 4096^2 + 3 x GATE, embedding and head of 32000 x 4096, 65 norms of 4096
LINEAR = 32 * (4 * 4096**2 + 3 * GATE)
REST = 2 * 32000 * 4096 + 65 * 4096
#: rotary frequencies: 64 in fp32, twice
BUFFERS = 2 * 64 * 4
#: rank 16 on the attention's four matrices, which are merged and gone before the gate's turn, and on the other three
ATTENTION = 4 * 16 * 4 * (4096 + 4096)
ADAPTERS = 32 * (ATTENTION + 3 * 16 * 4 * (4096 + 11008))


def run(device: Device = "cpu", **keys: object) -> Ledger:
    return ledger(Scenario.load("llama-2-7b", method="merge", **keys), device)


def test_16_bits_hold_the_gates_delta_twice() -> None:
    found = run("cuda")
    # B @ A and its product with the scaling, both fp32; cuBLAS has its workspace from the first product on
    cublas = (2 * 4096 + 8 * 16) * 1024
    assert found.bytes(Phase.MERGE, Component.WORKSPACE) == 2 * 4 * GATE + cublas
    assert found.bytes(Phase.MERGE, Component.ADAPTERS) == ADAPTERS - ATTENTION
    assert found.bytes(Phase.MERGE, Component.WEIGHTS) == 2 * LINEAR


def test_on_a_cpu_both_sides_of_the_sum_are_copied_to_fp32() -> None:
    assert run().bytes(Phase.MERGE, Component.WORKSPACE) == 3 * 4 * GATE


def test_the_adapters_file_is_there_beside_the_adapters() -> None:
    found = run()
    assert found.bytes(Phase.LOAD, Component.WORKSPACE) == found.bytes(Phase.LOAD, Component.ADAPTERS) == ADAPTERS


def test_dequantising_holds_the_model_in_both_forms() -> None:
    found = run(quant={"type": "nf4"}, merge={"dequantize": True})
    assert found.bytes(Phase.LOAD, Component.WEIGHTS) == LINEAR // 2 + 2 * LINEAR
    assert found.bytes(Phase.MERGE, Component.WEIGHTS) == 2 * LINEAR


def test_int8_dequantised_to_fp32_becomes_the_models_weights() -> None:
    found = run(quant={"type": "int8"}, dtype="float32", lora={"dtype": "float32"}, merge={"dequantize": True})
    assert found.bytes(Phase.MERGE, Component.WEIGHTS) == found.bytes(Phase.SAVE, Component.WEIGHTS) == 4 * LINEAR
    # B @ A and its product with the scaling
    assert found.bytes(Phase.MERGE, Component.WORKSPACE) == 2 * 4 * GATE
    assert found.bytes(Phase.SAVE, Component.WORKSPACE) == 0


def test_merging_in_4_bits_carries_the_sum_to_the_card_again() -> None:
    found = run("cuda", quant={"type": "nf4", "double": False})
    # dequantised in 16 bits, delta, sum, and the sum back from the host, in fp32; the new packed weight is a weight
    cublas = (2 * 4096 + 8 * 16) * 1024
    assert found.bytes(Phase.MERGE, Component.WORKSPACE) == (2 + 4 + 4 + 4) * GATE + cublas
    assert found.bytes(Phase.MERGE, Component.WEIGHTS) == LINEAR // 2 + GATE // 2


def test_saved_is_every_parameter_and_no_buffer() -> None:
    assert saved_bytes(Scenario.load("llama-2-7b", method="merge")) == 2 * (LINEAR + REST)
    assert run().allocated(Phase.SAVE) == 2 * (LINEAR + REST) + BUFFERS


def test_saving_a_mixture_copies_its_fused_projections() -> None:
    found = ledger(Scenario.load("mixtral-8x7b-v0.1", method="merge", lora={"targets": ["q_proj"]}), "cpu")
    # 32 layers, 8 experts, gate and up of 14336 x 4096 in 16 bits: 56 GiB more than the model itself
    assert found.bytes(Phase.SAVE, Component.WORKSPACE) == 32 * 8 * 2 * 14336 * 4096 * 2
    assert found.peak_phase is Phase.SAVE


def test_what_a_quantised_merge_loses_is_said() -> None:
    def warnings(**keys: object) -> str:
        return " ".join(vramplan.predict(Scenario.load("llama-2-7b", method="merge", **keys), device="cpu").warnings)

    assert "rounds the sum again" in warnings(quant={"type": "nf4"})
    assert "4 bytes per element" in warnings(quant={"type": "nf4"})
    assert "4 bytes per element" not in warnings(quant={"type": "nf4"}, lora={"dtype": "bfloat16"})
    assert "4 bytes per element" not in warnings(quant={"type": "int8"})
    assert warnings() == warnings(merge={"dequantize": True}) == ""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_ledger_is_the_predictions(device: Device) -> None:
    wanted = Scenario.load("llama-2-7b", method="merge")
    predicted = vramplan.predict(wanted, device=device)
    note = next(e.note for e in predicted.ledger.of(Phase.SAVE) if e.component is Component.WEIGHTS)
    assert note.startswith("12.55 GiB are written, in files of at most 50GB")
    assert ("host memory" in note) is (device == "cuda")
    for phase in predicted.ledger.phases:
        assert ledger(wanted, device).allocated(phase) <= predicted.ledger.allocated(phase)
