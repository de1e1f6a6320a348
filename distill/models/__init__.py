"""Models: what they are, and the one file that holds one. Importing this loads no torch until a name is used."""
from __future__ import annotations

from distill._imports import lazy

_lazy = {
    'ConvVAE': 'distill.models.vae',
    'VAEConfig': 'distill.models.vae',
    'Model': 'distill.models.model',
    'ModelMetadata': 'distill.models.metadata',
    'MODEL_FILE_EXTENSION': 'distill.library.card',
    'MODEL_FORMAT_MARKER': 'distill.library.card',
    'SAVED_MODEL_VERSION': 'distill.library.card',
    'LoadedModel': 'distill.models.persistence',
    'delete_model': 'distill.models.persistence',
    'load_model': 'distill.models.persistence',
    'save_model': 'distill.models.persistence',
    'save_model_from_checkpoint': 'distill.models.persistence',
}
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..library.card import MODEL_FILE_EXTENSION as MODEL_FILE_EXTENSION
    from ..library.card import MODEL_FORMAT_MARKER as MODEL_FORMAT_MARKER
    from ..library.card import SAVED_MODEL_VERSION as SAVED_MODEL_VERSION
    from .metadata import ModelMetadata as ModelMetadata
    from .model import Model as Model
    from .persistence import delete_model as delete_model
    from .persistence import load_model as load_model
    from .persistence import LoadedModel as LoadedModel
    from .persistence import save_model as save_model
    from .persistence import save_model_from_checkpoint as save_model_from_checkpoint
    from .vae import ConvVAE as ConvVAE
    from .vae import VAEConfig as VAEConfig
