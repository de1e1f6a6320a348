"""Small-corpus generative audio: train on your own sounds, steer what was learned, keep it in one safe file.

Hand-written: nbdev only rewrites the `__version__` line below. `import distill` stays
light; the names in `_lazy` are imported the first time they are touched (PEP 562).
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from ._imports import lazy

__version__ = "0.1.0"

_lazy = {
    'Corpus': 'distill.audio.corpus',
    'Sound': 'distill.audio.files',
    'Mel': 'distill.features.mel',
    'MelConfig': 'distill.features.mel',
    'ConvVAE': 'distill.models.vae',
    'VAEConfig': 'distill.models.vae',
    'fit': 'distill.training.loop',
    'analyze': 'distill.latent.analysis',
    'resolve_vocoder': 'distill.models.vocoders',
    'ModelLibrary': 'distill.library.catalog',
    'load_model': 'distill.models.persistence',
    'save_model': 'distill.models.persistence',
    'generate': 'distill.generation.sounds',
    'reconstruct': 'distill.generation.sounds',
    'morph': 'distill.generation.sounds',
    'blend': 'distill.generation.sounds',
    'replay': 'distill.generation.replay',
    'History': 'distill.library.history',
    'meter': 'distill.audio.meter',
    'report': 'distill.evaluation.measures',
    'UserError': 'distill.core',
    'Model': 'distill.models.model',
    'Recipe': 'distill.generation.recipe',
    'train_model': 'distill.pipeline',
    'bundle_vocoder': 'distill.pipeline',
    'train_vocoder': 'distill.training.vocoder',
}
__all__ = ['__version__', *_lazy]
__getattr__, __dir__ = lazy(__name__, _lazy)

if TYPE_CHECKING:
    from .audio.corpus import Corpus as Corpus
    from .audio.files import Sound as Sound
    from .audio.meter import meter as meter
    from .core import UserError as UserError
    from .evaluation.measures import report as report
    from .features.mel import Mel as Mel
    from .features.mel import MelConfig as MelConfig
    from .generation.recipe import Recipe as Recipe
    from .generation.replay import replay as replay
    from .generation.sounds import blend as blend
    from .generation.sounds import generate as generate
    from .generation.sounds import morph as morph
    from .generation.sounds import reconstruct as reconstruct
    from .latent.analysis import analyze as analyze
    from .library.catalog import ModelLibrary as ModelLibrary
    from .library.history import History as History
    from .models.model import Model as Model
    from .models.persistence import load_model as load_model
    from .models.persistence import save_model as save_model
    from .models.vae import ConvVAE as ConvVAE
    from .models.vae import VAEConfig as VAEConfig
    from .models.vocoders import resolve_vocoder as resolve_vocoder
    from .pipeline import bundle_vocoder as bundle_vocoder
    from .pipeline import train_model as train_model
    from .training.loop import fit as fit
    from .training.vocoder import train_vocoder as train_vocoder
