"""HTML elements whose text cannot become markup: every child and attribute is escaped unless it is `Html` already."""

from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is markup already, written by this package."""

    __slots__ = ()


def el(name: str, *children: str, **attributes: str) -> Html:
    """One element; `class_` and `aria_label` become `class` and `aria-label`, attributes without text are left out."""
    written = "".join(f' {_attribute(key)}="{escape(value)}"' for key, value in attributes.items() if value)
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[str], separator: str = "") -> Html:
    """The children one after the other, escaped where they are not `Html`."""
    return Html(separator.join(child if isinstance(child, Html) else escape(child) for child in children))


def quantity(size: int, text: str) -> Html:
    """`text`, which stands for `size` bytes, with the exact number for machines and for who points at it."""
    return Html(f'<data value="{size}">{escape(text)}</data>')


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
