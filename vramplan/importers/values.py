"""Values as trainers' files spell them: `'2e-4'`, `auto`, `"True"`, `torch.bfloat16`, `null`."""

from collections.abc import Mapping

from vramplan.scenario import DType

#: argparse and OmegaConf both take these words for booleans (transformers hf_argparser.py string_to_bool).
_TRUE = frozenset({"true", "yes", "y", "t", "1", "on"})
_FALSE = frozenset({"false", "no", "n", "f", "0", "off"})
_NULLS = frozenset({"", "null", "none", "~"})
_DTYPES: Mapping[str, DType] = {
    "bf16": DType.BFLOAT16,
    "bfloat16": DType.BFLOAT16,
    "fp16": DType.FLOAT16,
    "float16": DType.FLOAT16,
    "half": DType.FLOAT16,
    "fp32": DType.FLOAT32,
    "float32": DType.FLOAT32,
    "float": DType.FLOAT32,
}


def is_null(value: object) -> bool:
    """Whether a value says nothing: null, its spellings, an empty list or mapping."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NULLS) or value in ([], {})


def as_flag(value: object) -> bool | None:
    """True or false as written, also as a word or as 0 and 1; None when it is neither."""
    word = str(value).strip().lower()
    if isinstance(value, bool | str) or value in (0, 1):
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def as_number(value: object) -> float | None:
    """A finite number, also written as a string (`'2e-4'`); None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e18 else None  # neither nan nor infinite


def as_dtype(value: object) -> DType | None:
    """An element type by any of the names that trainers use; None for another word."""
    return _DTYPES.get(str(value).strip().lower().removeprefix("torch."))


def as_names(value: object) -> list[str] | None:
    """Names from a list, or from one string with commas between them; None for anything else."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return None
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
