"The command `distill`; its parts are imported when they are used."
from __future__ import annotations

from typing import TYPE_CHECKING

from distill._imports import lazy

_lazy = dict.fromkeys(['app', 'main'], 'distill.cli.commands')
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

if TYPE_CHECKING:
    from .commands import app, main
