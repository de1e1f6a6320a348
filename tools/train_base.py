#!/usr/bin/env python3
"""Train a base vocoder: a Fourier vocoder for sounds nobody trained it on.

    python tools/train_base.py base.pt --steps 1500
    python tools/train_base.py base.pt --steps 50000 --device cuda --discriminators full --checkpoint run.pt    # given again: goes on

It hears the recordings of Debian's package sonic-pi-samples that Debian's copyright file lists as CC0,
and as many sounds of the demonstration's seven families, each replaced by a new one after four epochs.
What came of it, measured on collections it never heard, is on nbs/benchmarks_base.ipynb.
"""
from __future__ import annotations
import argparse, re
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad
from distill import demo
from distill.audio.files import read_audio, resample
from distill.features.mel import MelConfig
from distill.training.loop import fit
from distill.training.vocoder import VocoderConfig, VocoderTraining

SAMPLES, RIGHTS = Path('/usr/share/sonic-pi/samples'), Path('/usr/share/doc/sonic-pi-samples/copyright')
VOICES = demo.bar, demo.bell, demo.hat, demo.kick, demo.pluck, demo.swell, demo.wind
SR = 48_000
LIVES = 4   # epochs, of a synthetic sound


def cc0() -> list[Path]:
    "The recordings that Debian's copyright file names, one by one, as CC0"
    if not RIGHTS.exists(): raise SystemExit('The recordings are missing: apt-get install sonic-pi-samples')
    return sorted(SAMPLES/n for n in re.findall(r'^Files: etc/samples/(\S+\.flac)\nCopyright: .*\nSource: .*\nLicense: CC0$', RIGHTS.read_text(), re.M))

def read(file, seconds=3): # -> (t,)
    "The first seconds of a file, mono; of silence at the end, as much as makes a third of one"
    x, rate = read_audio(file)
    x = resample(x.mean(0, keepdim=True), rate)[0][:seconds*SR]
    return pad(x, (0, max(0, SR//3 - len(x))))

def synthetic(*seed): # -> (t,)
    "A sound of a random family at a random place of its knobs"
    rng = np.random.default_rng(seed)
    x = VOICES[rng.integers(len(VOICES))](*rng.random(3), SR, rng)
    return torch.from_numpy((x*rng.uniform(.3, .95)/np.abs(x).max()).astype(np.float32))


class Sounds:
    "Some sounds as a corpus, those from `made` on synthetic; of either kind a share is held out"
    def __init__(self, name, sounds, made=None):
        self.folder, self.fingerprint, self.sounds, self.made = Path(name), name, sounds, len(sounds) if made is None else made
        self.seconds = sum(map(len, sounds))/SR
    def __len__(self): return len(self.sounds)
    def __getitem__(self, i): return self.sounds[i]
    def split(self, share, seed):
        order, held = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist(), []
        for kind in ([i for i in order if i < self.made], [i for i in order if i >= self.made]): held += kind[:round(share*len(kind))]
        return sorted(set(order) - set(held)), sorted(held)


class BaseTraining(VocoderTraining):
    "A vocoder in training on recordings, and on synthetic sounds that are replaced by new ones"
    def __init__(self, cfg: VocoderConfig, device='cpu'):
        files = cc0()
        corpus = Sounds('base', [read(f) for f in files] + [synthetic(cfg.seed, i) for i in range(len(files))], len(files))
        super().__init__(corpus, MelConfig(), cfg, device)
        self.born = {k: 0 for k, i in enumerate(corpus.split(cfg.hold_out, cfg.seed)[0]) if i >= corpus.made}

    def step(self):
        "Replace what has lived long enough, then learn"
        epoch = self.done//self.epoch
        for k, born in self.born.items():
            if (now := max(0, epoch - (epoch + k) % LIVES)) != born:
                x = synthetic(self.cfg.seed, k, now)
                self.sounds[k], self.born[k] = self._example(x), now
                self.weights[k] = max(.3, len(x)/SR)**.5
        return super().step()


def halved(state: dict) -> dict:
    "A vocoder's state with its weights as 16-bit floats"
    return state | dict(state_dict={k: v.half() for k, v in state['state_dict'].items()})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path); p.add_argument('--steps', type=int, default=1500); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--device', default='cpu'); p.add_argument('--discriminators', default='none', help='none, small or full')
    p.add_argument('--checkpoint', type=Path, help='written after every epoch; where it exists, the training goes on from it')
    a = p.parse_args()
    task = BaseTraining(VocoderConfig(seed=a.seed, discriminators=a.discriminators), a.device)
    history = []
    for rec in fit(task, a.steps, checkpoint=a.checkpoint, resume=bool(a.checkpoint and a.checkpoint.exists())):
        history.append(dict(epoch=rec.epoch, step=rec.step, held_out=rec.held_out, parts=rec.parts))
        print(f'{rec.step:6} steps {rec.seconds:7.0f} s   held out {rec.held_out:.4f}   closed form {task.scores["base"]:.4f}   Griffin-Lim {rec.reference:.4f}', flush=True)
    torch.save(halved(task.vocoder_state(history)), a.out)
    print(f'{a.out}: {a.out.stat().st_size/1e6:.1f} MB')

if __name__ == '__main__': main()
