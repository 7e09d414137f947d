"""Tables as GitHub-flavoured Markdown, and text in them that stays as it is."""

import re
from collections.abc import Container, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~@])")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: Container[int]) -> list[str]:
    """The lines of a table; columns whose number is in `left` are aligned to the left, the others to the right.

    Cells are Markdown: what is not ours goes through `escape` first.
    """
    rule = [":--" if i in left else "--:" for i in range(len(head))]
    return ["| " + " | ".join(" ".join(cell.split()) for cell in line) + " |" for line in (head, rule, *rows)]


def escape(text: str) -> str:
    """`text` as Markdown shows it literally, in a cell too: no markup, no HTML, no mention."""
    return _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;"))
