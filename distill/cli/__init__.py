"The command `distill`; its parts are imported when they are used."
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from distill._imports import lazy

_lazy = {'app': 'distill.cli.commands'}
__all__ = ['main', *_lazy]
__getattr__, __dir__ = lazy(__name__, _lazy)

if TYPE_CHECKING:
    from .commands import app as app


def main() -> None:
    "The console command; exit codes: 0 done, 1 the user's mistake, 2 a wrong command line, 130 interrupted"
    try:
        from .commands import app
        from .shell import run
        run(app)
    except KeyboardInterrupt:           # it may come while Python still imports
        sys.exit(130)
