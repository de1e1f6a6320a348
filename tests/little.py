"What the tests of files and libraries share: a tiny model, and files as strangers may make them"
from __future__ import annotations
import copy, functools, io, json, os, zipfile
from dataclasses import asdict
from pathlib import Path
import torch
from distill.audio.corpus import Corpus
from distill.latent.analysis import analyze
from distill.models.metadata import ModelMetadata, VocoderInfo
from distill.library.card import make_card
from distill.features.mel import MelConfig
from distill.models.persistence import save_model
from distill.models.vae import ConvVAE, VAEConfig
from distill.training.loop import fit
from distill.training.plan import TrainConfig
from distill.training.vae import VAETraining

MEL = MelConfig(n_fft=64, hop=16, n_mels=8)

@functools.cache
def tiny(seed=0):
    "A whole ConvVAE of 700 weights"
    return ConvVAE(VAEConfig(n_mels=8, latent=2, channels=4, stages=1, kernel=3, n_levels=1), seed).eval()

HISTORY = [dict(epoch=1, step=50, seconds=2.5, parts=dict(loss=1., recon=.9, kl=.1), held_out=.8, best=True)]

def save(folder, name='Tiny', seed=0, **kw):
    meta = {k: kw.pop(k) for k in list(kw) if k in ModelMetadata.__dataclass_fields__}
    return save_model(tiny(seed), MEL, dict(lr=1e-3, seed=seed), ModelMetadata(name, **meta), folder, training_history=HISTORY, **kw)

def playable(sounds, folder, name='Rain', steps=0, **metadata):
    "A model that plays, hardly trained or not at all, with sliders that have no names"
    task = VAETraining(Corpus(sounds), vae=VAEConfig(channels=16), cfg=TrainConfig(batch=8, epoch=5))
    records = fit(task, steps) if steps else ()
    history = [{k: v for k, v in asdict(record).items() if k != 'eta'} for record in records]
    about, settings = ModelMetadata(name, steps=steps, **metadata), asdict(task.cfg)
    return save_model(task.model, task.mel.cfg, settings, about, folder, analyze(task.model, task.mels),
                      training_history=history)

def generator_v2(channels=128, n_mels=128):
    "The weights of a HiFi-GAN V2 generator for 48 kHz (Kong et al. 2020; upsampling 8·8·4·2): names, shapes and count are the real ones"
    g, w = torch.Generator().manual_seed(0), {}
    def conv(name, *shape, transposed=False):
        w[f'{name}.weight'] = torch.randn(*shape, generator=g)*.01
        w[f'{name}.bias'] = torch.zeros(shape[1 if transposed else 0])
    conv('conv_pre', channels, n_mels, 7)
    for i, k in enumerate((16, 16, 8, 4)):
        c = channels >> i
        conv(f'ups.{i}', c, c//2, k, transposed=True)
        for j, r in enumerate((3, 7, 11)):
            for part in ('convs1', 'convs2'):
                for n in range(3): conv(f'resblocks.{3*i + j}.{part}.{n}', c//2, c//2, r)
    conv('conv_post', 1, channels >> 4, 7)
    return w

def vocoder(state=None, **training):
    return dict(type='hifigan_v2', state_dict=state or {'conv_pre.weight': torch.ones(2, 8, 3)},
                config=dict(upsample_rates=[8, 8, 4, 2], upsample_initial_channel=128, resblock_kernel_sizes=[3, 7, 11]),
                training_metadata=dict(epochs=50, final_loss=.03, training_date='2026-01-15') | training)

def same(a, b):
    "Whether two trees of plain containers and tensors are the same, types and all"
    if type(a) is not type(b): return False
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict): return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b

def records(data: bytes) -> dict:
    "The records of a zip, in order"
    with zipfile.ZipFile(io.BytesIO(data)) as z: return {r.filename: z.read(r) for r in z.infolist()}

def rezip(recs, **kw) -> bytes:
    "A zip of these (name, bytes) pairs, its checksums right"
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, 'w', **kw) as z:
        for name, data in recs.items() if isinstance(recs, dict) else recs: z.writestr(name, data)
    return buf.getvalue()

def offset(data: bytes, name) -> int:
    "Where a record's bytes begin"
    with zipfile.ZipFile(io.BytesIO(data)) as z: at = z.getinfo(name).header_offset
    return at + 30 + int.from_bytes(data[at + 26:at + 28], 'little') + int.from_bytes(data[at + 28:at + 30], 'little')

def craft(contents, card, **save_kw) -> bytes:
    "A model file with these contents and this card, whatever they are"
    buf = io.BytesIO()
    torch.save(contents, buf, **save_kw)
    if not zipfile.is_zipfile(buf): return buf.getvalue()
    recs = records(buf.getvalue())
    return rezip({**recs, f"{next(iter(recs)).split('/')[0]}/card.json": card if isinstance(card, bytes) else json.dumps(card).encode()})

def put_card(folder, name, voc: VocoderInfo | None = None, settings=None, **kw) -> Path:
    "A model file without weights: enough for a catalog, and quick to write"
    meta = ModelMetadata(name, **kw)
    card = make_card(meta, voc, dict(parameters=700, latent_dim=2), settings)
    path = Path(folder)/f'{meta.model_id}.distillgan'
    tmp = path.with_suffix('.part')
    with zipfile.ZipFile(tmp, 'w') as z: z.writestr('archive/card.json', json.dumps(card))
    os.replace(tmp, path)
    return path
