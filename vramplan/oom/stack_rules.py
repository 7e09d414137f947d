"""What functions of the libraries ask memory for, and in which phase of a run they are called.

Names of transformers 5.17, bitsandbytes 0.50, peft 0.21, accelerate 1.15, torch 2.13 and unsloth 2026.10, and those
that their versions since 2023 had.
"""

import re
from dataclasses import dataclass

from vramplan.ledger import Component, Phase


@dataclass(frozen=True, slots=True)
class Rule:
    """Met by a stack frame in a function of these names, in a file, or on a line of code of this form."""

    functions: str = ""
    """Names with blanks between them."""
    inside: str = ""
    """Pattern that the functions' file must have, where the names alone say too little."""
    files: str = ""
    """Pattern of a file all of whose functions meet the rule."""
    code: str = ""
    """Pattern of the source line."""

    def meets(self, file: str, function: str, code: str) -> bool:
        """Whether a frame meets the rule; `file` with forward slashes."""
        if function in self.functions.split() and re.search(self.inside, file):
            return True
        return bool((self.files and re.search(self.files, file)) or (self.code and re.search(self.code, code)))


@dataclass(frozen=True, slots=True)
class Purpose:
    """What memory was for."""

    words: str
    component: Component | None
    """None where nothing that is known matches, or several would."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When in a run a stack was taken."""

    words: str
    phase: Phase | None
    """None for what is no phase of a scenario, or unknown."""
    whole_logits: bool = False
    """Whether the loss is transformers' own, of all logits at once."""


_LOSS = (
    "cross_entropy fixed_cross_entropy ForCausalLMLoss loss_function log_softmax nll_loss selective_log_softmax"
    " entropy_from_logits fused_linear_cross_entropy_forward fused_linear_cross_entropy_backward LigerForCausalLMLoss"
    " chunked_cross_entropy _chunk_loss"
)
_LOSS_FILES = r"loss_utils\.py$|unsloth/kernels/cross_entropy_loss\.py$"
_HEAD = r"lm_head\(|embed_out\(|logits\.float|logits = |shift_logits"
_LOAD = (
    "from_pretrained _load_pretrained_model _load_state_dict_into_meta_model _load_parameter_into_model"
    " _materialize_copy convert_and_load_state_dict_in_model create_quantized_param"
)
_MODULE = r"torch/nn/modules/module\.py$"
_LORA = r"peft/tuners/lora/"

#: What shows that a model is being quantised while it is loaded.
QUANTISED = Purpose("quantised weights", Component.WEIGHTS)

