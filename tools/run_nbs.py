#!/usr/bin/env python3
"""Execute notebooks in a real kernel and store their outputs, obeying nbdev's directives.

    python tools/run_nbs.py                                       # every notebook under nbs/
    python tools/run_nbs.py nbs/index.ipynb
    python tools/run_nbs.py --flags slow nbs/benchmarks.ipynb     # its cells marked `#| slow` too

Cells marked `#| eval: false`, or with a flag in settings.ini's `tst_flags`, keep the outputs they
have. Widget ids and state are dropped (they change on every run) where there is an HTML fallback.
The result is what `nbdev_clean` leaves, so a re-run with the same results changes no file. As that
drops execution counts, a digest of the cells that ran is stored in the notebook's metadata: a cell
edited since then shows (tests/test_repo.py).
Each notebook runs in a process of its own under a hard time limit, with one more try: a kernel
under load can hang where nbclient's own cell timeout does not reach. It gets folders of its own for
models and cache, and leaves nothing behind.
"""
from __future__ import annotations
import argparse, hashlib, os, re, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import nbglob

LIMIT = int(os.environ.get('NB_LIMIT', 900))
_DIR = re.compile(r'^\s*#\s*\|\s*(.+?)\s*$')

def directives(src: str) -> list[str]:
    out = []
    for ln in src.splitlines():
        if not ln.strip(): continue
        if not (m := _DIR.match(ln)): break
        out.append(m.group(1))
    return out

def group(src: str, flags: set[str]) -> str:
    "'plain' for a cell that always runs, its flag for one that runs on demand, '' for one that never runs"
    ds = directives(src)
    if 'nbdev_export(' in src or any(re.fullmatch(r'eval\s*:\s*false', d, re.I) for d in ds): return ''
    return next((f for d in ds if (f := d.split()[0].rstrip(':')) in flags), 'plain')

def digests(nb: dict, flags: set[str]) -> dict[str, str]:
    "A digest of the code cells of each group"
    srcs = {}
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'code' and src.strip() and (g := group(src, flags)):
            srcs.setdefault(g, []).append(src)
    return {g: hashlib.sha256('\0'.join(s).encode()).hexdigest()[:16] for g, s in sorted(srcs.items())}

def one(fn: Path, want: set[str]):
    import nbformat
    from nbclient import NotebookClient
    from nbdev.clean import clean_nb
    from execnb.nbio import read_nb, write_nb
    cfg = get_config()
    flags = set(cfg.tst_flags.split())
    nb = nbformat.read(fn, 4)
    run = {'plain'} | want
    for c in nb.cells:
        if c.cell_type == 'code' and group(c.source, flags) not in run:
            c.metadata.setdefault('tags', []).append('skip-execution')
    # store_widget_state=False makes nbclient fail (KeyError) on a notebook with an Output widget
    NotebookClient(nb, timeout=LIMIT, kernel_name='python3', store_widget_state=True,
                   resources={'metadata': {'path': str(fn.parent)}}).execute()
    nb.metadata.pop('widgets', None)
    old, now = nb.metadata.get('executed', {}), digests(nb, flags)
    nb.metadata.executed = {g: d if g in run else old.get(g, '') for g, d in now.items()}
    for c in nb.cells:
        for o in c.get('outputs', []):
            data = o.get('data', {})
            if 'text/html' in data: data.pop('application/vnd.jupyter.widget-view+json', None)
    nbformat.write(nb, fn)
    clean = read_nb(fn)
    clean_nb(clean, allowed_metadata_keys=cfg.allowed_metadata_keys.split())
    write_nb(clean, fn)

def run(fn: Path, flags: str):
    t = time.time()
    command = [sys.executable, __file__, '--one', '--flags', flags, str(fn)]
    for attempt in (1, 2):
        with tempfile.TemporaryDirectory() as tmp:
            env = {k: v for k, v in os.environ.items() if k != 'MPLBACKEND'}    # figures belong in the page
            env |= dict(IN_TEST='1')                                            # nbdev_export() does nothing
            env |= dict(DISTILL_MODELS=f'{tmp}/models', DISTILL_CACHE=f'{tmp}/cache')
            env.setdefault('OMP_NUM_THREADS', '1')
            try:
                r = subprocess.run(command, timeout=LIMIT, capture_output=True, text=True, env=env)
                return fn, time.time()-t, r.returncode and r.stderr[-3000:]
            except subprocess.TimeoutExpired: err = f'no end after {LIMIT} s'
    return fn, time.time()-t, err

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path)
    p.add_argument('--flags', default='', help='flags to run, such as "slow gpu"')
    p.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one: return one(a.notebooks[0], set(a.flags.split()))
    root = get_config().config_path.resolve()
    fns = [f.resolve() for f in a.notebooks] or [f.resolve() for f in nbglob(as_path=True)]
    bad = 0
    with ThreadPoolExecutor(int(os.environ.get('NB_JOBS', 2))) as ex:
        for fn, t, err in ex.map(run, fns, [a.flags]*len(fns)):
            size = f'{fn.stat().st_size/1024:6.0f} KiB'
            print(f'{t:6.1f}s  {size}  {fn.relative_to(root)}', 'FAILED' if err else '', flush=True)
            if err:
                bad += 1
                print(err, file=sys.stderr)
    print(f'{len(fns)-bad} passed, {bad} failed')
    sys.exit(bool(bad))

if __name__ == '__main__': main()
