"""`vramplan schema`: the JSON Schema of scenario files."""

from argparse import ArgumentParser, Namespace

from vramplan.commands import Answer, Command
from vramplan.commands.flags import FLAGS, json_text

EXAMPLES = """\
  vramplan schema > vramplan.schema.json
  then, as the first line of a scenario: # yaml-language-server: $schema=vramplan.schema.json"""


def configure(parser: ArgumentParser) -> None:
    """No arguments."""


#: What no flag sets.
_OTHERS = {
    "model": "catalogue model, hub id, directory with config.json, or the configuration itself",
    "stack.base": "training loop, whose habits the other keys change",
    "matrix": "lists of values by key, such as {seq: [512, 1024], lora.rank: [8, 16]}: a scenario per combination",
}


def run(args: Namespace) -> Answer:
    """The schema, for an editor to complete and check scenario files."""
    from vramplan.scenario_schema import json_schema

    return Answer(json_text(json_schema({flag.key: flag.help for flag in FLAGS} | _OTHERS)))


COMMAND = Command(
    name="schema",
    order=80,
    summary="print the JSON Schema of scenario files, for editors",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
