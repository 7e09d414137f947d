"""Stacks: how a training loop treats memory. The same hyper-parameters can differ by more than a factor of two."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Upcast(StrEnum):
    """Which 16-bit base parameters the preparation casts to fp32."""

    ALL = "all"  # peft's prepare_model_for_kbit_training: everything that is not quantised
    NORMS = "norms"  # TRL casts embeddings and head back, only the norms stay fp32
    REST = "rest"  # axolotl casts norms, embeddings and head back: experts, routers and biases stay fp32
    NONE = "none"


class Outputs(StrEnum):
    """How long the loop holds the model's outputs (the logits)."""

    FREED = "freed"  # before backward
    HELD = "held"  # through backward and step
    HELD_NEXT = "held-next"  # also through the next forward, as a loop that rebinds the name does


class LossKernel(StrEnum):
    """What computes the loss from the hidden states."""

    TORCH = "torch"  # transformers' ForCausalLMLoss: fp32 logits, cross_entropy
    LIGER = "liger"  # fused linear cross entropy
    CHUNKED = "chunked"
    TILED = "tiled"  # TRL's head, which makes log-probabilities of tiles of logits and never all of them


class LayerKernel(StrEnum):
    """Operations of the decoder layers that Liger's kernels replace (`use_liger_kernel` of transformers' Trainer)."""

    ROPE = "rope"
    RMS_NORM = "rms_norm"
    MLP = "mlp"  # the activation times the other half, and mixtures of experts


#: Tokens whose logits exist at once with the chunked loss, which makes them again in backward (torchtune's
#: CEWithChunkedOutputLoss does not). TRL's chunked loss splits a sequence into a handful of chunks; 1,024 tokens of a
#: 128k vocabulary are 0.5 GiB in fp32.
CHUNK_TOKENS = 1024


class Stack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training loop's habits that change memory, all of them spelled out."""

    base: str
    """Whose loop runs: `hf-trainer` (transformers' Trainer), `trl` (TRL's SFTTrainer), `trl-dpo` (its DPOTrainer) or
    `script` (the articles')."""
    upcast: Upcast
    autocast: bool | str
    """False, or the dtype that autocast computes in: `bfloat16` or `float16`."""
    outputs: Outputs
    loss: LossKernel
    clip: bool
    """Whether gradients are clipped by their norm before the optimizer steps."""
    kernels: tuple[LayerKernel, ...] = ()
    """Which operations of the layers run Liger's kernels; its loss is `loss: liger`."""

    @property
    def trainer(self) -> bool:
        """Whether the loop is transformers' Trainer, or one built on it."""
        return self.base != "script"

    @property
    def trl(self) -> bool:
        """Whether the loop is one of TRL's trainers."""
        return self.base in ("trl", "trl-dpo")

    @property
    def prefers(self) -> bool:
        """Whether a sample is a pair of answers, of which one is preferred, and the loss compares with a reference."""
        return self.base == "trl-dpo"

    @property
    def sequences_per_sample(self) -> int:
        """Sequences that the model gets for each sample."""
        return 2 if self.prefers else 1

    def counted(self, batch: int) -> str:
        """A batch in words: `2`, or `2 pairs`."""
        if not self.prefers:
            return f"{batch}"
        return "1 pair" if batch == 1 else f"{batch} pairs"

    @property
    def balances(self) -> bool:
        """Whether mixtures of experts are asked for what balances them: by TRL's trainers, with their own head."""
        return self.trl and self.loss is LossKernel.TILED

    @property
    def liger(self) -> bool:
        """Whether any of Liger's kernels runs."""
        return bool(self.kernels) or self.loss is LossKernel.LIGER

    @property
    def casts_adapters(self) -> bool:
        """Whether the loop casts the adapters of a quantised model to bfloat16, after peft has cast them to fp32."""
        return self.trl


#: What each named stack does. `autocast: True` stands for the scenario's compute dtype until the scenario is resolved.
STACKS: Mapping[str, Stack] = {
    # transformers 5.17 trainer.py: autocast (bf16=True), compute_loss returns the loss alone, max_grad_norm=1.0;
    # peft's prepare_model_for_kbit_training is called by the recipe (and by TRL for quantised models).
    "hf-trainer": Stack(
        base="hf-trainer", upcast=Upcast.ALL, autocast=True, outputs=Outputs.FREED, loss=LossKernel.TORCH, clip=True
    ),
    # trl 1.16 sft_trainer.py: a Trainer that prepares no model for k-bit training, casts a quantised one's adapters to
    # bfloat16, and puts its own head on the model.
    "trl": Stack(
        base="trl", upcast=Upcast.NONE, autocast=True, outputs=Outputs.FREED, loss=LossKernel.TILED, clip=True
    ),
    # trl 1.16 dpo_trainer.py: the same of preference training; the reference is the model without its adapters.
    "trl-dpo": Stack(
        base="trl-dpo", upcast=Upcast.NONE, autocast=True, outputs=Outputs.FREED, loss=LossKernel.TILED, clip=True
    ),
    # `outputs = model(**batch); outputs.loss.backward(); optimizer.step()`, as tutorials print it.
    "script": Stack(
        base="script", upcast=Upcast.ALL, autocast=False, outputs=Outputs.HELD, loss=LossKernel.TORCH, clip=False
    ),
}
