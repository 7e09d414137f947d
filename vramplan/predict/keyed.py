"""For caches: what is wanted as its key, together with how it is made from parts that have no hash."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Keyed(Generic[Made]):
    """Compares by `key`, and brings along what makes the thing that the key stands for."""

    __slots__ = ("key", "make")

    def __init__(self, key: Hashable, make: Callable[[], Made]) -> None:
        self.key = key
        self.make = make

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyed) and other.key == self.key
