"""Losses other than the model's own: computed from the hidden states, so that the logits never exist at once."""

from importlib import import_module
from importlib.metadata import version
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vramplan.errors import CannotRun, UsageError
from vramplan.stacks import CHUNK_TOKENS, LossKernel, Stack

#: Configuration keys that change logits after the head in ways that are not written down here.
_UNSUPPORTED = ("logit_scale", "mup_width_multiplier")


def install_loss(model: Any, stack: Stack, micro_batches: int = 1) -> None:
    """Give the causal language model the loss kernel of the stack; `torch` is the model's own and changes nothing.

    `micro_batches` are those of a step, over which TRL shares what it adds for a mixture of experts. Liger's comes with
    its other kernels (`vramplan.training.liger`). What TRL's trainers put on themselves, with outputs for their metrics
    (sft_trainer.py, dpo_trainer.py), is put on here for our own loop.
    """
    if stack.loss is LossKernel.CHUNKED:
        _install_chunked(model)
    elif stack.prefers:
        trl_trainer().utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    elif stack.loss is LossKernel.TILED:
        trl_trainer().utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        _take_fused_head(model, balancing_weight(model) / micro_batches if stack.balances else 0.0)


def balancing_weight(model: Any) -> float:
    """What the loss that balances a mixture of experts is multiplied with by TRL's trainers (sft_trainer.py,
    dpo_trainer.py); 0 where they ask for none."""
    config = model.config.get_text_config()
    known = hasattr(config, "output_router_logits")
    return float(getattr(config, "router_aux_loss_coef", None) or 0.0) if known else 0.0


def _take_fused_head(model: Any, weight: float) -> None:
    """A forward that takes TRL's head as its SFTTrainer does, with so much of the loss that balances experts."""
    fused = model.forward
    asked = {"output_router_logits": True} if weight else {}

    def forward(self: Any, labels: Tensor, num_items_in_batch: Tensor | None = None, **inputs: Any) -> Any:
        """`SFTTrainer.compute_loss` (sft_trainer.py): the model's outputs, whose loss is that of all its tokens."""
        outputs = fused(**inputs, **asked, labels=labels, fused_lm_head=True)
        tokens = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        outputs["loss"] = (-outputs.log_probs).sum() / tokens.clamp(min=1)
        if weight:
            outputs["loss"] = outputs["loss"] + weight * outputs.aux_loss
        return outputs

    model.forward = MethodType(forward, model)


def trl_trainer() -> Any:
    """The package `trl.trainer`; CannotRun where there is none, or one without the head."""
    try:
        utils = import_module("trl.trainer.utils")
    except ImportError as error:
        raise CannotRun(
            "TRL's stacks and stack.loss: tiled need the package trl", hint="pip install 'vramplan[measure,trl]'"
        ) from error
    if not hasattr(utils, "add_fused_lm_head"):
        raise CannotRun(f"trl {version('trl')} has no fused head", hint="pip install 'trl>=1.15'")
    return import_module("trl.trainer")


def _install_chunked(model: Any) -> None:
    config = model.config.get_text_config()
    for key in _UNSUPPORTED:
        if getattr(config, key, None) is not None:
            raise UsageError(
                f"stack.loss: chunked does not know '{key}' of {config.model_type}", hint="use loss: torch"
            )
    model.forward = MethodType(_chunked_forward, model)


def _chunked_forward(self: Any, labels: Tensor, num_items_in_batch: Tensor | None = None, **inputs: Any) -> Any:
    """The causal language model's forward with the loss over chunks of tokens; returns no logits.

    Each chunk is checkpointed (non-reentrant): only the hidden states live until backward, which makes each chunk's
    logits again.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    hidden = getattr(self, self.base_model_prefix)(**inputs)[0]
    targets = nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)
    flat = hidden.reshape(-1, hidden.shape[-1])
    total = flat.new_zeros((), dtype=torch.float32)
    for tokens, wanted in zip(torch.split(flat, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
        total = total + checkpoint(_chunk_loss, self, tokens, wanted, use_reentrant=False)
    count = (targets != -100).sum() if num_items_in_batch is None else num_items_in_batch
    return CausalLMOutputWithPast(loss=total / count)


def _chunk_loss(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of one chunk in fp32, after what the family does to its logits."""
    config = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden)
    scaling = getattr(config, "logits_scaling", None)  # Granite
    if scaling is not None:
        logits = logits / scaling
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return nn.functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum")
