"""What an architecture says about itself, against sums that can be done by hand."""

import pytest

from vramplan.architecture import Architecture, Dropouts, Facts, Weight, WeightKind, read_architecture
from vramplan.catalog.models import catalog_config


def read(name: str) -> Architecture:
    return read_architecture(catalog_config(name), name=name)


def test_a_repeated_layer_is_described_once() -> None:
    model = read("llama-3.1-405b")
    assert len(model.blocks) == 1
    assert model.layers == (0,) * 126
    # embedding, final norm, head, and nine weights per layer
    assert len(list(model.parameters())) == 3 + 9 * 126
    assert len(model.counted) == 3 + 9


def test_the_linear_weights_of_llama_2_7b() -> None:
    weights = [(w, times) for w, times in read("llama-2-7b").counted if w.kind is WeightKind.LINEAR]
    # 32 layers x (4 x 4096 x 4096 + 3 x 4096 x 11008)
    assert sum(w.numel * times for w, times in weights) == 32 * (4 * 4096**2 + 3 * 4096 * 11008) == 6_476_005_376


def test_a_tied_head_is_counted_once() -> None:
    model = read("qwen2.5-0.5b")
    assert model.tied
    assert not any(weight.kind is WeightKind.HEAD for weight in model.parameters())
    assert [weight.path for weight in model.after] == ["model.norm.weight"]


def test_sides_of_a_linear_weight_do_not_depend_on_how_it_is_stored() -> None:
    (conv,) = (w for w in read("gpt2").blocks[0].weights if w.path == "mlp.c_fc.weight")
    assert (conv.shape, conv.transposed, conv.in_out) == ((768, 3072), True, (768, 3072))
    (linear,) = (w for w in read("llama-2-7b").blocks[0].weights if w.module == "up_proj")
    assert (linear.shape, linear.transposed, linear.in_out) == ((11008, 4096), False, (4096, 11008))


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("llama-2-7b", ["model.norm.weight"]),
        ("gpt2", ["transformer.ln_f.weight", "transformer.ln_f.bias"]),
        ("opt-1.3b", ["model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm.bias"]),
    ],
)
def test_the_final_norm_is_found_wherever_the_model_keeps_it(name: str, paths: list[str]) -> None:
    assert [weight.path for weight in read(name).final_norm] == paths


def test_a_model_without_a_final_norm_says_so() -> None:
    # OPT-350m norms after each residual sum and has none at the end
    config = catalog_config("opt-1.3b") | {"do_layer_norm_before": False}
    assert read_architecture(config, name="opt-350m").final_norm == ()


def test_a_subclass_of_linear_is_adapted_but_not_quantised() -> None:
    weight = Weight("dense.weight", WeightKind.SUBLINEAR, (2, 3))
    assert weight.adaptable
    assert {w.kind for w in read("falcon-7b").blocks[0].weights} == {WeightKind.SUBLINEAR, WeightKind.NORM}


def test_facts_that_decide_what_a_step_allocates() -> None:
    assert read("gpt2").facts == Facts(dropouts=Dropouts(0.1, 0.1, 0.1), learned_positions=True)
    assert read("gemma-2-2b").facts == Facts(scaled_embedding=True, capped_logits=True)
    assert read("phi-2").facts == Facts(parallel_residual=True)
    assert read("llama-2-7b").facts == Facts()
