#!/usr/bin/env python3
"""Train a base vocoder: a Fourier vocoder for sounds nobody trained it on.

    python tools/train_base.py base.pt --steps 1500
    python tools/train_base.py base.pt --steps 50000 --device cuda --discriminators full --checkpoint run.pt

Given again with the same checkpoint, a training goes on. It hears the recordings of Debian's package
sonic-pi-samples that Debian's copyright file lists as CC0, and as many sounds of the demonstration's seven
families, each replaced by a new one after four epochs. What came of it, measured on collections it never
heard, is on nbs/benchmarks_base.ipynb.
"""
from __future__ import annotations
import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from distill.audio import demo
from distill.audio.files import read_audio, resample
from distill.features.mel import MelConfig
from distill.models.vocoders import VocoderState
from distill.training.loop import fit
from distill.training.vocoder import VocoderConfig, VocoderTraining

SAMPLES = Path('/usr/share/sonic-pi/samples')
RIGHTS = Path('/usr/share/doc/sonic-pi-samples/copyright')
CC0 = re.compile(r'^Files: etc/samples/(\S+\.flac)\nCopyright: .*\nSource: .*\nLicense: CC0$', re.M)
VOICES = demo.bar, demo.bell, demo.hat, demo.kick, demo.pluck, demo.swell, demo.wind
SAMPLE_RATE = 48_000
EPOCHS_OF_A_SOUND = 4   # before a synthetic sound is replaced


def cc0() -> list[Path]:
    "The recordings that Debian's copyright file names, one by one, as CC0"
    if not RIGHTS.exists(): raise SystemExit('The recordings are missing: apt-get install sonic-pi-samples')
    return sorted(SAMPLES/name for name in CC0.findall(RIGHTS.read_text()))

def read(file: Path, seconds: int = 3) -> torch.Tensor: # (t,)
    "The first seconds of a file, mono; followed by silence where they are less than a third of one"
    x, rate = read_audio(file)
    x = resample(x.mean(0, keepdim=True), rate)[0][:seconds*SAMPLE_RATE]
    return pad(x, (0, max(0, SAMPLE_RATE//3 - len(x))))

def synthetic(*seed: int) -> torch.Tensor: # (t,)
    "A sound of a random family, its knobs at random"
    rng = np.random.default_rng(seed)
    voice = VOICES[rng.integers(len(VOICES))]
    x = voice(*rng.random(3), SAMPLE_RATE, rng)
    loudness = rng.uniform(.3, .95)
    return torch.from_numpy((x*loudness/np.abs(x).max()).astype(np.float32))


class Sounds:
    "Sounds as a corpus: recordings first, then synthetic ones; a share of either kind is held out"
    def __init__(self,
        name: str,
        sounds: Sequence[torch.Tensor],  # (t,)
        recordings: int | None = None,   # how many of the sounds are; None: all
    ):
        self.folder, self.fingerprint, self.sounds = Path(name), name, sounds
        self.recordings = len(sounds) if recordings is None else recordings
        self.seconds = sum(map(len, sounds))/SAMPLE_RATE

    def __len__(self) -> int: return len(self.sounds)
    def __getitem__(self, i: int) -> torch.Tensor: return self.sounds[i]
    def read(self, i: int, start: int = 0, stop: int | None = None) -> torch.Tensor: return self.sounds[i][start:stop]

    def split(self, share: float, seed: int) -> tuple[list[int], list[int]]:
        "Which sounds are learned, and which are held out"
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        kinds = [i for i in order if i < self.recordings], [i for i in order if i >= self.recordings]
        held_out = [i for kind in kinds for i in kind[:round(share*len(kind))]]
        return sorted(set(order) - set(held_out)), sorted(held_out)


class BaseTraining(VocoderTraining):
    "A vocoder in training on recordings, and on synthetic sounds that are replaced by new ones"
    def __init__(self, cfg: VocoderConfig, device: str = 'cpu'):
        recordings = [read(file) for file in cc0()]
        sounds = recordings + [synthetic(cfg.seed, i) for i in range(len(recordings))]
        corpus = Sounds('base', sounds, len(recordings))
        super().__init__(corpus, MelConfig(), cfg, device)
        learned, _ = corpus.split(cfg.hold_out, cfg.seed)
        self.born = {k: 0 for k, i in enumerate(learned) if i >= corpus.recordings}   # epochs, of synthetic sounds

    def step(self) -> dict[str, float]:
        "Replace what was heard often enough, then learn"
        epoch = self.done//self.epoch
        for k, born in self.born.items():
            now = max(0, epoch - (epoch + k) % EPOCHS_OF_A_SOUND)
            if now == born: continue
            x = synthetic(self.cfg.seed, k, now)
            self.sounds[k], self.born[k] = self._example(x), now
            self.weights[k] = max(.3, len(x)/SAMPLE_RATE)**.5
        return super().step()


def halved(state: VocoderState) -> VocoderState:
    "A vocoder's state with its weights as 16-bit floats"
    return state | dict(state_dict={k: v.half() for k, v in state['state_dict'].items()})

def arguments() -> argparse.Namespace:
    "What the command was told"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path)
    parser.add_argument('--steps', type=int, default=1500)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--discriminators', default='none', help='none, small or full')
    parser.add_argument('--checkpoint', type=Path, help='written after every epoch; an existing one is resumed')
    return parser.parse_args()

def main() -> None:
    args = arguments()
    task = BaseTraining(VocoderConfig(seed=args.seed, discriminators=args.discriminators), args.device)
    history: list[dict[str, Any]] = []
    resume = bool(args.checkpoint and args.checkpoint.exists())
    for record in fit(task, args.steps, checkpoint=args.checkpoint, resume=resume):
        history.append(asdict(record))
        scores = dict(task.scores, **{'held out': record.held_out})
        print(f'{record.step:6} steps {record.seconds:7.0f} s', {k: round(v, 4) for k, v in scores.items()}, flush=True)
    torch.save(halved(task.vocoder_state(history)), args.out)
    print(f'{args.out}: {args.out.stat().st_size/1e6:.1f} MB')

if __name__ == '__main__': main()
