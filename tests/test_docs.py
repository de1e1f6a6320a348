"What the tutorials show is what their code gives, to the byte: text, images and sounds."
import os, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_again(page, folder):
    "The bytes of a page, executed anew by the tool that made it, in another folder"
    folder.mkdir()
    f = shutil.copy(ROOT/'nbs'/page, folder)
    env = {k: v for k, v in os.environ.items() if k != 'MPLBACKEND'} | dict(IN_TEST='1', DISTILL_MODELS=str(folder/'models'), DISTILL_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1')
    r = subprocess.run([sys.executable, ROOT/'tools'/'run_nbs.py', '--one', f], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert r.returncode == 0, r.stderr
    return Path(f).read_bytes()


def test_a_tutorial_repeats_to_the_byte(tmp_path, record_property):
    "On a machine like the one that made it, one run gives the page itself; elsewhere (other arithmetic) two runs give the same"
    page = 'tutorials/your_first_model.ipynb'
    once = run_again(page, tmp_path/'once')
    assert b'image/webp' in once and b'<audio' in once
    as_kept = once == (ROOT/'nbs'/page).read_bytes()
    record_property('figure', f'{page}: ' + ('equal to the one in the repository' if as_kept else 'other digits than in the repository, as other machines have; two runs compared'))
    assert as_kept or once == run_again(page, tmp_path/'again')
