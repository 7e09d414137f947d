"""Types of a tensor's elements, by torch's names."""

#: Bytes of one element.
ELEMENT_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


def type_name(dtype: object) -> str:
    """The name by which torch knows an element type, without its module: `bfloat16`."""
    return str(dtype).removeprefix("torch.")
