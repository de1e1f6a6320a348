"""Models: what they are, and the one file that holds one. Importing this loads no torch until a name is used."""
from __future__ import annotations

from typing import TYPE_CHECKING

from distill._imports import lazy

_lazy = {
    'ConvVAE': 'distill.models.vae',
    'VAEConfig': 'distill.models.vae',
    **dict.fromkeys(['MODEL_FILE_EXTENSION', 'MODEL_FORMAT_MARKER', 'SAVED_MODEL_VERSION', 'ModelMetadata'], 'distill.library.catalog'),
    **dict.fromkeys(['LoadedModel', 'save_model', 'load_model', 'delete_model', 'save_model_from_checkpoint'], 'distill.models.persistence'),
}
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

if TYPE_CHECKING:
    from ..library.catalog import MODEL_FILE_EXTENSION, MODEL_FORMAT_MARKER, SAVED_MODEL_VERSION, ModelMetadata
    from .persistence import LoadedModel, delete_model, load_model, save_model, save_model_from_checkpoint
    from .vae import ConvVAE, VAEConfig
