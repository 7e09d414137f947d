"""The base model of a scenario on a device: random weights layer by layer, or a checkpoint by `from_pretrained`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vramplan.errors import CannotRun, UsageError
from vramplan.ledger import Phase
from vramplan.scenario import Load, Method, QuantType, Scenario
from vramplan.training.meter import Meter
from vramplan.training.names import name_base

#: Makes the quantised parameter at a path of the model from its 16-bit value; a fake run brings its own.
Quantize = Callable[[nn.Module, str, Tensor], nn.Parameter]


def build_model(
    scenario: Scenario, device: torch.device, meter: Meter, *, quantize: Quantize | None = None
) -> nn.Module:
    """The transformers model of the scenario on `device`, quantised, every parameter and buffer real and named.

    A 16-bit matrix exists only until it is quantised, as in `from_pretrained` (transformers 5.17 core_model_loading.py
    materialises one tensor at a time), so a 70B model never exists in 16 bits at once.
    """
    meter.enter(Phase.LOAD)
    model = (
        _from_checkpoint(scenario, device) if scenario.load_from is Load.CHECKPOINT and scenario.model.path else None
    )
    if model is None:
        model = skeleton(scenario)
        materialize(model, scenario, device, meter, quantize=quantize or quantize_by_bitsandbytes)
    name_base(model, meter)
    built: nn.Module = model
    return built


def skeleton(scenario: Scenario) -> Any:
    """The model on the meta device, its linear layers replaced by bitsandbytes' where the scenario quantises."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights
    from transformers.quantizers import AutoHfQuantizer

    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            transformers_config(scenario),
            dtype=getattr(torch, scenario.dtype),
            attn_implementation=attention_implementation(scenario.attention),
        )
    model.tie_weights()  # part of the initialisation that was skipped (transformers 5.17 `init_weights`)
    if scenario.quant.type is not QuantType.NONE:
        quantizer = AutoHfQuantizer.from_config(quantization_config(scenario), pre_quantized=False)
        quantizer.preprocess_model(model=model, device_map={"": "cpu"})
        quantizer.postprocess_model(model)
        model.hf_quantizer = quantizer  # as from_pretrained leaves it
        _set_block_size(model, scenario.quant.block_size)
    return model


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
    config = CONFIG_MAPPING[kind].from_dict(raw)
    config.use_cache = scenario.method is Method.INFERENCE
    return config


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


def attention_implementation(attention: str) -> str:
    """transformers' name of the attention: `sdpa:flash` and its kin are sdpa with the backend chosen by a context."""
    return attention.partition(":")[0]


def materialize(model: Any, scenario: Scenario, device: torch.device, meter: Meter, *, quantize: Quantize) -> None:
    """Give every parameter and buffer of a meta model a random or initial value on `device`, in the model's order.

    Tied parameters are one object in the meta model and stay one object.
    """
    torch.manual_seed(0)
    kept_fp32 = model._get_dtype_plan(getattr(torch, scenario.dtype))
    std = getattr(model.config, "initializer_range", None) or 0.02
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        fresh = False
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in made:
                full = f"{path}.{name}" if path else name
                if _is_quantized(module, name):
                    made[id(parameter)] = _quantized(model, full, module, scenario, device, std, quantize)
                else:
                    made[id(parameter)] = _plain(full, parameter, device, kept_fp32)
                    fresh = True
            module._parameters[name] = made[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device=device)
                fresh = True
        if fresh:
            _initialise(model, module)
        name_base(module, meter, within=model, prefix=path, recurse=False)
    model.eval()  # as from_pretrained leaves it


def quantize_by_bitsandbytes(model: Any, path: str, value: Tensor) -> nn.Parameter:
    """The quantised parameter, made by the operation that `from_pretrained` runs on each tensor of a checkpoint."""
    operation = model.hf_quantizer.get_quantize_ops()
    parameter: nn.Parameter = operation.convert({path: value}, model=model)[path]
    return parameter


def _quantized(
    model: Any, path: str, module: Any, scenario: Scenario, device: torch.device, std: float, quantize: Quantize
) -> nn.Parameter:
    shape = (module.out_features, module.in_features)
    if module.source_cls is not nn.Linear:  # Conv1D: stored [in, out]; the conversion transposes it
        shape = (shape[1], shape[0])
    value = torch.empty(shape, dtype=getattr(torch, scenario.dtype), device=device).normal_(0.0, std)
    return quantize(model, path, value)


def _plain(path: str, parameter: nn.Parameter, device: torch.device, kept_fp32: dict[str, torch.dtype]) -> nn.Parameter:
    dtype = next((dtype for part, dtype in kept_fp32.items() if part in path), parameter.dtype)
    return nn.Parameter(torch.empty(parameter.shape, dtype=dtype, device=device), requires_grad=parameter.requires_grad)


@torch.no_grad()
def _initialise(model: Any, module: nn.Module) -> None:
    """transformers' own initial values, rotary frequencies included; a quantised layer needs only its bias filled."""
    if hasattr(module, "source_cls"):
        if isinstance(module.bias, Tensor):
            nn.init.zeros_(module.bias)
        return
    model._init_weights(module)


def _is_quantized(module: nn.Module, name: str) -> bool:
    return name == "weight" and hasattr(module, "source_cls")  # set by transformers' replace_with_bnb_linear


def _set_block_size(model: nn.Module, block_size: int) -> None:
    """bitsandbytes takes the block size from the parameter (nn/modules.py Params4bit); the default is 64."""
    for module in model.modules():
        if hasattr(module, "source_cls") and hasattr(module.weight, "blocksize"):
            module.weight.blocksize = block_size


def _from_checkpoint(scenario: Scenario, device: torch.device) -> Any:
    """The model through the real `from_pretrained`, from the scenario's local directory."""
    from transformers import AutoModelForCausalLM

    if scenario.quant.type.four_bit and scenario.quant.block_size != 64:
        raise UsageError(
            f"quant.block_size: {scenario.quant.block_size} cannot be loaded from a checkpoint",
            hint="BitsAndBytesConfig has no block size (it is 64); use load: random",
        )
    extra = {} if scenario.quant.type is QuantType.NONE else {"quantization_config": quantization_config(scenario)}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            scenario.model.path,
            dtype=getattr(torch, scenario.dtype),
            attn_implementation=attention_implementation(scenario.attention),
            device_map={"": device},
            local_files_only=True,
            **extra,
        )
    except (OSError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CannotRun(f"cannot load {scenario.model.path}: {reason}", hint="load: random needs no weights") from error
    model.config.use_cache = scenario.method is Method.INFERENCE
    return model
