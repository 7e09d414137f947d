"""The branches that libraries take on numbers, which no kernel computes here: answered as the run's data would.

Python runs this file at its start where its folder is on PYTHONPATH.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Whether a batch has padded samples.
PADDED = os.environ.get("NOCARD_PADDED") == "1"


def _answer(masking: ModuleType) -> None:
    """transformers 5.17 masking_utils.py: no batch is packed, and nothing is masked unless samples are padded."""
    find, all_of = masking.find_packed_sequence_indices, masking.fast_all

    def find_packed_sequence_indices(position_ids: Any) -> None:
        find(position_ids)

    def fast_all(tensor: Any) -> bool:
        all_of(tensor)
        return not PADDED

    masking.find_packed_sequence_indices, masking.fast_all = find_packed_sequence_indices, fast_all


class _AfterLoading:
    """Finds the one module, and changes it once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, whose loader runs and answers."""
        if name != "transformers.masking_utils":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _answer(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _AfterLoading)  # type: ignore[arg-type]
