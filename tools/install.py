#!/usr/bin/env python3
"""Install the project with everything its tests need into the environment of the Python that runs this.

    python tools/install.py                  # what `make install` does
    python tools/install.py --torch 2.11.0   # with this release of torch

A build of torch for NVIDIA cards brings CUDA, which takes 4 GB more. On a machine without such a card the newest
build for the processor alone is taken, if an index of pip's or PyTorch's own has one for this system. (Only Linux has
builds with CUDA on pip's standard index.) A torch that is already in the environment stays.
"""
from __future__ import annotations
import argparse, re, shutil, subprocess, sys
from importlib import metadata
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
OLDEST = 2, 11
PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check']

def has_nvidia_card() -> bool:
    if Path('/proc/driver/nvidia/version').exists(): return True
    tool = shutil.which('nvidia-smi')
    return bool(tool) and subprocess.run([tool, '-L'], capture_output=True).returncode == 0

def installed_torch() -> str:
    "The version in this environment; '' if there is none that Distill can use"
    try: version = metadata.version('torch')
    except metadata.PackageNotFoundError: return ''
    return version if number(version) >= OLDEST else ''

def number(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r'\d+', version.split('+')[0])[:3])

def is_reachable(url: str) -> bool:
    try: return urlopen(Request(url, method='HEAD'), timeout=5).status < 400
    except OSError: return False

def cpu_build(listing: str, wanted: str = '') -> str:
    "The newest build of torch without CUDA in what `pip index versions torch` prints; '' if there is none"
    line = re.search(r'^Available versions: (.+)$', listing, re.M)
    versions = [v for v in line[1].split(', ') if v.endswith('+cpu') and number(v) >= OLDEST] if line else []
    if wanted: versions = [v for v in versions if v.split('+')[0] == wanted]
    return max(versions, key=number, default='')

def choose(wanted: str, there: str) -> tuple[list[str], str]:
    "Requirements and options for pip, and the reason in a sentence; `there` is the torch in the environment, if any"
    plain = [f'torch=={wanted}', f'torchaudio<={wanted}'] if wanted else []
    if there and not wanted: return [], f'torch {there} is there already and stays.'
    if sys.platform != 'linux': return plain, 'Here torch comes without CUDA: about 1.5 GB in all.'
    if has_nvidia_card(): return plain, 'This machine has an NVIDIA card: torch comes with CUDA, about 6 GB in all.'
    options = ['--extra-index-url', CPU_INDEX] if is_reachable(f'{CPU_INDEX}/torch/') else []
    found = subprocess.run([*PIP, 'index', 'versions', 'torch', *options], capture_output=True, text=True)
    build = cpu_build(found.stdout, wanted)
    if not build: return plain, 'No NVIDIA card was found, but neither a torch without CUDA: about 6 GB in all.'
    reason = f'No NVIDIA card was found: torch {build} comes without CUDA, about 1.5 GB in all.'
    return [*options, *plain[1:], f'torch=={build}'], reason

def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--torch', default='', metavar='VERSION', help='a release of torch, such as 2.11.0')
    p.add_argument('--extras', default='dev', help='of pyproject.toml, separated by commas')
    a = p.parse_args()
    torch, reason = choose(a.torch, installed_torch())
    print(reason, flush=True)
    subprocess.run([*PIP, 'install', '-q', '--upgrade', 'pip'], check=True)   # a new pip takes a third of the time
    quiet = [] if sys.stdout.isatty() else ['-q']                             # somebody who waits sees how far it is
    lazy = [] if sys.dont_write_bytecode else ['--no-compile']                # Python compiles what it comes to need
    command = [*PIP, 'install', *quiet, *lazy, '-e', f'{ROOT}[{a.extras}]', *torch]
    sys.exit(subprocess.run(command).returncode)

if __name__ == '__main__': main()
