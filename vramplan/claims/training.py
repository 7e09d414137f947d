"""Claims about training runs: what fits, adapters, optimizers."""

from collections.abc import Sequence

from vramplan.claims.claim import MB, Claim, Finding, Output, Verdict, all_of, rounds_to
from vramplan.claims.read import base, choice, gb, kept, mb

_65B = "vramplan predict llama-1-65b-one-card"


def _fits(outputs: Sequence[Output]) -> Finding:
    verdicts = [prediction["verdict"]["fits"] for prediction in outputs]
    parts = [f"{gb(p['peak']['device'])} of {gb(p['verdict']['budget'])}: {p['verdict']['word']}" for p in outputs]
    return Finding(all_of(*verdicts), "; ".join(parts))


def _does_not_fit(outputs: Sequence[Output]) -> Finding:
    """The first, without double quantisation, must not fit, and the second must."""
    single, double = (prediction["verdict"]["fits"] for prediction in outputs)
    return Finding(all_of(not single and double), _fits(outputs).arithmetic)


def _rank_64(outputs: Sequence[Output]) -> Finding:
    rows = [choice(outputs[0], name, 64) for name in ("q, v", "attention", "all-linear")]
    parts = [f"{row['name']}: {row['parameters']:,} parameters, AdamW {mb(row['optimizer'])}" for row in rows]
    right = [rounds_to(33e6, row["parameters"]) and rounds_to(264 * MB, row["optimizer"]) for row in rows]
    return Finding(all_of(*right), "; ".join(parts))


def _adamw(outputs: Sequence[Output]) -> Finding:
    states = [kept(prediction, "optimizer") for prediction in outputs]
    times = [held / base(prediction) for held, prediction in zip(states, outputs, strict=True)]
    arithmetic = (
        f"full fine-tuning in bfloat16: {gb(states[0])} of states, {times[0]:.1f} times the model; "
        f"QLoRA: {gb(states[1])}, {times[1]:.2f} times"
    )
    return Finding(all_of(*(2 <= round(share, 1) <= 8 for share in times)), arithmetic)


def _adapter_dtype(outputs: Sequence[Output]) -> Finding:
    size, trained = kept(outputs[0], "adapters"), outputs[0]["parameters"]["trainable"]
    arithmetic = f"{size:,} B / {trained:,} parameters = {size // trained} B each"
    return Finding(all_of(size == 2 * trained), arithmetic)


def _adapter_size(outputs: Sequence[Output]) -> Finding:
    rows = {row["name"]: row["shape"] for row in outputs[0]["weights"] if row["adapted"]}
    equal = [out == into for out, into in rows.values()]
    parts = [f"{name} {out} x {into}: r x {out + into:,}" for name, (out, into) in rows.items()]
    return Finding(all_of(*equal), "; ".join(parts))


def _paged(outputs: Sequence[Output]) -> Finding:
    small, large = (output["paging"] for output in outputs[:2])
    kept = [output["phases"]["backward"]["allocated"] for output in outputs[2:]]
    arithmetic = (
        f"rank 8: {small['managed'] / 2**20:.0f} MiB of states are paged and {small['on_card'] / 2**20:.0f} never are; "
        f"rank 64: {large['managed'] / 2**20:.0f} MiB, of a run that allocates {gb(kept[0])}"
    )
    return Finding(all_of(large["managed"] >= kept[0]), arithmetic)


def _unmeasured(_: Sequence[Output]) -> Finding:
    return Finding(Verdict.OPEN, "a time, not a size: only a GPU can tell")


CLAIMS = (
    Claim(
        id="65b-48gb",
        said="a 65B fine-tune fits one 48 GB GPU",
        commands=(_65B,),
        find=_fits,
        verdict=Verdict.CONFIRMED,
        because="one sequence of 512 tokens at a time, with double quantisation, checkpointing and a paged optimizer",
        traced=True,
    ),
    Claim(
        id="7b-24gb",
        said="a 7B QLoRA run fits 24 GB",
        commands=("vramplan predict llama-2-7b-guanaco",),
        find=_fits,
        verdict=Verdict.CONFIRMED,
        because="with room to spare at the articles' settings (4 x 512 tokens)",
        traced=True,
    ),
    Claim(
        id="13b-3090",
        said="a 13B does not fit a 3090 without double quantisation, and fits with it",
        commands=(
            "vramplan predict claims/llama-2-13b-rtx3090 --no-double-quant",
            "vramplan predict claims/llama-2-13b-rtx3090",
        ),
        find=_does_not_fit,
        verdict=Verdict.CORRECTED,
        because="at the articles' settings both fit with more than 8 GB to spare; the 0.6 GB that double quantisation "
        "saves decide only at longer sequences or larger batches",
        traced=True,
    ),
    Claim(
        id="rank-64",
        said="r=64 on a 7B is around 33 M parameters and 264 MB of AdamW states",
        commands=("vramplan inspect llama-2-7b --rank 64",),
        find=_rank_64,
        verdict=Verdict.DEPENDS,
        because="true of q and v; the same article's script adapts q, k, v and o, which is twice as much, and "
        "all-linear is five times",
    ),
    Claim(
        id="adamw",
        said="AdamW needs two to eight times the model's size",
        commands=(
            "vramplan predict llama-2-7b --method full --quant none",
            "vramplan predict llama-2-7b",
        ),
        find=_adamw,
        verdict=Verdict.DEPENDS,
        because="on what is trained: two moments for every trained parameter. Full fine-tuning is inside the range (4 "
        "times with fp32 states over 16-bit weights), adapters are far below it",
    ),
    Claim(
        id="adapters-bfloat16",
        said="adapters are always in bfloat16",
        commands=("vramplan predict llama-2-7b",),
        find=_adapter_dtype,
        verdict=Verdict.CORRECTED,
        because="peft makes them fp32 over any 4-bit base (autocast_adapter_dtype)",
        measured="`adapters` is equal to the byte in every CPU record (reports/records/cpu)",
        traced=True,
    ),
    Claim(
        id="adapter-2dr",
        said="an adapter of rank r has 2dr parameters",
        commands=("vramplan inspect llama-2-7b",),
        find=_adapter_size,
        verdict=Verdict.DEPENDS,
        because="of square matrices; in general it is r(d_in + d_out)",
    ),
    Claim(
        id="paged-oom",
        said="paged optimizers prevent every out of memory",
        commands=(
            "vramplan inspect llama-2-7b --rank 8 --optimizer paged_adamw_8bit",
            "vramplan inspect llama-2-7b --rank 64 --optimizer paged_adamw_8bit",
            "vramplan predict llama-2-7b --rank 64 --optimizer paged_adamw_8bit",
        ),
        find=_paged,
        verdict=Verdict.CORRECTED,
        because="only states of tensors with 100,000 elements and more are paged; activations, logits and weights "
        "never are, and they are what runs out",
    ),
    Claim(
        id="double-quant-speed",
        said="double quantisation's slowdown is negligible",
        commands=(),
        find=_unmeasured,
        verdict=Verdict.OPEN,
        because="scenarios/gpu holds the pairs that will tell",
    ),
    Claim(
        id="inference-speed",
        said="4-bit inference is slower than 16-bit",
        commands=(),
        find=_unmeasured,
        verdict=Verdict.OPEN,
        because="a measured inference scenario reports its decode times",
    ),
)
