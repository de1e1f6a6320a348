"""Sound files: reading and writing, a corpus, space, and the meter. Importing this loads nothing until a name is used."""
from __future__ import annotations

from distill._imports import lazy

_lazy = {
    'AudioError': 'distill.audio.decode',
    'Corpus': 'distill.audio.corpus',
    'Sound': 'distill.audio.files',
    'read_audio': 'distill.audio.decode',
}
__all__ = list(_lazy)
__getattr__, __dir__ = lazy(__name__, _lazy)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .corpus import Corpus as Corpus
    from .decode import AudioError as AudioError
    from .decode import read_audio as read_audio
    from .files import Sound as Sound
