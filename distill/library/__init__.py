"""The library: which models exist, known without opening their weights."""
from __future__ import annotations

from typing import TYPE_CHECKING

from distill._imports import lazy

_lazy = dict.fromkeys(['ModelLibrary', 'ModelEntry', 'ModelMetadata', 'VocoderInfo', 'repair_index'], 'distill.library.catalog')
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

if TYPE_CHECKING:
    from .catalog import ModelEntry, ModelLibrary, ModelMetadata, VocoderInfo, repair_index
