"""A flag of one value that is given two: refused, where argparse would take the last without a word."""

from argparse import Action, ArgumentParser, Namespace
from typing import Any

from vramplan.errors import UsageError
from vramplan.spelling import shown


class OneValue(Action):
    """What argparse does with an argument that names no action: `store`, and once."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Keep the value; a UsageError where the option had another one."""
        given = vars(namespace).setdefault("given", {})  # the value alone does not tell a default from a word typed
        before = given.setdefault(self.dest, values)
        if option_string and before != values:
            raise UsageError(
                f"{option_string} is given two values: {shown(before)} and {shown(values)}", hint=self._way_out()
            )
        setattr(namespace, self.dest, values)

    def _way_out(self) -> str:
        """How to ask about several values, where there is a way."""
        kind, _, key = self.dest.rpartition(":")
        if key == "gpu":
            return "give one card; `vramplan plan` compares several: --gpu t4,rtx3090"
        if "," in str(self.metavar):
            return f"give all of them at once: {self.option_strings[0]} {self.metavar}"
        if kind == "key":
            return f"give one; a scenario file with `matrix: {{{key}: [...]}}` is a scenario per value"
        return "give one of them"
