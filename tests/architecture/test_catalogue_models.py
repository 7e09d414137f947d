"""Every catalogue model against the model that transformers builds from the same config.json."""

import pytest
from meta import build, real_buffers, real_parameters, shallow, table_buffers, table_parameters

from vramplan.architecture import WeightKind, read_architecture
from vramplan.architecture.read import FAMILIES
from vramplan.catalog.models import catalog_config, catalog_entries, catalog_names

#: One catalogue model of each family, and of each family whose head is sometimes tied one with and one without.
EXAMPLES = sorted(
    {(c["model_type"], c["tie_word_embeddings"]): n for n in catalog_names() for c in [catalog_config(n)]}.values()
)


@pytest.mark.parametrize("name", catalog_names())
def test_names_and_shapes_are_those_of_transformers(name: str) -> None:
    config = catalog_config(name)
    model, architecture = build(config), read_architecture(config, name=name)
    assert table_parameters(architecture) == real_parameters(model)
    assert table_buffers(architecture) == real_buffers(model)


@pytest.mark.parametrize("name", catalog_names())
def test_parameters_add_up_to_the_catalogued_count(name: str) -> None:
    architecture = read_architecture(catalog_config(name), name=name)
    assert architecture.numel == sum(weight.numel for weight in architecture.parameters())
    assert architecture.numel == catalog_entries()[name].parameters


def test_every_family_has_a_catalogue_model() -> None:
    assert {catalog_config(name)["model_type"] for name in catalog_names()} == set(FAMILIES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_quantised_is_what_transformers_replaces(name: str) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import HfQuantizer

    config = shallow(catalog_config(name))
    model = build(config)
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, kept, BitsAndBytesConfig(load_in_4bit=True))
    replaced = {path for path, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    weights = read_architecture(config, name=name).parameters()
    assert {w.path.removesuffix(".weight") for w in weights if w.kind is WeightKind.LINEAR} == replaced


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_takes_an_adapter_is_what_peft_finds(name: str) -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    config = shallow(catalog_config(name))
    found = _maybe_include_all_linear_layers(peft.LoraConfig(target_modules="all-linear"), build(config))
    weights = read_architecture(config, name=name).parameters()
    assert {w.path.removesuffix(".weight") for w in weights if w.adaptable} == found.target_modules


@pytest.mark.parametrize("name", EXAMPLES)
def test_facts_about_attention_are_those_of_the_modules(name: str) -> None:
    config = shallow(catalog_config(name), layers=6)
    if "layer_types" in config:
        config["num_hidden_layers"] = len(config["layer_types"])
    model, architecture = build(config), read_architecture(config, name=name)
    attentions = [m for m in model.modules() if type(m).__name__.endswith("Attention")]
    assert len(attentions) == len(architecture.layers)
    for module, block in zip(attentions, architecture.layers, strict=True):
        facts = architecture.blocks[block].attention
        own = getattr(module, "qk_head_dim", None) or getattr(module, "head_dim", None) or module.head_size
        window = getattr(module, "sliding_window", getattr(model.config, "sliding_window", None))
        assert (facts.head_dim, facts.window) == (own, window or 0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_only_rotary_frequencies_keep_their_own_dtype(name: str) -> None:
    config = shallow(catalog_config(name)) | {"torch_dtype": "bfloat16"}
    own = {path: str(b.dtype).removeprefix("torch.") for path, b in build(config).named_buffers()}
    buffers = read_architecture(config, name=name).buffers
    assert {w.path: w.dtype or "bfloat16" for w in buffers} == own
