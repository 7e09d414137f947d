"""Architectures outside the table, read off the model that transformers builds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from meta import build, real_buffers, real_parameters, shallow, table_buffers, table_parameters

from vramplan.architecture import WeightKind, from_transformers, read_architecture
from vramplan.architecture.from_transformers import derive_architecture
from vramplan.catalog.models import catalog_config, catalog_names
from vramplan.errors import UnknownArchitecture
from vramplan.predict.weights_file import stored_name

#: One catalogue model per family.
EXAMPLES = sorted({catalog_config(name)["model_type"]: name for name in catalog_names()}.values())

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OUTSIDE: list[dict[str, Any]] = [
    SMALL | {"model_type": "cohere"},
    SMALL | {"model_type": "olmo"},
    SMALL | {"model_type": "stablelm"},
    SMALL | {"model_type": "qwen2_moe", "num_experts": 4, "mlp_only_layers": [0]},
    SMALL
    | {"model_type": "deepseek_v3", "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100},
    {"model_type": "gptj", "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 100},
]


@pytest.mark.parametrize("config", OUTSIDE, ids=lambda config: config["model_type"])
def test_weights_are_exact_and_the_rest_is_marked(config: dict[str, Any]) -> None:
    architecture, model = read_architecture(config, name="outside"), build(config)
    assert table_parameters(architecture) == real_parameters(model)
    assert table_buffers(architecture) == real_buffers(model)
    assert architecture.facts.derived


#: Whose embedding of tokens is not the first parameter of all.
TABLES: list[dict[str, Any]] = [
    {"model_type": "xlm", "emb_dim": 64, "n_layers": 2, "n_heads": 4, "n_words": 100},  # positions come first
    {"model_type": "cpmant", "hidden_size": 64, "dim_ff": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
     "dim_head": 16, "vocab_size": 100},  # it stands behind the layers
    SMALL | {"model_type": "camembert"},  # the head comes first, and shares it
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # what transformers thinks of an encoder
@pytest.mark.parametrize("config", OUTSIDE + TABLES, ids=lambda config: config["model_type"])
def test_the_embedding_is_the_models(config: dict[str, Any]) -> None:
    model = build(config)
    table = model.get_input_embeddings().weight
    path = next(path for path, parameter in model.named_parameters() if parameter is table)
    assert read_architecture(config, name="outside").table.path == path


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_embedding_of_the_table_comes_first(name: str) -> None:
    architecture = read_architecture(shallow(catalog_config(name)), name=name)
    assert architecture.table is architecture.before[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_table_and_the_model_agree_on_every_kind(name: str) -> None:
    # Kinds are written down in the table and decided by the module's class when derived: two ways to one answer.
    config = shallow(catalog_config(name))
    table, derived = read_architecture(config, name=name), derive_architecture(config, name=name)
    assert list(table.parameters()) == [replace(weight, stored="") for weight in derived.parameters()]
    assert table.buffers == derived.buffers
    assert [table.blocks[i].attention.window for i in table.layers] == [
        derived.blocks[i].attention.window for i in derived.layers
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_table_and_transformers_agree_on_a_checkpoints_names(name: str) -> None:
    config = shallow(catalog_config(name))
    table, derived = read_architecture(config, name=name), derive_architecture(config, name=name)
    ours = [stored_name(weight, table.family) for block in table.blocks for weight in block.weights]
    theirs = [weight.stored or weight.path for block in derived.blocks for weight in block.weights]
    assert sorted(set(ours)) == sorted(set(theirs))


def test_a_checkpoint_of_granites_mixture_has_other_names() -> None:
    # transformers 5.17 conversion_mapping.py: input_linear and output_linear of every expert in one tensor
    config = SMALL | {"model_type": "granitemoe", "num_local_experts": 4, "num_experts_per_tok": 2}
    (block, *_) = derive_architecture(config, name="small").blocks
    named = {weight.path: weight.stored for weight in block.weights if weight.stored}
    assert named == {
        "block_sparse_moe.experts.gate_up_proj": "block_sparse_moe.input_linear.weight",
        "block_sparse_moe.experts.down_proj": "block_sparse_moe.output_linear.weight",
        "block_sparse_moe.router.weight": "block_sparse_moe.router.layer.weight",
    }


def test_the_last_matrix_is_quantised_where_no_norm_has_a_weight(tmp_path: Path) -> None:
    """OLMo's head is tied, and from_pretrained leaves the last parameter's module as it is: before it ties the head."""
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    config = SMALL | {"model_type": "olmo", "tie_word_embeddings": True}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    quantised = [path for path, module in loaded.named_modules() if type(module).__name__ == "Linear4bit"]
    weights = list(derive_architecture(config, name="small").parameters())
    assert [w.owner for w in weights if w.kind is WeightKind.LINEAR] == quantised
    assert len(quantised) == 7 * 3  # four matrices of attention, three of the MLP


def test_a_parameter_that_stands_alone_is_no_expert() -> None:
    # SigLIP's attention pooling has a probe of [1, 1, hidden]; read as experts, it was warned of as a mixture of them
    text = SMALL | {"model_type": "gemma3_text", "head_dim": 16}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = derive_architecture({"model_type": "gemma3", "text_config": text, "vision_config": vision}, name="small")
    kinds = {weight.path: weight.kind for weight, _ in found.counted}
    assert next(kind for path, kind in kinds.items() if path.endswith("head.probe")) is WeightKind.OTHER
    assert WeightKind.EXPERTS not in kinds.values()


def test_latent_attention_of_a_later_deepseek() -> None:
    config = next(c for c in OUTSIDE if c["model_type"] == "deepseek_v3")
    dense, sparse = read_architecture(config, name="v3").blocks
    # DeepseekV3Config of transformers 5.17.0: 128 + 64 per query head, 128 per value head, ranks 1536 and 512
    facts = dense.attention
    ranks = (facts.latent_q, facts.latent_kv)
    assert (facts.head_dim, facts.value_dim, facts.rotary_dim, *ranks) == (192, 128, 64, 1536, 512)
    assert dense.mlp is not None
    assert dense.mlp.intermediate == 96
    assert sparse.experts is not None
    assert (sparse.experts.count, sparse.experts.intermediate) == (4, 2048)
    assert not any(w.kind is WeightKind.LINEAR and "experts.gate_up" in w.path for w in sparse.weights)


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"model_type": "lama"}, "unknown architecture 'lama' in the configuration of m", "did you mean 'llama'?"),
        (
            {"model_type": "vit"},
            "'vit' in the configuration of m is not a causal language model",
            "AutoModelForCausalLM",
        ),
        (
            {"model_type": "whisper", "d_model": 64, "encoder_layers": 1, "decoder_layers": 1},
            "'whisper' in the configuration of m is an encoder with a decoder",
            "only decoders that stand alone",
        ),
        (SMALL | {"model_type": "cohere", "hidden_size": "x"}, "transformers cannot build 'cohere'", "hidden_size"),
    ],
)
def test_what_transformers_cannot_build_is_refused(config: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UnknownArchitecture) as refused:
        read_architecture(config, name="m")
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_without_transformers_the_nearest_known_family_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_transformers, "find_spec", lambda name: None)  # as importlib answers where it is missing
    with pytest.raises(UnknownArchitecture) as refused:
        read_architecture({"model_type": "starcoder"}, name="m")
    assert refused.value.message == "unknown architecture 'starcoder' in the configuration of m"
    assert refused.value.hint.startswith("did you mean 'starcoder2'?")
    assert refused.value.hint.endswith("install vramplan[measure] to ask transformers")
    assert refused.value.exit_code == 2
