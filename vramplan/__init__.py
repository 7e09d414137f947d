"""Will this QLoRA fine-tuning run fit on this GPU? Predict, measure and compare its memory, byte by byte.

    import vramplan

    scenario = vramplan.Scenario.load("llama-2-7b", batch=4, seq=512)
    print(vramplan.predict(scenario).ledger.peak)

Nothing is imported before it is used, so `import vramplan` is instant.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.api import (
        Component,
        Phase,
        Prediction,
        Record,
        Scenario,
        VramplanError,
        compare,
        load,
        measure,
        predict,
        predict_model,
    )
    from vramplan.compare import Comparison

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Component",
    "Phase",
    "Prediction",
    "Record",
    "Scenario",
    "VramplanError",
    "__version__",
    "compare",
    "load",
    "measure",
    "predict",
    "predict_model",
]


class _Package(ModuleType):
    """The package as users see it: `vramplan.predict` is the function, though a subpackage has the same name.

    Importing a submodule binds its name in the package, over whatever stood there. A data descriptor on the module's
    class wins over that binding, in whichever order things are imported.
    """


class _Public:
    """A public name, fetched from `vramplan.api` at its first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, package: ModuleType, owner: type) -> object:
        module = "vramplan.compare" if self._name == "Comparison" else "vramplan.api"
        return getattr(import_module(module), self._name)

    def __set__(self, package: ModuleType, submodule: object) -> None:
        """Importlib binds the submodule here; it stays reachable with `from vramplan.predict import ...`."""


def __dir__() -> list[str]:
    """The names that `help` and completion show: the public ones stand on the module's class."""
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:
    for _name in __all__:
        if not _name.startswith("_"):
            setattr(_Package, _name, _Public(_name))
    sys.modules[__name__].__class__ = _Package
