"""Which of TRL's trainers a file is for, and what it says of that trainer's loss (trl 1.16.0)."""

from collections.abc import Sequence

from vramplan.importers.source import Source
from vramplan.importers.vocabulary.trl import DPO_ONLY, SFT_ONLY

SFT = "trl 1.16.0 trainer/sft_trainer.py"
DPO = "trl 1.16.0 trainer/dpo_trainer.py"
_HEAD = "trl 1.16.0 trainer/utils.py add_fused_lm_head: logits in tiles, made again"
_SFT_LOSSES = ("nll", "chunked_nll", "dft")
#: trainer/dpo_trainer.py `_compute_loss`.
_DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)


def read_trainer(source: Source) -> str:
    """Set the stack's `base` and `loss`; the file of TRL's that says them."""
    losses = source.names("loss_type") or []
    told = _told(source, losses)
    if told:
        _read_dpo(source, told, losses)
    else:
        _read_sft(source, losses)
    source.take("loss_type", "stack.loss", "tiled", _HEAD)
    if source.number("router_aux_loss_coef") == 0:
        source.warn("router_aux_loss_coef: 0: a mixture's router scores are predicted to be kept all the same")
    return DPO if told else SFT


def _told(source: Source, losses: Sequence[str]) -> str:
    """The key that tells of DPOTrainer; empty where none does."""
    keys = [key for key in sorted(DPO_ONLY) if source.has(key)]
    if losses and set(losses) <= set(_DPO_LOSSES):
        keys.append("loss_type")
    return keys[0] if keys else ""


def _read_dpo(source: Source, told: str, losses: Sequence[str]) -> None:
    others = " (KTO, GRPO and RLOO have it too)" if told == "beta" else ""
    source.assume("stack.base", "trl-dpo", f"{told} is DPOTrainer's{others}, {DPO}; batches are of pairs")
    if not set(losses) <= set(_DPO_LOSSES):
        source.refuse("loss_type", f"beside {told} is no loss of DPOTrainer", hint=", ".join(_DPO_LOSSES))
    for key in sorted(SFT_ONLY - {"max_seq_length"}):
        if source.given(key) is not None:
            source.refuse(key, f"is of SFTTrainer, and {told} of DPOTrainer", hint=f"remove {key} or {told}")
    if source.flag("sync_ref_model"):
        source.refuse("sync_ref_model", "keeps a second model as the reference", hint="leave it out")
    if source.flag("precompute_ref_log_probs"):
        source.warn("precompute_ref_log_probs: the reference's pass is predicted in every step all the same")
    if source.flag("disable_dropout") is False:
        source.warn("disable_dropout: false: what dropout keeps is not in the prediction")
    source.ignore("padding_free", "DPOTrainer switches it off")


def _read_sft(source: Source, losses: Sequence[str]) -> None:
    if not set(losses) <= set(_SFT_LOSSES) or len(losses) > 1:
        source.refuse("loss_type", "is no loss of SFTTrainer", hint=", ".join(_SFT_LOSSES))
    told = losses or any(source.has(key) for key in SFT_ONLY)
    other = "SFTTrainer (trl sft): no key says which trainer; for trl dpo --set stack.base=trl-dpo"
    source.assume("stack.base", "trl", SFT if told else other)
