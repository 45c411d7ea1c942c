"""Makes `import feast` take less time: without torch, and on request without instrumented constructors.

Feast 0.67 imports torch at its start, for `OnlineResponse.to_tensor`, and has typeguard rewrite the code of its classes
so that they check the types of their arguments. Both take a second or more of each process that opens a feature store.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

TORCH_WRAPPER = "feast.torch_wrapper"
"""Feast's module that imports torch. Others take its function `get_torch`, and nothing else."""


def defer_torch() -> None:
    """Make Feast import torch when it is first used. Has no effect once Feast is imported."""
    if "feast" not in sys.modules:
        wrapper = ModuleType(TORCH_WRAPPER)
        wrapper.get_torch = lambda: importlib.import_module("torch")  # type: ignore[attr-defined]
        sys.modules.setdefault(TORCH_WRAPPER, wrapper)


@contextmanager
def without_type_checks() -> Iterator[None]:
    """Make classes that are defined in the block ignore typeguard's decorator, as with `python -O`.

    For commands that read Feast's objects from the registry, where they were checked when they were applied.
    """
    import typeguard

    def leave_unchecked(target: Any = None, **options: Any) -> Any:
        return target if target is not None else lambda target: target

    checked, typeguard.typechecked = typeguard.typechecked, leave_unchecked
    try:
        yield
    finally:
        typeguard.typechecked = checked
