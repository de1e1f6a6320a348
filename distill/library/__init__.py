"""The library: which models exist, known without opening their weights."""
from __future__ import annotations

from distill._imports import lazy

_lazy = {
    'ModelEntry': 'distill.library.card',
    'ModelLibrary': 'distill.library.catalog',
    'repair_index': 'distill.library.catalog',
    'ModelMetadata': 'distill.models.metadata',
    'VocoderInfo': 'distill.models.metadata',
}
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .card import ModelEntry as ModelEntry
    from .catalog import ModelLibrary as ModelLibrary
    from .catalog import repair_index as repair_index
    from ..models.metadata import ModelMetadata as ModelMetadata
    from ..models.metadata import VocoderInfo as VocoderInfo
