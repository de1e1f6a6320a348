"""Small-corpus generative audio: train on your own sounds, steer what was learned, keep it in one safe file.

Hand-written: nbdev only rewrites the `__version__` line below. `import distill` stays
light; the names in `_lazy` are imported the first time they are touched (PEP 562).
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from ._imports import lazy

__version__ = "0.1.0"

_lazy = {
    'Corpus': 'distill.audio',
    'Sound': 'distill.audio',
    'Mel': 'distill.mel',
    'MelConfig': 'distill.mel',
    'ConvVAE': 'distill.models.vae',
    'VAEConfig': 'distill.models.vae',
    'fit': 'distill.train',
    'analyze': 'distill.latent',
    'resolve_vocoder': 'distill.vocoder',
    'ModelLibrary': 'distill.library.catalog',
    'load_model': 'distill.models.persistence',
    'save_model': 'distill.models.persistence',
    'generate': 'distill.generation',
    'reconstruct': 'distill.generation',
    'morph': 'distill.generation',
    'blend': 'distill.generation',
    'replay': 'distill.generation',
    'History': 'distill.takes',
    'meter': 'distill.space',
    'report': 'distill.reports',
    'train_model': 'distill.pipeline',
    'bundle_vocoder': 'distill.pipeline',
    'train_vocoder': 'distill.vocoder_training',
}
__all__ = ['__version__', *_lazy]
__getattr__, __dir__ = lazy(__name__, _lazy)

if TYPE_CHECKING:
    from .audio import Corpus, Sound
    from .generation import blend, generate, morph, reconstruct, replay
    from .latent import analyze
    from .library.catalog import ModelLibrary
    from .mel import Mel, MelConfig
    from .models.persistence import load_model, save_model
    from .models.vae import ConvVAE, VAEConfig
    from .pipeline import bundle_vocoder, train_model
    from .reports import report
    from .space import meter
    from .takes import History
    from .train import fit
    from .vocoder import resolve_vocoder
    from .vocoder_training import train_vocoder
