"""Train a generative model on a folder of your own sounds, steer what it learned, and keep it in one safe file.

Start here, with a folder of 5 to 500 short sounds:

    import distill
    distill.train_model('~/sounds/rain', name='rain')      # minutes; the model goes into your library
    sound = distill.generate('rain', seed=7)               # a new sound, played in a notebook
    sound.save('rain.wav')

    model = distill.load_model('rain')                     # a name, an id or a file
    model.sliders.df()                                     # what its sliders are called and what each one changes
    distill.generate(model, {'warmth': 5}, seconds=3)      # a slider of this model, from -10 to 10

In a notebook there are panels for the same things: `distill.ui.LibraryPanel()`, `distill.ui.TrainPanel()`.
In a shell, `distill --help` lists the commands; `distill demo` makes its own sounds and shows the whole way.

`help(distill.generate)` explains every parameter, as it does for every function and class here. A mistake that
one sentence can explain raises `UserError`. Names are imported when they are used, so `import distill` is quick.
"""
from __future__ import annotations

from ._imports import lazy

# nbdev_export rewrites this line
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
    'edit_model': 'distill.models.persistence',
    'generate': 'distill.generation.sounds',
    'reconstruct': 'distill.generation.sounds',
    'morph': 'distill.generation.sounds',
    'blend': 'distill.generation.sounds',
    'replay': 'distill.generation.replay',
    'History': 'distill.library.history',
    'meter': 'distill.audio.meter',
    'report': 'distill.evaluation.evaluate',
    'UserError': 'distill.core',
    'Model': 'distill.models.model',
    'Recipe': 'distill.generation.recipe',
    'train_model': 'distill.pipeline',
    'bundle_vocoder': 'distill.pipeline',
    'train_vocoder': 'distill.training.vocoder',
    'TrainConfig': 'distill.training.plan',
    'save_sound': 'distill.generation.sounds',
    'ui': 'distill.ui',
}
__all__ = ['__version__', *_lazy]
__getattr__, __dir__ = lazy(__name__, _lazy)

TYPE_CHECKING = False                  # as in `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from . import ui as ui
    from .audio.corpus import Corpus as Corpus
    from .audio.files import Sound as Sound
    from .audio.meter import meter as meter
    from .core import UserError as UserError
    from .evaluation.evaluate import report as report
    from .features.mel import Mel as Mel
    from .features.mel import MelConfig as MelConfig
    from .generation.recipe import Recipe as Recipe
    from .generation.replay import replay as replay
    from .generation.sounds import blend as blend
    from .generation.sounds import generate as generate
    from .generation.sounds import morph as morph
    from .generation.sounds import reconstruct as reconstruct
    from .generation.sounds import save_sound as save_sound
    from .latent.analysis import analyze as analyze
    from .library.catalog import ModelLibrary as ModelLibrary
    from .library.history import History as History
    from .models.model import Model as Model
    from .models.persistence import edit_model as edit_model
    from .models.persistence import load_model as load_model
    from .models.persistence import save_model as save_model
    from .models.vae import ConvVAE as ConvVAE
    from .models.vae import VAEConfig as VAEConfig
    from .models.vocoders import resolve_vocoder as resolve_vocoder
    from .pipeline import bundle_vocoder as bundle_vocoder
    from .pipeline import train_model as train_model
    from .training.loop import fit as fit
    from .training.plan import TrainConfig as TrainConfig
    from .training.vocoder import train_vocoder as train_vocoder
