"How v1_tiny.distillgan was made, once"
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent.parent))
import torch
from little import save, tiny, vocoder
here = Path(__file__).parent
assert not (here/'v1_tiny.distillgan').exists(), 'it is never made anew'
f = save(here, 'Golden', model_id='golden-0001', created='2026-01-15', tags=['kept'], extra=dict(mood='grey'), vocoder_state=vocoder())
f.rename(here/'v1_tiny.distillgan')
(here/'library.db').unlink()
(here/'v1_tiny.txt').write_text(f'{tiny().decode(torch.ones(1, 2, 2)).sum().item()}\n')
