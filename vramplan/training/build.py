"""The base model of a scenario on a device: random weights layer by layer, or a checkpoint by `from_pretrained`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vramplan.architecture.from_transformers import building
from vramplan.errors import CannotRun, UsageError, first_line
from vramplan.ledger import Phase
from vramplan.scenario import Load, Method, QuantType, Scenario
from vramplan.training.materialize import materialize
from vramplan.training.meter import Meter
from vramplan.training.names import name_base


def skeleton(scenario: Scenario) -> Any:
    """The model on the meta device, its linear layers replaced by bitsandbytes' where the scenario quantises."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights
    from transformers.modeling_utils import local_torch_dtype
    from transformers.quantizers import AutoHfQuantizer

    config = transformers_config(scenario)
    with building(config.model_type, scenario.model.name), torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, scenario.dtype),
            attn_implementation=attention_of(config, scenario.attention),
        )
    if scenario.quant.type is not QuantType.NONE:
        quantizer = AutoHfQuantizer.from_config(quantization_config(scenario), pre_quantized=False)
        with local_torch_dtype(getattr(torch, scenario.dtype)):  # as from_pretrained does: biases follow the weights
            quantizer.preprocess_model(model=model, device_map={"": "cpu"})
        quantizer.postprocess_model(model)
        model.hf_quantizer = quantizer  # as from_pretrained leaves it
        _set_block_size(model, scenario.quant.block_size)
    model.tie_weights()  # after quantisation as in from_pretrained: what is not quantised goes by the last parameter
    return model


@dataclass(frozen=True, slots=True)
class Making:
    """How a model is made that is not loaded from files; a run on fake tensors has ways of its own."""

    skeleton: Callable[[Scenario], Any] = skeleton
    """The model on the meta device."""
    materialize: Callable[[Any, Scenario, torch.device, Meter], None] = materialize
    """Gives its parameters and buffers values on a device."""


BY_LIBRARIES = Making()


def build_model(scenario: Scenario, device: torch.device, meter: Meter, *, making: Making = BY_LIBRARIES) -> nn.Module:
    """The transformers model of the scenario on `device`, quantised, every parameter and buffer real and named.

    A 16-bit matrix exists only until it is quantised, as in `from_pretrained` (transformers 5.17 core_model_loading.py
    materialises one tensor at a time), so a 70B model never exists in 16 bits at once.
    """
    meter.enter(Phase.LOAD)
    model: nn.Module
    if scenario.load_from is Load.CHECKPOINT and scenario.model.path:
        model = _from_checkpoint(scenario, device)
    else:
        model = making.skeleton(scenario)
        making.materialize(model, scenario, device, meter)
    name_base(model, meter)
    return model


def random_weights_warning(scenario: Scenario) -> list[str]:
    """What to say where a checkpoint is asked for that is not on this machine; else nothing."""
    lacking = scenario.load_from is Load.CHECKPOINT and not scenario.model.path
    return ["the weights are random: no local checkpoint was given"] if lacking else []


def transformers_config(scenario: Scenario) -> Any:
    """transformers' configuration object of the scenario's model; no cache of keys and values while training."""
    from transformers import CONFIG_MAPPING

    raw = dict(scenario.model.config)
    kind = raw.get("model_type", "")
    if kind not in CONFIG_MAPPING:
        raise UsageError(
            f"model_type '{kind}' is unknown to transformers", hint="give the config.json of a known model"
        )
    raw.pop("quantization_config", None)
    with building(kind, scenario.model.name):
        config = CONFIG_MAPPING[kind].from_dict(raw)
    config.use_cache = scenario.method is Method.INFERENCE
    return config


def logits_width(scenario: Scenario) -> int:
    """Elements of one token's logits, by which a tracker knows them."""
    return int(transformers_config(scenario).get_text_config().vocab_size)


def modeling_of(scenario: Scenario) -> ModuleType:
    """The module of transformers that has the code of the scenario's model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return import_module(MODEL_FOR_CAUSAL_LM_MAPPING[type(transformers_config(scenario))].__module__)


def quantization_config(scenario: Scenario) -> Any:
    """The BitsAndBytesConfig of the scenario; the block size is not among its options (transformers 5.17)."""
    from transformers import BitsAndBytesConfig

    quant = scenario.quant
    if quant.type is QuantType.INT8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant.type.value,
        bnb_4bit_use_double_quant=quant.double,
        bnb_4bit_compute_dtype=getattr(torch, scenario.compute_dtype),
        bnb_4bit_quant_storage=getattr(torch, quant.storage),
    )


def attention_of(config: Any, attention: str) -> str:
    """transformers' name of the attention: `sdpa:flash` and its kin are sdpa, whose backend a context chooses.

    For a family without sdpa plain `sdpa`, everybody's default, means eager, as transformers 5.17
    `_check_and_adjust_attn_implementation` has it where no name is asked for; a name that is asked for it refuses.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    wanted = attention.partition(":")[0]
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if wanted != "sdpa" or model is None or getattr(model, "_supports_sdpa", True):
        return wanted
    if attention == "sdpa":
        return "eager"
    raise UsageError(
        f"'{config.model_type}' has no attention '{attention}' in transformers", hint="use attention: eager"
    )


def _set_block_size(model: nn.Module, block_size: int) -> None:
    """bitsandbytes takes the block size from the parameter (nn/modules.py Params4bit); the default is 64."""
    for module in model.modules():
        if hasattr(module, "source_cls") and hasattr(module.weight, "blocksize"):
            module.weight.blocksize = block_size


def _from_checkpoint(scenario: Scenario, device: torch.device) -> Any:
    """The model through the real `from_pretrained`, from the scenario's local directory."""
    from transformers import AutoModelForCausalLM

    extra = {} if scenario.quant.type is QuantType.NONE else {"quantization_config": quantization_config(scenario)}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            scenario.model.path,
            dtype=getattr(torch, scenario.dtype),
            attn_implementation=attention_of(transformers_config(scenario), scenario.attention),
            device_map={"": device} if scenario.arrives_by_tensor else None,
            local_files_only=True,
            **extra,
        )
    except (OSError, ImportError) as error:
        reason = first_line(error)
        raise CannotRun(f"cannot load {scenario.model.path}: {reason}", hint="load: random needs no weights") from error
    model.config.use_cache = scenario.method is Method.INFERENCE
    return model if scenario.arrives_by_tensor else model.to(device)
