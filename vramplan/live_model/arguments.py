"""What transformers' TrainingArguments (or TRL's SFTConfig or DPOConfig, subclasses) say, as keys of a scenario."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vramplan.errors import UsageError
from vramplan.importers.hf import PACKED_APART
from vramplan.importers.vocabulary.trl import TRL_UNMODELLED
from vramplan.live_model.base import setting
from vramplan.predict.liger import LIGER, trainers_choice
from vramplan.stacks import LayerKernel

if TYPE_CHECKING:
    from transformers import TrainingArguments

#: Options that are warned of where a file says them, and not here: TrainingArguments with a backend or a mode of
#: `torch_compile` have `torch_compile` set too (transformers 5.17 training_args.py); the device is the prediction's.
_SAID_OTHERWISE = ("torch_compile_backend", "torch_compile_mode", "use_cpu")
#: Options that change memory and have no key of a scenario -> what they do.
_NOT_MODELLED = {name: f"it {what}" for name, what in TRL_UNMODELLED.items() if name not in _SAID_OTHERWISE} | (
    dict.fromkeys(("deepspeed", "fsdp"), "one GPU without sharding is predicted")
)

#: TRL's arguments that are modelled -> whose loop they are for.
_TRL = {"SFTConfig": "trl", "DPOConfig": "trl-dpo"}


def check_arguments(args: object) -> None:
    """UsageError for anything but TrainingArguments, and for those of a TRL trainer whose loop is another."""
    if not hasattr(args, "per_device_train_batch_size"):
        raise UsageError(
            f"training_args is a {type(args).__name__}, not TrainingArguments",
            hint="give what the Trainer gets: transformers' TrainingArguments, TRL's SFTConfig or DPOConfig",
        )
    found = _trls(args)
    if found is not None and found not in _TRL:
        raise UsageError(
            f"training_args is TRL's {found}, whose training is not modelled",
            hint=f"what is predicted: TrainingArguments, {', '.join(_TRL)}; explain-oom reads logs of any trainer",
        )


def keys_of(args: "TrainingArguments", model: Any) -> dict[str, Any]:
    """The scenario's keys that the arguments decide: optimizer, accumulation, evaluation, autocast, clipping, and the
    loss, which a trainer may have patched into the base `model`."""
    fused = has_fused_head(model) or _will_fuse_head(args)
    ligers, kernels = _liger(args, model)
    return {
        "grad_accum": int(args.gradient_accumulation_steps),
        "optimizer": setting(args.optim),
        "stack": {
            "base": _TRL.get(_trls(args) or "", "trl") if fused else "hf-trainer",
            # accelerate 1.15 `prepare_model`: mixed precision is autocast around the model's forward
            "autocast": "bfloat16" if args.bf16 else "float16" if args.fp16 else False,
            "outputs": "freed",
            "loss": "tiled" if fused else "liger" if ligers else _loss(args),
            "clip": bool(args.max_grad_norm and args.max_grad_norm > 0),
            "kernels": [kernel.value for kernel in kernels],
        },
        **({"eval": _evaluation(args)} if _evaluates(args) else {}),
    }


def _evaluates(args: "TrainingArguments") -> bool:
    return setting(args.eval_strategy) != "no"


def _evaluation(args: "TrainingArguments") -> dict[str, int]:
    """The scenario's `eval`. Arguments do not tell whether the Trainer has `compute_metrics`, without which it looks at
    losses alone: whoever says after how many steps logits go to the host has."""
    gathered = 0 if args.prediction_loss_only else args.eval_accumulation_steps or 0
    return {"batch": int(args.per_device_eval_batch_size), "accumulate": int(gathered)}


def _loss(args: Any) -> str:
    """The loss of a model that keeps its head: older releases of TRL have one in chunks."""
    return "chunked" if str(getattr(args, "loss_type", "") or "").startswith("chunked") else "torch"


def _liger(args: Any, model: Any) -> tuple[bool, tuple[LayerKernel, ...]]:
    """Whether the Trainer patches Liger's loss into the model when training begins, and which of its kernels."""
    if not getattr(args, "use_liger_kernel", False):
        return False, ()
    return trainers_choice(str(model.config.model_type), dict(getattr(args, "liger_kernel_config", None) or {}))


