"""Talk on stderr while something takes its time: a live line with a clock on a terminal, plain lines in a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """Yields what to call with each news; the last news stay on the screen.

    On a terminal rich draws a spinner, the time since the beginning, and the news; elsewhere each is a line of its own.
    """
    if not sys.stderr.isatty():
        say(title)
        yield say
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda news: bar.update(task, description=news)
    say(title)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """On a terminal a spinner and the time while something takes longer than people like; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


def say(text: str) -> None:
    """A line of news, at once."""
    print(text, file=sys.stderr, flush=True)
