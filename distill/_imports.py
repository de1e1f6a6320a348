"Names that are imported the first time they are touched (PEP 562), for the hand-written `__init__` files"
from __future__ import annotations

import sys
from importlib import import_module


def lazy(
    package: str,            # the package's `__name__`
    where: dict[str, str],   # name -> the module that has it
):                           # the package's `__getattr__` and `__dir__`
    "Make the names in `where` attributes of `package` without importing their modules yet"
    pkg = vars(sys.modules[package])

    def __getattr__(name: str):
        if name not in where: raise AttributeError(f'module {package!r} has no attribute {name!r}')
        val = pkg[name] = getattr(import_module(where[name]), name)
        return val

    return __getattr__, lambda: sorted({*pkg, *where})
