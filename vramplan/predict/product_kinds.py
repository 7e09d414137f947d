"""Matrix products, by what their libraries keep once the first of each kind was made."""

from typing import NamedTuple


class Product(NamedTuple):
    """A kind of product: cuBLAS computes all, and keeps a workspace per thread; cuBLASLt those with a bias."""

    backward: bool
    """made by autograd's thread"""
    biased: bool
