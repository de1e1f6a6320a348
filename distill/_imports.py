"Names that are imported the first time they are used (PEP 562), for the hand-written `__init__` files"
from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False                  # as in `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def lazy(
    package: str,            # the package's `__name__`
    where: dict[str, str],   # name -> the module that has it, or that it is
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:  # the package's `__getattr__` and `__dir__`
    "Make the names in `where` attributes of `package` without importing their modules yet"
    names = vars(sys.modules[package])

    def __getattr__(name: str) -> Any:
        if name not in where: raise AttributeError(f'module {package!r} has no attribute {name!r}')
        module = import_module(where[name])
        value = names[name] = module if where[name] == f'{package}.{name}' else getattr(module, name)
        return value

    return __getattr__, lambda: sorted({*names, *where})
