"""The package installed for real, in a new environment of each kind: beside the oldest and the newest torch, and
without CUDA; by pip, uv and pipx. (test_wheel.py has the fast kind: an environment whose packages are links.)

    .venv/bin/pytest -m slow tests/test_install.py       # minutes; downloads up to 8 GB, and needs 15 GB of disk
"""
import functools, json, os, shutil, subprocess, sys, venv
from importlib import metadata
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
import install
from test_wheel import built, requirements, wheel  # noqa: F401 (two are fixtures)

LISTING = '''torch (2.15.0)
Available versions: 2.15.0, 2.14.1+cu130, 2.14.1+cpu, 2.14.1, 2.13.0+cpu, 2.11.0, 2.9.0+cpu
  INSTALLED: 2.11.0
'''

def test_the_newest_torch_without_cuda_is_found():
    assert install.cpu_build(LISTING) == '2.14.1+cpu'
    assert install.cpu_build(LISTING, '2.13.0') == '2.13.0+cpu'
    assert install.cpu_build(LISTING, '2.15.0') == install.cpu_build(LISTING, '2.9.0') == install.cpu_build('') == ''

def test_a_torch_that_is_there_stays():
    torch, reason = install.choose('', install.installed_torch())
    assert torch == [] and f'torch {install.installed_torch()} ' in reason


FILTERS = """
import torch
from distill.audio import dsp
from distill.audio.meter import loudness
theirs, why_not = dsp.load_torchaudio()
for old, new in (147, 160), (160, 147), (1, 6), (2, 1), (999, 1000):
    assert torch.equal(dsp.sinc_kernels(old, new), dsp._sinc_kernels(old, new))
for bank in (2048, 168, 48_000, 0., 24_000.), (1024, 80, 44_100, 20., 16_000.), (512, 64, 22_050, 0., 11_025.):
    assert torch.equal(dsp.mel_bank(*bank), dsp._mel_bank(*bank))
x = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
for filter in dsp.high_shelf(1500, 4, .7, 48_000), dsp.high_pass(38, .5, 48_000):
    torch.testing.assert_close(dsp.biquad(x, filter), dsp._biquad(x.double(), filter).float(), atol=1e-6, rtol=0)
print(theirs is not None, why_not.partition(':')[0], round(loudness(x), 3))
"""

@pytest.mark.parametrize('compiled', ['missing', 'unfit'])
def test_filters_beside_any_torchaudio(compiled, tmp_path):
    "torchaudio's filters and ours are the same, and ours take over where torchaudio's compiled part does not load"
    package = Path(metadata.distribution('torchaudio').locate_file('torchaudio'))
    here = tmp_path/'torchaudio'
    here.mkdir()
    for f in package.iterdir():
        if f.name != 'lib': (here/f.name).symlink_to(f)
    if compiled == 'unfit':
        (here/'lib').mkdir()
        (here/'lib'/'_torchaudio.so').write_text('for another torch')
    env = os.environ | dict(PYTHONPATH=str(tmp_path))
    r = subprocess.run([sys.executable, '-c', FILTERS], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert r.stdout.split()[:-1] == (['True'] if compiled == 'missing' else ['False', 'OSError']), r.stdout
    assert float(r.stdout.split()[-1]) == pytest.approx(-1.97, abs=.001)


def run(*command, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'DISTILL'))}
    r = subprocess.run(command, env=env | more, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout

@pytest.fixture(scope='module')
def tool(tmp_path_factory):
    "A program from PyPI, in an environment of its own: pipx would use an uv beside it"
    @functools.cache
    def get(name):
        d = tmp_path_factory.mktemp(name)/'env'
        venv.create(d, with_pip=True)
        run(d/'bin'/'python', '-m', 'pip', 'install', '-q', name)
        return d/'bin'/name
    return get

def by_uv(resolution):
    "A kind of environment: what uv makes with the highest versions of what the wheel requires, or with the lowest"
    def make(tool, wheel, d):
        uv, python = tool('uv'), d/'env'/'bin'/'python'
        run(uv, 'venv', '-q', '--python', sys.executable, d/'env')
        options = '--resolution', resolution, '--python', python
        run(uv, 'pip', 'install', '-q', *options, wheel, *requirements(wheel))
        return d/'env'
    return make

def without_cuda():
    "What `make install` asks for on a machine without an NVIDIA card"
    torch, reason = install.choose('', '')
    if not any(t.endswith('+cpu') for t in torch): pytest.skip(reason)
    return torch

def by_pip(tool, wheel, d):
    venv.create(d/'env', with_pip=True)
    run(d/'env'/'bin'/'python', '-m', 'pip', 'install', '-q', wheel, *without_cuda())
    return d/'env'

def by_pipx(tool, wheel, d):
    home = dict(PIPX_HOME=str(d/'pipx'), PIPX_BIN_DIR=str(d/'bin'), PIPX_DEFAULT_PYTHON=sys.executable)
    *options, torch = without_cuda()
    (d/'torch.txt').write_text(torch)
    run(tool('pipx'), 'install', wheel, '--pip-args', ' '.join([*options, '--constraint', str(d/'torch.txt')]), **home)
    assert 'First steps' in run(d/'bin'/'distill', '--help')
    return d/'pipx'/'venvs'/'distill'

KINDS = dict(oldest=by_uv('lowest-direct'), newest=by_uv('highest'), pip_cpu=by_pip, pipx_cpu=by_pipx)

def size(folder): return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file() and not f.is_symlink())

@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_new_environment(kind, tool, wheel, tmp_path, record_property):
    "Everything imports, the doctor finds nothing wrong, and the demo goes the whole way"
    env = KINDS[kind](tool, wheel, tmp_path)
    bytes_taken, home = size(env), dict(HOME=str(tmp_path))
    if kind.endswith('cpu'):
        assert bytes_taken <= 1.5e9 and not list(env.glob('lib/python*/site-packages/nvidia*'))
    run(env/'bin'/'python', '-c', 'import distill; [getattr(distill, n) for n in distill.__all__]', **home)
    found = json.loads(run(env/'bin'/'distill', 'doctor', '--json', **home))
    assert found['wrong'] == []
    run(env/'bin'/'distill', 'demo', '--steps', '5', '--out', tmp_path/'demo', **home)
    made, again = tmp_path/'demo'/'takes'/'take-1.wav', tmp_path/'take-1-again.wav'
    run(env/'bin'/'distill', 'replay', made, '--out', tmp_path, '--models-dir', tmp_path/'demo'/'models', **home)
    assert np.array_equal(sf.read(made)[0], sf.read(again)[0])
    versions, filters = found['versions'], found['filters']
    what = f"torch {versions['torch']}, torchaudio {versions['torchaudio']}, filters: {filters[:60]}"
    record_property('figure', f"installed, {kind}: {bytes_taken/1e9:.2f} GB, {what}")
    shutil.rmtree(env)