def has_fused_head(model: Any) -> bool:
    """Whether TRL has replaced the model's forward (trl 1.16 trainer/utils.py `add_fused_lm_head`)."""
    forward = vars(model).get("forward")
    code = getattr(getattr(forward, "__func__", forward), "__code__", None)
    return code is not None and "fused_lm_head" in code.co_varnames


def _will_fuse_head(args: Any) -> bool:
    """Whether the arguments are for a TRL whose trainer will replace the model's forward."""
    if _trls(args) is None:
        return False
    from importlib import import_module

    return hasattr(import_module("trl.trainer.utils"), "add_fused_lm_head")


def _trls(args: object) -> str | None:
    """Which of TRL's classes the arguments are of, the most special one; None where they are not TRL's."""
    return next((base.__name__ for base in type(args).__mro__ if base.__module__.startswith("trl.")), None)


def batch_of(args: "TrainingArguments", batch: int | None) -> int:
    """The micro-batch: as asked for, else the arguments'."""
    return int(args.per_device_train_batch_size) if batch is None else batch


def seq_of(args: "TrainingArguments", seq: int | None) -> int:
    """Tokens per sequence: as asked for, else `max_length` of TRL's arguments; a UsageError where nothing says it."""
    found = seq if seq is not None else length_of(args)
    if found is None:
        raise UsageError(
            "nothing says how long a sample is", hint="give seq=2048, the tokens of the longest sample of a batch"
        )
    return found


def length_of(args: "TrainingArguments") -> int | None:
    """Tokens to which TRL's trainers cut a sample; None where nothing says it."""
    found = getattr(args, "max_length", None) or getattr(args, "max_seq_length", None)
    return None if found is None else int(found)


def checkpointing_of(args: "TrainingArguments", model: Any) -> bool | str:
    """The scenario's `checkpointing`: the arguments switch it on when training begins; else as the model has it."""
    if args.gradient_checkpointing:
        return _kind(dict(args.gradient_checkpointing_kwargs or {}).get("use_reentrant"))
    if not getattr(model, "is_gradient_checkpointing", False):
        return False
    functions = (getattr(module, "_gradient_checkpointing_func", None) for module in model.modules())
    kept = next((function for function in functions if function is not None), None)
    return _kind(getattr(kept, "keywords", {}).get("use_reentrant"))


def _kind(reentrant: object) -> bool | str:
    """transformers 5.17 `gradient_checkpointing_enable`: non-reentrant where nothing is said."""
    return "reentrant" if reentrant else True


def warnings_of(args: "TrainingArguments", model: Any, attention: str) -> Iterator[str]:
    """What the arguments ask for that the prediction, under the scenario's `attention`, leaves out."""
    if getattr(args, "use_liger_kernel", False) and model.config.model_type not in LIGER:
        yield f"use_liger_kernel: what Liger replaces in {model.config.model_type}, if anything, is not modelled"
    if _trls(args) == "DPOConfig" and not (has_fused_head(model) or _will_fuse_head(args)):
        yield "this TRL has no fused head: preference training is predicted as the Trainer's, of single samples"
    if getattr(args, "router_aux_loss_coef", None) == 0:
        yield "router_aux_loss_coef=0: a mixture's router scores are predicted to be kept all the same"
    if getattr(args, "packing", False) and attention != "flash_attention_2":
        yield f"packing: {PACKED_APART}"
    if _evaluates(args) and not (args.prediction_loss_only or args.eval_accumulation_steps):
        yield (
            "evaluation is predicted to look at losses alone, as without compute_metrics (prediction_loss_only=True"
            " says so; with metrics, eval_accumulation_steps says how many steps' logits stay on the card)"
        )
    for name, what in _NOT_MODELLED.items():
        if value := getattr(args, name, None):
            yield f"training_args.{name}={value!r} is not modelled: {what}"
    if getattr(args, "world_size", 1) > 1:
        yield f"{args.world_size} processes: one GPU with a whole model is predicted, without buckets for gradients"