#: Each frame from the innermost outwards is held against all of these in order.
PURPOSES: tuple[tuple[Rule, Purpose], ...] = (
    (
        Rule("caching_allocator_warmup"),
        Purpose("transformers' warm-up block, as large as the model", Component.WORKSPACE),
    ),
    (
        Rule("dequantize_4bit dequantize_blockwise dequantize_fp4 dequantize_nf4 int8_vectorwise_dequant"),
        Purpose("a quantised weight matrix, dequantised for its product", Component.WORKSPACE),
    ),
    (
        Rule("quantize_4bit quantize_fp4 quantize_nf4 int8_vectorwise_quant"),
        QUANTISED,
    ),
    (
        Rule("quantize_blockwise create_dynamic_map create_normal_map get_4bit_type"),
        Purpose("constants of quantised weights", Component.QUANT_STATE),
    ),
    (
        Rule("get_state_buffer init_state _init_group", files=r"bitsandbytes/optim/|torch/optim/|apex/optimizers/"),
        Purpose("states and temporaries of the optimizer", Component.OPTIMIZER),
    ),
    (
        Rule("clip_grad_norm_ clip_grad_norm _clip_grad_norm _get_total_norm clip_grads_with_norm_"),
        Purpose("norms of the gradients", Component.WORKSPACE),
    ),
    (
        Rule("convert_to_fp32 _convert_to_fp32"),
        Purpose("logits cast to fp32 by accelerate", Component.LOGITS),
    ),
    (
        Rule(_LOSS, files=_LOSS_FILES, code=_HEAD),
        Purpose("logits, their fp32 copy, or the loss on them", Component.LOGITS),
    ),
    (
        Rule("nested_concat torch_pad_and_concatenate", inside=r"trainer_pt_utils\.py$"),
        Purpose("evaluation's gathered logits and labels", Component.LOGITS),
    ),
    (
        Rule("prepare_model_for_kbit_training"),
        Purpose("fp32 copies of what is not quantised", Component.UNQUANTIZED),
    ),
    (Rule("get_peft_model inject_adapter"), Purpose("adapters", Component.ADAPTERS)),
    (
        Rule("__init__ update_layer reset_lora_parameters _move_adapter_to_device_of_base_layer", inside=_LORA),
        Purpose("adapters", Component.ADAPTERS),
    ),
    (
        Rule("merge_and_unload get_delta_weight merge", inside=r"peft/"),
        Purpose("a merged matrix", Component.WORKSPACE),
    ),
    (
        Rule("scaled_dot_product_attention sdpa_attention_forward eager_attention_forward repeat_kv flash_attn_func"
             " _flash_attention_forward flash_attention_forward flash_attn_varlen_func"),
        Purpose("attention", Component.ACTIVATIONS),
    ),
    (
        Rule("matmul_4bit gemm_4bit gemv_4bit matmul int8_scaled_mm", inside=r"bitsandbytes/"),
        Purpose("the output of a quantised layer", Component.ACTIVATIONS),
    ),
    (Rule("forward", inside=_LORA), Purpose("an adapter's product", Component.ACTIVATIONS)),
    (Rule(files=r"cache_utils\.py$"), Purpose("keys and values", Component.CACHE)),
    (
        Rule(f"{_LOAD} load_state_dict", files=r"core_model_loading\.py$"),
        Purpose("the model's weights", Component.WEIGHTS),
    ),
    (
        Rule("to cuda _apply convert", inside=_MODULE),
        Purpose("the model's weights, moved or cast", Component.WEIGHTS),
    ),
)  # fmt: skip

#: What a frame says when no frame of its stack meets any rule above.
GENERAL_PURPOSES: tuple[tuple[Rule, Purpose], ...] = (
    (
        Rule(files=r"modeling_\w+\.py$|torch/nn/|torch/utils/checkpoint\.py$"),
        Purpose("activations", Component.ACTIVATIONS),
    ),
    (Rule(files=r"torch/autograd/"), Purpose("gradients, and temporaries of backward", None)),
)

#: The first of these that any frame of a stack meets says when it was taken.
MOMENTS: tuple[tuple[Rule, Moment], ...] = (
    (Rule("merge_and_unload"), Moment("merging the adapters", Phase.MERGE)),
    (
        Rule(f"{_LOAD} prepare_model_for_kbit_training get_peft_model inject_adapter"),
        Moment("loading", Phase.LOAD),
    ),
    (Rule("evaluate evaluation_loop prediction_step prediction_loop"), Moment("evaluation", Phase.EVALUATION)),
    (Rule("generate", files=r"generation/utils\.py$"), Moment("generation", None)),
    (
        Rule("backward _engine_run_backward", inside=r"torch/|accelerate/", code=r"\.backward\("),
        Moment("backward", Phase.BACKWARD),
    ),
    (
        Rule(
            "clip_grad_norm_ clip_grad_norm _clip_grad_norm",
            files=r"torch/optim/|bitsandbytes/optim/|accelerate/optimizer\.py$",
            code=r"optimizer\.step\(",
        ),
        Moment("the optimizer's step", Phase.STEP),
    ),
    (
        Rule("ForCausalLMLoss fixed_cross_entropy", inside=r"transformers/loss/"),
        Moment("the loss", Phase.LOSS, whole_logits=True),
    ),
    (
        Rule(f"{_LOSS} convert_to_fp32 _convert_to_fp32", files=_LOSS_FILES, code=_HEAD),
        Moment("the loss", Phase.LOSS),
    ),
    (Rule("save_model _save_checkpoint save_pretrained"), Moment("saving", Phase.SAVE)),
    (Rule("training_step compute_loss forward _call_impl"), Moment("forward", Phase.FORWARD)),
    (Rule("to cuda _apply", inside=_MODULE), Moment("loading", Phase.LOAD)),
)
