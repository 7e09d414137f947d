"""Claims about block constants and double quantisation."""

from collections.abc import Sequence

from vramplan.claims.claim import GB, MB, Claim, Find, Finding, Output, Verdict, all_of, judged, rounds_to
from vramplan.claims.read import gb, kept, mb, model

_FORMATS = "vramplan quant --quant-type nf4 --block-size 64"


def _bits(outputs: Sequence[Output], *, double: bool) -> float:
    found: float = next(f["bits_per_parameter"]["total"] for f in outputs[0]["formats"] if f["double"] is double)
    return found


def _both(outputs: Sequence[Output]) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by part of the model without and with double quantisation."""
    return model(outputs[0], double=False), model(outputs[0], double=True)


def _saved_bits(claimed: float) -> Find:
    def find(outputs: Sequence[Output]) -> Finding:
        single, double = _bits(outputs, double=False), _bits(outputs, double=True)
        arithmetic = (
            f"without: 4 + 32/64 = {single:.3f} bits; with: 4 + 8/64 + 32/(64 x 256) = {double:.3f}; "
            f"saved {single - double:.3f}"
        )
        return judged(claimed, single - double, arithmetic)

    return find


def _saved_bytes(claimed: float) -> Find:
    def find(outputs: Sequence[Output]) -> Finding:
        single, double = _both(outputs)
        saved = single["matrices"] - double["matrices"]
        parameters = single["packed"] * 2
        arithmetic = (
            f"{parameters:,} quantised parameters: constants {mb(single['matrices'] - single['packed'])} without, "
            f"{mb(double['matrices'] - double['packed'])} with; saved {mb(saved)}"
        )
        return judged(claimed, saved, arithmetic)

    return find


def _constants_7b(outputs: Sequence[Output]) -> Finding:
    single, double = _both(outputs)
    blocks, groups = single["first"] // 4, double["second"] // 4
    arithmetic = (
        f"{single['packed'] * 2:,} / 64 = {blocks:,} constants x 4 B = {mb(single['first'])}; with double "
        f"quantisation {blocks:,} x 1 B + {groups:,} x 4 B = {mb(double['first'] + double['second'])}"
    )
    right = (
        rounds_to(109.4e6, blocks),
        rounds_to(437.5 * MB, single["first"]),
        rounds_to(111 * MB, double["first"] + double["second"]),
        rounds_to(427e3, groups),
    )
    return Finding(all_of(*right), arithmetic)


def _constants_65b(outputs: Sequence[Output]) -> Finding:
    single, double = _both(outputs)
    arithmetic = (
        f"{single['packed'] * 2:,} / 64 x 4 B = {gb(single['first'])}; "
        f"with double quantisation {gb(double['first'] + double['second'])}"
    )
    return Finding(all_of(2 * GB <= single["first"] < 10 * GB), arithmetic)


def _block(outputs: Sequence[Output]) -> Finding:
    small = _bits(outputs, double=False) * 64 / 8
    shrunk = 1 - small / 256
    arithmetic = f"64 x 4 B = 256 B become 64 x 4/8 B + 4 B = {small:.0f} B: {shrunk:.2%} less"
    return Finding(all_of(round(shrunk * 100, 2) == 85.94), arithmetic)


def _by_four(outputs: Sequence[Output]) -> Finding:
    half, quarter = outputs
    bits = _bits([quarter], double=True)
    linear = 16 / bits
    whole = kept(half, "weights", "unquantized") / model(quarter, double=True)["model"]
    arithmetic = (
        f"quantised matrices 16 / {bits:.3f} = {linear:.2f} times against 16 bits and {2 * linear:.2f} against 32; the "
        f"whole model, whose embeddings and head stay 16-bit, {whole:.2f} and {2 * whole:.2f} times"
    )
    return Finding(all_of(rounds_to(4, linear), rounds_to(4, whole)), arithmetic)


def _levels(outputs: Sequence[Output]) -> Finding:
    levels = next(f["levels"] for f in outputs[0]["formats"] if f["format"] == "nf4")
    symmetric = all(-level in levels for level in levels)
    below, above = sum(level < 0 for level in levels), sum(level > 0 for level in levels)
    listed = ", ".join(f"{level:.4f}" for level in levels)
    arithmetic = f"{len(levels)} levels: {below} below zero, zero itself, {above} above: {listed}"
    return Finding(Verdict.CONFIRMED if symmetric else Verdict.CORRECTED, arithmetic)


CLAIMS = (
    Claim(
        id="saving-bits-0.37",
        said="double quantisation saves 0.37 bits per parameter",
        commands=(_FORMATS,),
        find=_saved_bits(0.37),
        verdict=Verdict.CONFIRMED,
        because="of the parameters that are quantised; embeddings, head and norms are not",
    ),
    Claim(
        id="saving-bits-0.5",
        said="double quantisation saves about 0.5 bits per parameter",
        commands=(_FORMATS,),
        find=_saved_bits(0.5),
        verdict=Verdict.CORRECTED,
        because="0.5 bits is what the constants take before double quantisation; it leaves 0.127 of them",
    ),
    Claim(
        id="saving-7b",
        said="double quantisation saves 328 MB on a 7B",
        commands=("vramplan quant llama-2-7b --quant-type nf4 --block-size 64",),
        find=_saved_bytes(328 * MB),
        verdict=Verdict.CORRECTED,
        because="the claim counts 7 billion quantised parameters; Llama-2-7B has 6.48",
    ),
    Claim(
        id="saving-13b",
        said="double quantisation saves 610 MB on a 13B",
        commands=("vramplan quant llama-2-13b --quant-type nf4 --block-size 64",),
        find=_saved_bytes(610 * MB),
        verdict=Verdict.CONFIRMED,
        because="within 5 %: 12.7 of the 13 billion parameters are quantised",
    ),
    Claim(
        id="saving-65b",
        said="double quantisation saves 3 GB on a 65B",
        commands=("vramplan quant llama-1-65b --quant-type nf4 --block-size 64",),
        find=_saved_bytes(3 * GB),
        verdict=Verdict.CONFIRMED,
        because="within 5 %",
    ),
    Claim(
        id="constants-7b",
        said="a 7B has 109.4 M constants in 437.5 MB; with double quantisation 111 MB, of them 427 k second-level",
        commands=("vramplan quant llama-2-7b --quant-type nf4 --block-size 64",),
        find=_constants_7b,
        verdict=Verdict.CORRECTED,
        because="right for 7 billion quantised parameters; Llama-2-7B quantises 6.48 billion, so all four are 8 % less",
        measured="`quant-state` is equal to the byte in every CPU record (reports/records/cpu)",
    ),
    Claim(
        id="constants-65b",
        said="the constants of a 65B take several gigabytes",
        commands=("vramplan quant llama-1-65b --quant-type nf4 --block-size 64",),
        find=_constants_65b,
        verdict=Verdict.CONFIRMED,
        because="without double quantisation; with it one gigabyte is left",
    ),
    Claim(
        id="block-85.94",
        said="a block of 64 fp32 weights shrinks by 85.94 %",
        commands=(_FORMATS,),
        find=_block,
        verdict=Verdict.CONFIRMED,
        because="without double quantisation, which makes it 87.1 %",
    ),
    Claim(
        id="by-four",
        said="4-bit cuts the weights by four (and by about eight against fp32)",
        commands=(
            "vramplan predict llama-2-7b --method inference --quant none",
            "vramplan quant llama-2-7b --quant-type nf4 --block-size 64",
        ),
        find=_by_four,
        verdict=Verdict.DEPENDS,
        because="nearly true of the quantised matrices; a whole 7B shrinks 3.5 times, small models with large "
        "vocabularies less than twice",
    ),
    Claim(
        id="levels",
        said="the 16 levels of NF4 are symmetric quantiles of the normal distribution",
        commands=(_FORMATS,),
        find=_levels,
        verdict=Verdict.CORRECTED,
        because="bitsandbytes' table has an exact zero, and so eight levels above it and seven below; tables with "
        "sixteen mirrored values are not NF4",
        measured="the table equals bitsandbytes' (tests/quant)",
    ),
)
