"""Claims about the size of models as they are loaded."""

from collections.abc import Sequence

from vramplan.claims.claim import GB, Claim, Find, Finding, Output, Verdict, all_of, judged, rounds_to
from vramplan.claims.read import base, gb, kept


def _half(claimed: float) -> Find:
    """16 bits for every parameter."""

    def find(outputs: Sequence[Output]) -> Finding:
        total = outputs[0]["parameters"]["total"]
        arithmetic = f"{total:,} parameters x 2 B = {gb(total * 2)} ({total * 2 / 2**30:.2f} GiB)"
        return judged(claimed, total * 2, arithmetic)

    return find


def _loading_13b(outputs: Sequence[Output]) -> Finding:
    single, double = ((p["phases"]["load"]["allocated"], p["phases"]["load"]["reserved"]) for p in outputs)
    saved = single[0] - double[0]
    arithmetic = (
        f"prepared for training, allocated {gb(single[0])} and {gb(double[0])}, reserved {gb(single[1])} and "
        f"{gb(double[1])} (a card shows that and its context of 0.1-0.5 GB); the difference is {gb(saved)}"
    )
    inside = single[0] <= 9.1 * GB <= single[1] + 0.5 * GB and double[0] <= 8.5 * GB <= double[1] + 0.5 * GB
    return Finding(all_of(inside and rounds_to(0.6 * GB, saved)), arithmetic)


def _mistral(outputs: Sequence[Output]) -> Finding:
    four, sixteen = outputs
    arithmetic = f"4-bit {gb(base(four))}, 16-bit {gb(base(sixteen))}"
    return Finding(all_of(base(four) < 5 * GB, rounds_to(14, base(sixteen) / GB)), arithmetic)


def _upcast(outputs: Sequence[Output]) -> Finding:
    costs = []
    for cast, left in zip(outputs[::2], outputs[1::2], strict=True):
        upcast, plain = (kept(prediction, "unquantized") for prediction in (cast, left))
        costs.append((cast["scenario"]["model"], upcast - plain))
    arithmetic = "; ".join(f"{name}: {cost / 2**20:,.0f} MiB more" for name, cost in costs)
    return Finding(all_of(all(cost > 0 for _, cost in costs)), arithmetic)


def _merge(outputs: Sequence[Output]) -> Finding:
    sixteen, four = (p["peak"]["allocated"] for p in outputs)
    arithmetic = f"merging into 16 bits peaks at {gb(sixteen)}, into the 4-bit weights at {gb(four)}"
    return Finding(all_of(sixteen > 13 * GB, four > 13 * GB), arithmetic)


CLAIMS = (
    Claim(
        id="65b-fp16",
        said="a 65B in fp16 is 130 GB",
        commands=("vramplan predict llama-1-65b --method inference --quant none --dtype float16",),
        find=_half(130 * GB),
        verdict=Verdict.CONFIRMED,
        because="in decimal gigabytes; 122 GiB",
    ),
    Claim(
        id="7b-16-bits",
        said="a 7B in 16 bits is 14 GB",
        commands=("vramplan predict llama-2-7b --method inference --quant none",),
        find=_half(14 * GB),
        verdict=Verdict.CONFIRMED,
        because="rounded up: Llama-2-7B has 6.74 billion parameters, 13.5 GB",
    ),
    Claim(
        id="13b-loading",
        said="loading a 13B takes 9.1 GB without double quantisation and 8.5 GB with it",
        commands=(
            "vramplan predict llama-2-13b --no-double-quant",
            "vramplan predict llama-2-13b",
        ),
        find=_loading_13b,
        verdict=Verdict.CONFIRMED,
        because="between what is allocated and what the card shows once the model is prepared for training, and the "
        "difference is right",
        traced=True,
    ),
    Claim(
        id="mistral-loading",
        said="Mistral-7B loads in under 5 GB instead of 14",
        commands=(
            "vramplan predict mistral-7b-v0.1 --method inference",
            "vramplan predict mistral-7b-v0.1 --method inference --quant none",
        ),
        find=_mistral,
        verdict=Verdict.CONFIRMED,
        because="what the model keeps; preparing it for training adds half a gigabyte of fp32 embeddings and head",
        traced=True,
    ),
    Claim(
        id="upcast",
        said="preparing for k-bit training casts norms and head to fp32",
        commands=(
            "vramplan predict llama-2-7b",
            "vramplan predict llama-2-7b --upcast none",
            "vramplan predict llama-3-8b",
            "vramplan predict llama-3-8b --upcast none",
        ),
        find=_upcast,
        verdict=Verdict.CONFIRMED,
        because="and the embeddings too; with a large vocabulary that is the most expensive line of the recipe, and it "
        "makes every layer's input fp32",
        traced=True,
    ),
    Claim(
        id="merge",
        said="merging needs the full 16-bit model in memory",
        commands=(
            "vramplan predict llama-2-7b --method merge --quant none",
            "vramplan predict llama-2-7b --method merge --quant nf4",
        ),
        find=_merge,
        verdict=Verdict.DEPENDS,
        because="to save a 16-bit model, yes, on the GPU or in the computer's memory; peft also merges into the 4-bit "
        "weights, which needs a fraction and rounds the result to 4 bits again",
        measured="both on the CPU (reports/records/cpu)",
    ),
)
