"""Panels for JupyterLab, Notebook and Voila: library, model, corpus, and the training of a model and of its vocoder.

Importing this loads nothing; a name is imported when it is used."""
from __future__ import annotations

from distill._imports import lazy

_lazy = {
    'LibraryPanel': 'distill.ui.library',
    'ModelPanel': 'distill.ui.model',
    'CorpusPanel': 'distill.ui.corpus',
    'TrainPanel': 'distill.ui.train',
    'VocoderPanel': 'distill.ui.vocoder',
    'loss_curves': 'distill.ui.curves',
    'Player': 'distill.ui.player',
    'gallery': 'distill.ui.player',
}
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .corpus import CorpusPanel as CorpusPanel
    from .curves import loss_curves as loss_curves
    from .library import LibraryPanel as LibraryPanel
    from .model import ModelPanel as ModelPanel
    from .player import gallery as gallery
    from .player import Player as Player
    from .train import TrainPanel as TrainPanel
    from .vocoder import VocoderPanel as VocoderPanel
