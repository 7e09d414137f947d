"""`vramplan completion`: tab completion for the shell."""

from argparse import ArgumentParser, Namespace, _SubParsersAction

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_choice, closed_lists, takes_path

EXAMPLES = """\
  source <(vramplan completion bash)
  vramplan completion zsh > ~/.zfunc/_vramplan
  vramplan completion fish > ~/.config/fish/completions/vramplan.fish"""
SHELLS = ("bash", "zsh", "fish")


def configure(parser: ArgumentParser) -> None:
    """The shell."""
    add_choice(parser, "shell", SHELLS, metavar="bash|zsh|fish")


def run(args: Namespace) -> Answer:
    """The completion script, with the words that each flag takes."""
    import shtab

    from vramplan.cli import build_parser
    from vramplan.commands import all_commands

    words, parser = closed_lists(), build_parser(all_commands())
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for sub in action.choices.values():
                _fill_in(sub, words)
    script: str = shtab.complete(parser, args.shell)
    return Answer(script)


def _fill_in(parser: ArgumentParser, words: dict[str, list[str]]) -> None:
    import shtab

    for action in parser._actions:
        if action.dest in words:
            action.choices = words[action.dest]
        if takes_path(action):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # what shtab looks for


COMMAND = Command(
    name="completion",
    order=90,
    summary="print a shell's completion script",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
