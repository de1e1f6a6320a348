"""Files from strangers: at least 10,000 mutants of a model file, each loaded in this process.

Every one either loads to a model that passes its own checks or raises `ModelFileError`. Meanwhile an audit hook
(PEP 578) watches that no code runs and nothing is written, and each mutant's peak of memory and its time are measured.

    DISTILL_FUZZ=20 pytest tests/test_fuzz.py     twenty times as many
"""
import copy, encodings.raw_unicode_escape, encodings.unicode_escape, io, json, os, pickle, random, sys, tarfile, time
import warnings, zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import torch
import encodings.cp437, torch.nested._internal.ops      # what reading a strange zip or pickle would import
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from distill.archive import archive_bytes
from distill.core import UserError
from distill.library.card import ModelFileError, plain_settings
from distill.library.catalog import ModelLibrary
from distill.models.contents import read_contents
from distill.models.persistence import load_model, verify_model
from distill.training.loop import read_checkpoint
from little import craft, records, rezip, same, save, tiny, vocoder

TIMES = float(os.environ.get('DISTILL_FUZZ', 1))
MEMORY, SECONDS = 200e6, 5.

# --- a watcher: what happens while a file is loaded

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = ('os.', 'subprocess.', 'shutil.', 'socket.', 'ctypes.', 'urllib.', 'tempfile.', 'pty.', 'code.',
             'webbrowser.', 'winreg.', 'sqlite3.', 'marshal.', 'syslog.', 'signal.', 'builtins.input')
ALLOWED = 'os.listdir', 'os.scandir'
CODE = 'exec', 'compile', 'pickle.find_class'
watching, seen = [], []

TORCH = str(Path(torch.__file__).parent)

def _torch_imports_itself():
    "Whether a module of torch is being imported: it has parts that it imports late"
    f = sys._getframe(2)
    while f and not (f.f_code.co_name == '<module>' and f.f_code.co_filename.startswith(TORCH)): f = f.f_back
    return f is not None

def _hook(event, args):
    if not watching: return
    writes = event == 'open' and (args[2] or 0) & WRITES
    forbidden = event.startswith(FORBIDDEN) and event not in ALLOWED
    if not (writes or event in CODE or forbidden): return
    if event == 'marshal.loads': return
    if event == 'exec' and getattr(args[0], 'co_filename', '').startswith(TORCH): return
    if event in ('exec', 'compile') and _torch_imports_itself(): return
    seen.append((event, str(args)[:200]))

sys.addaudithook(_hook)

def _peak(reset=False):
    "The highest memory this process had since the last reset, bytes (Linux)"
    if reset:
        with open('/proc/self/clear_refs', 'w') as f: f.write('5')
    with open('/proc/self/status') as f: return int(f.read().partition('VmHWM:')[2].split()[0])*1024

LINUX = Path('/proc/self/clear_refs').exists()

class Tally(dict):
    "What became of the mutants of one kind"
    n = loaded = worst_memory = worst_seconds = 0

    def load(self, path, size):
        "Load one mutant and judge what happened"
        self.n += 1
        before = _peak(reset=True) if LINUX else 0
        watching.append(1)
        start = time.perf_counter()
        try:
            m = load_model(path)
            watching.clear()
            assert m.net.decode(torch.zeros(1, m.net.cfg.latent, 2)).isfinite().all()
            self.loaded += 1
        except ModelFileError as e: self.refused(e, path)
        finally: watching.clear()
        took, grown = time.perf_counter() - start, (_peak() - before if LINUX else 0)
        self.worst_seconds, self.worst_memory = max(self.worst_seconds, took), max(self.worst_memory, grown)
        assert not seen, f'something ran or was written: {seen}'
        assert took < SECONDS, f'{took:.1f} s'
        assert grown < 4*size + MEMORY, f'{grown/1e6:.0f} MB for a file of {size/1e6:.1f} MB'

    def refused(self, e, path):
        "A refusal is one sentence that names the file"
        why = str(getattr(e, 'why', e))
        assert str(path) in str(e) or 'v1 format' in str(e)
        assert '\n' not in str(e) and len(str(e)) < 600
        self[why[:24]] = self.get(why[:24], 0) + 1

    def report(self, kind, note):
        common = ', '.join(f'{v}× {k}' for k, v in sorted(self.items(), key=lambda x: -x[1])[:4])
        worst = f'{self.worst_seconds:.2f} s, {self.worst_memory/1e6:.0f} MB over before'
        note('figure', f'fuzz, {kind}: {self.n} mutants, {self.loaded} loaded and sound, '
                       f'{self.n - self.loaded} refused, 0 else; worst {worst} ({common})')

@pytest.fixture(scope='module')
def good(tmp_path_factory):
    "The bytes, contents and card of a file that loads, with everything a file can hold"
    from distill.latent.analysis import analyze
    mels = [torch.randn(8, 60, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    a = analyze(tiny(), mels, steps=2, most_axes=3, sliders=2)
    a = replace(a, noise_residual=torch.rand(len(a.states), 12))
    folder = tmp_path_factory.mktemp('good')
    f = save(folder, 'Good', tags=['a', 'b'], analysis=a, vocoder_state=vocoder(), extra=dict(mood='calm'))
    d, card = read_contents(f)
    assert not verify_model(f)
    for junk in (b'', b'PK', rezip({'archive/x': b''})):      # what is imported on the first refusal is imported now
        (folder/'junk').write_bytes(junk)
        with pytest.raises(ModelFileError): load_model(folder/'junk')
    for _ in range(2): load_model(f)
    return f.read_bytes(), d, card

def run(kind, mutants, tmp_path, note):
    "Load every mutant; nothing else may appear in the folder"
    tally, f = Tally(), tmp_path/'mutant.distillgan'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for data in mutants:
            f.write_bytes(data)
            tally.load(f, len(data))
    assert os.listdir(tmp_path) == ['mutant.distillgan']
    tally.report(kind, note)
    return tally

# --- bytes

def bytes_mutant(raw, r):
    "A file that was damaged on its way"
    b, n = bytearray(raw), len(raw)
    for _ in range(r.choice([1, 1, 1, 2, 5, 50])):
        i, j = sorted(r.randrange(len(b) + 1) for _ in range(2))
        how = r.randrange(8)
        if how <= 1: b[min(i, len(b) - 1)] ^= 1 << r.randrange(8)
        elif how == 2: b[i:i + 1] = r.randbytes(1)
        elif how == 3: del b[i:]                          # cut short
        elif how == 4: del b[i:min(j, i + r.choice([1, 8, 500]))]
        elif how == 5: b[i:i] = b[j:j + r.choice([1, 30, 2000])]
        elif how == 6: b[i:j] = bytes(j - i)
        else: b[i:i + 8] = r.choice([b'\xff'*8, b'\0'*8, b'PK\5\6', b'PK\1\2', b'\x7f\xff\xff\xff'])
        if len(b) < 2: break
    return bytes(b)

def test_bytes(good, tmp_path, record_property):
    r = random.Random(1)
    t = run('bytes', (bytes_mutant(good[0], r) for _ in range(int(4000*TIMES))), tmp_path, record_property)
    assert t.loaded < t.n/2

# --- the pickle, its checksum mended: what only a stranger with intent can send

OPCODES = b'().012FIJKLMNQRSTUVX]abcdeghijlopqrstu}' + bytes(range(0x80, 0x99))
INTEGERS = b'\xff\xff\xff\x7f', b'\0\0\0\x80', b'\0\0\0\0'
PIECES = (b'(', b'0', b'}', b']', b')', b't', b'R', b'b', b'Q', b'q\0', b'h\0', b'r\xff\xff\xff\x7f',
          b'j\xff\xff\xff\x7f', b'\x8b\xff\xff\xff\x7f', b'2'*50, b']'*3000, b'cos\nsystem\n', b'c__builtin__\neval\n')

def pickle_mutant(pkl, r):
    b = bytearray(pkl)
    for _ in range(r.choice([1, 1, 1, 2, 3, 8])):
        i, how = r.randrange(len(b)), r.randrange(7)
        if how == 0: b[i] ^= 1 << r.randrange(8)
        elif how == 1: b[i] = r.choice(OPCODES)
        elif how == 2: b[i:i + 5] = b'J' + r.choice([*INTEGERS, r.randbytes(4)])
        elif how == 3: b[i:i] = r.choice(PIECES)
        elif how == 4: del b[i:i + r.choice([1, 2, 10, 100])]
        elif how == 5:
            k = r.randrange(len(b))
            b[i:i] = b[k:k + r.choice([2, 20, 200])]
        else: b[i:i + 8] = b'G' + r.choice([b'\x7f\xf8' + bytes(6), b'\x7f\xf0' + bytes(6), r.randbytes(8)])
        if len(b) < 2: break
    return bytes(b)

def number_mutant(pkl, r):
    "Another number, in a place where a number stands: sizes, strides, offsets"
    b = bytearray(pkl)
    b[r.choice([i for i, c in enumerate(pkl) if c in b'JKM']) + 1] = r.randrange(256)
    return bytes(b)

def test_pickle(good, tmp_path, record_property):
    r, recs = random.Random(2), records(good[0])
    pkl = recs['archive/data.pkl']
    def mutants():
        for n in range(int(4500*TIMES)):
            mutant = pickle_mutant(pkl, r) if n % 3 else number_mutant(pkl, r)
            yield rezip(recs | {'archive/data.pkl': mutant})
    run('pickles', mutants(), tmp_path, record_property)

class Call:
    "A pickle that calls `f(*args)` when it is read"
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args

def calls(ran):
    "Pickles that run something"
    import builtins, codecs, functools as ft, importlib, operator, runpy, shutil, subprocess
    cmd, file = f'touch {ran}', str(ran)
    yield from (Call(os.system, cmd), Call(eval, f'open({file!r}, "w")'), Call(exec, f'open({file!r}, "w")'))
    yield from (Call(subprocess.Popen, ['touch', file]), Call(open, file, 'w'), Call(os.mkdir, file))
    yield from (Call(shutil.copy, '/etc/hostname', file), Call(importlib.import_module, 'antigravity'))
    yield from (Call(runpy.run_path, file), Call(getattr, os, 'system'), Call(torch.load, file))
    yield from (Call(torch.hub.load, 'x/y', 'z'), Call(torch.save, {}, file), Call(torch.jit.load, file))
    yield from (Call(pickle.loads, pickle.dumps(1)), Call(ft.partial, os.system, cmd), Call(map, os.system, [cmd]))
    yield from (Call(operator.methodcaller, 'x'), Call(codecs.decode, 'x', 'rot13'), Call(np.load, file))
    yield from (Call(np.fromfile, file), Call(np.memmap, file), Call(torch.tensor, [1]), Call(torch.zeros, 10**11))
    yield from (Call(torch.nn.Linear, 10**5, 10**5), Call(bytearray, 10**11), Call(range, 10**9))
    yield from (Call(builtins.__import__, 'this'), Call(Call, print, 1))

def odd_values():
    "What is not plain, or no honest tensor"
    yield from (np.zeros(3), np.float64(1), Path('/etc'), {1, 2}, frozenset(), b'x', bytearray(9), 1j, range(3))
    yield from (slice(1), Ellipsis, torch.device('cpu'), torch.float32, torch.Size([1]), torch.nn.Linear(1, 1))
    yield from (object, os.system)
    yield from (torch.nn.Parameter(torch.zeros(1)), torch.zeros(3).to_sparse(), torch.zeros(3, dtype=torch.complex64))
    yield from (torch.quantize_per_tensor(torch.zeros(3), .1, 0, torch.qint8), torch.zeros(2, 3).t())
    yield from (torch.zeros(9)[3:], torch.zeros(1).expand(10**12), torch.zeros(3, device='meta'))
    yield torch.zeros(3, requires_grad=True)

GLOBALS = [('os', 'system'), ('posix', 'system'), ('nt', 'system'), ('__builtin__', 'eval'), ('builtins', 'exec'),
           ('subprocess', 'getoutput'), ('torch', 'load'), ('torch.serialization', '_load'),
           ('torch._utils', '_rebuild_tensor_v3'), ('torch._utils', '_rebuild_parameter'),
           ('torch', 'FloatStorage\x00'), ('collections', 'Counter'), ('torch.distributions', 'x'), ('_io', 'open'),
           ('numpy.core.multiarray', '_reconstruct')]

def raw_pickles(ran):
    "Pickles written by hand"
    text = b"S'" + f'touch {ran}'.encode() + b"'\n"
    for mod, name in GLOBALS:
        m, n = mod.encode(), name.encode()
        yield b'\x80\x02c' + m + b'\n' + n + b'\n(' + text + b'tR.'
        yield b'\x80\x04\x8c' + bytes([len(m)]) + m + b'\x8c' + bytes([len(n)]) + n + b'\x93(' + text + b'tR.'
        yield b'(' + text + b'i' + m + b'\n' + n + b'\n.'
    many = 1_000_000
    yield from (b'\x80\x02]' + b']a'*(many//2) + b'.', b'\x80\x02' + b'('*900_000 + b'.')
    yield from (b'\x80\x02]' + b'q\0h\0a'*200_000 + b'.', b'\x80\x02}r\xff\xff\xff\xff.', b'\x80\x05\x95' + b'\xff'*8)
    yield from (b'\x80\x02\x8d' + b'\xff'*8, b'\x80\x02X\xff\xff\xff\x7f', b'\x80\x02T\xff\xff\xff\x7f')
    yield from (b'\x80\x02B\xff\xff\xff\xff', b'\x80\x02\x8b\xff\xff\xff\x7f', b'I' + b'9'*many + b'\n.')
    yield from (b'L' + b'9'*many + b'L\n.', b'c' + b'a'*many, b'', b'.', b'\x80\x02N.', b'\x80\x02.')
    yield from (b'\x80\x02N.' + b'cos\nsystem\n', b'\x80\x02P0\n.', b'\x80\x02\x82\x01.', b'\x80\x02K\x01Q.')
    yield b'\x80\x02X\7\0\0\0storageQ.'

def with_payload(d, where, payload):
    "Contents that hold it in one place"
    if where == 'whole': return payload
    c = copy.deepcopy(d)
    if where == 'weight': c['model_state_dict']['encoder.0.bias'] = payload
    elif where == 'deep': c['training_config']['x'] = [[{'y': payload}]]
    else: c[where] = payload
    return c

UNWRITABLE = NotImplementedError, TypeError, AttributeError, RuntimeError, pickle.PicklingError

def test_payloads(good, tmp_path, record_property):
    raw, d, card = good
    ran, box, recs = tmp_path/'ran', tmp_path/'box', records(raw)
    box.mkdir()
    def mutants():
        for p in (*calls(ran), *odd_values()):
            for where in ('whole', 'format', 'metadata', 'weight', 'deep'):
                c = with_payload(d, where, p)
                for zipped in (True, False):
                    with suppress(*UNWRITABLE): yield craft(c, card, _use_new_zipfile_serialization=zipped)
            with suppress(*UNWRITABLE): yield pickle.dumps(p)
        for p in raw_pickles(ran):
            yield p
            yield rezip(recs | {'archive/data.pkl': p})
        yield from legacy_files(d)
    run('payloads', mutants(), box, record_property)
    assert not ran.exists()

def legacy_files(d):
    "Files of torch's older formats, of NumPy and of TorchScript"
    def written(write):
        buf = io.BytesIO()
        write(buf)
        return buf.getvalue()
    def tar(buf):
        with tarfile.open(fileobj=buf, mode='w') as t:
            for name in ('sys_info', 'pickle', 'storages', 'tensors'):
                data = pickle.dumps({})
                info = tarfile.TarInfo(name)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
    yield written(tar)
    yield written(lambda buf: torch.save(d, buf, _use_new_zipfile_serialization=False))
    for proto in range(6): yield pickle.dumps(dict(format='distillgan_model', version=1), protocol=proto)
    yield written(lambda buf: np.savez(buf, a=np.zeros(3)))
    yield written(lambda buf: torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buf))
    yield written(lambda buf: torch.save(d, buf))             # ours, but without a card

# --- the zip

EXTRAS = ('/etc/passwd', '../../evil', 'archive/constants.pkl', 'archive/code/__torch__.py', 'x', 'archive/',
          'archive/data/999', 'archive//data.pkl', './archive/data.pkl', 'archive/data.pkl ', 'a'*60_000)

def other_names(name):
    "A record's name, so that it means another place"
    yield from (f'/{name}', f'../{name}', f'archive/../{name}', name.replace('/', '\\'), f'other/{name}', name + '/')
    yield from (name.upper(), name + '\0x', 'C:' + name, name.replace('archive', 'ärchiv'))

def record_mutants(items):
    "Records missing, twice, renamed, cut, or where none belongs"
    recs = dict(items)
    yield rezip(items + items)
    for name, data in items:
        yield rezip(items + [(name, data)])
        yield rezip([(name, b'')] + items)
        yield rezip({k: v for k, v in items if k != name})
        for other in (b'', data[:-1], data + b'x'): yield rezip(recs | {name: other})
        for new in other_names(name): yield rezip([(new if k == name else k, v) for k, v in items])
    for extra in EXTRAS:
        yield rezip(items + [(extra, b'x')])
        yield rezip([(extra, b'x')] + items)
    for n in (20_001, 60_000): yield rezip([(f'archive/data/{i}', b'') for i in range(n)])
    yield many(1_000_000)

FIELDS = (6, 2), (8, 2), (10, 4), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)   # offset, width

def directory_mutants(raw, names):
    "One field of one line of the zip's directory, changed"
    for name in names:
        line = raw.rindex(name.encode()) - 46
        for field, width in FIELDS:
            b, at = bytearray(raw), line + field
            for v in (0, 1, 0xff, (1 << 8*width) - 1, (1 << 8*width - 1) - 1):
                b[at:at + width] = v.to_bytes(width, 'little')
                yield bytes(b)

def end_mutants(raw, r):
    "Something before or after the zip, and its last words changed"
    for more in (b'x', b'\0'*22, raw[-22:], raw[-80:], raw):
        yield raw + more
        yield more + raw
    for _ in range(50):
        b = bytearray(raw)
        b[len(raw) - 1 - r.randrange(22)] = r.randrange(256)
        yield bytes(b)
    buf = io.BytesIO(raw)
    with zipfile.ZipFile(buf, 'a') as z: z.comment = b'hello'
    yield buf.getvalue()

CARDS = (b'', b'{}', b'[]', b'null', b'\xff', b'{"format": "distillgan_model"}', b'['*500_000, b'{"a":'*200_000,
         b'1'*500_000, b'"' + b'\\u0000'*100_000 + b'"', b' '*(1 << 20))

def zip_mutants(raw, card, r):
    recs = records(raw)
    yield from record_mutants(list(recs.items()))
    for how in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA): yield rezip(recs, compression=how)
    for name in recs: yield bomb(recs, name, 50_000_000)
    yield from directory_mutants(raw, recs)
    yield from end_mutants(raw, r)
    for c in (*CARDS, json.dumps(card).encode()*2): yield rezip(recs | {'archive/card.json': c})

def bomb(recs, name, size):
    "One record swells when it is read"
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, 'w') as z:
        for k, v in recs.items():
            if k == name: z.writestr(k, bytes(size), compress_type=zipfile.ZIP_DEFLATED)
            else: z.writestr(k, v)
    return buf.getvalue()

def many(n):
    "A zip of n empty records, written by hand because zipfile would take a minute; its end says 1,000 of them"
    local = b'PK\3\4' + bytes(22) + b'\x0b\0\0\0' + b'archive/x/y'
    line = b'PK\1\2' + bytes(24) + b'\x0b\0' + bytes(16) + b'archive/x/y'
    head = line*n
    sizes = len(head).to_bytes(4, 'little') + len(local).to_bytes(4, 'little')
    return local + head + b'PK\5\6' + bytes(4) + b'\xe8\3\xe8\3' + sizes + bytes(2)

def test_zip(good, tmp_path, record_property):
    def mutants():
        for i in range(max(1, round(TIMES))): yield from zip_mutants(good[0], good[2], random.Random(i))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run('zips', mutants(), tmp_path, record_property)

# --- records that a reader may take for others

def look_alikes(name):
    "Names that some reader or file system takes for this one"
    folder, _, file = name.rpartition('/')
    yield from (name, name.upper(), name.title(), name.swapcase(), f'{folder.upper()}/{file}', f'{folder}/{file.upper()}')
    yield from (f'{folder}//{file}', f'{folder}/./{file}', f'./{name}', f'/{name}', f'{folder}/x/../{file}')
    yield from (name.replace('/', '\\'), f'{name}.', f'{name} ', f' {name}', f'{name}/', f'{name}\0x', f'{name}\0')
    yield from (''.join(chr(ord(c) + 0xfee0) if c in file else c for c in name), name.replace('k', '\u212a'))
    yield from (name.replace('a', '\u0430'), name.replace('0', '\u0660'), name.replace('0', '00'), name + '\u200b')
    yield from (name.replace('e', 'e\u0301'), name.replace('s', '\u017f'), name.replace('.', '\u2024'))

def with_look_alikes(good, other):
    "Archives with a second record, from `other`, that looks like one of their own: first or last, with others between"
    items = list(good.items())
    for name, data in other.items():
        if name not in good or name.count('/') == 2 and name != 'archive/data/0': continue
        for alike in look_alikes(name):
            for fillers in (0, 3):
                more = [(f'archive/data/9{i}', b'x') for i in range(fillers)]
                yield name, rezip([(alike, data), *items, *more])
                yield name, rezip([*items, *more, (alike, data)])

def test_nothing_is_read_but_what_was_checked(good, tmp_path, record_property):
    raw, d, card = good
    other = copy.deepcopy(d)
    other['training_history'] = [dict(other='not what was checked')]
    for weight in other['model_state_dict'].values(): weight.add_(1)
    others = records(craft(other, card)) | {'archive/byteorder': b'big', 'archive/version': b'9'}
    model, checkpoint, loaded, n = tmp_path/'m.distillgan', tmp_path/'c.pt', 0, 0
    saved = records(bytes(archive_bytes(dict(format='distill_checkpoint', version=1, x=torch.zeros(3)))))
    unsaved = records(bytes(archive_bytes(dict(format='distill_checkpoint', version=1, x=torch.ones(3), y='other'))))
    warnings.simplefilter('ignore')
    for name, data in with_look_alikes(records(raw), others):
        n += 1
        model.write_bytes(data)
        try: m = load_model(model)
        except ModelFileError: continue
        loaded += 1
        assert m.training_history == d['training_history'], name
        assert same(dict(m.net.state_dict()), d['model_state_dict']), name
    for name, data in with_look_alikes(saved, unsaved):
        n += 1
        checkpoint.write_bytes(data)
        try: c = read_checkpoint(checkpoint)
        except UserError: continue
        loaded += 1
        assert list(c) == ['format', 'version', 'x'] and not c['x'].any(), name
    record_property('figure', f'fuzz, look-alikes: {n} files with a second record that some reader takes for a first, '
                              f'{n - loaded} refused, {loaded} read without it')

@pytest.mark.parametrize('field', ['local', 'directory'])
def test_a_record_with_two_names(good, tmp_path, field):
    "One name in the directory of the zip and another one before the record's bytes"
    raw = bytearray(good[0])
    at = raw.index(b'archive/data.pkl') if field == 'local' else raw.rindex(b'archive/data.pkl')
    raw[at:at + 16] = b'archive/DATA.PKL'
    (tmp_path/'m.distillgan').write_bytes(raw)
    with pytest.raises(ModelFileError): load_model(tmp_path/'m.distillgan')

def checkpoint_mutants(raw, r):
    for _ in range(300): yield bytes_mutant(raw, r)
    recs = records(raw)
    for _ in range(300): yield rezip(recs | {'archive/data.pkl': pickle_mutant(recs['archive/data.pkl'], r)})

def test_checkpoints_from_strangers(tmp_path):
    "A checkpoint is read as safely as a model"
    ran, file, r = tmp_path/'ran', tmp_path/'c.pt', random.Random(3)
    contents = dict(format='distill_checkpoint', version=1, kind='vae', net={'w': torch.ones(9)}, done=50, sums={}, seconds=.5)
    raw = bytes(archive_bytes(contents))
    file.write_bytes(raw)
    assert read_checkpoint(file)['done'] == 50
    def mutants():
        yield from checkpoint_mutants(raw, r)
        for call in calls(ran):
            with suppress(*UNWRITABLE): yield craft(contents | dict(net=call), b'{}')
        for p in raw_pickles(ran): yield rezip(records(raw) | {'archive/data.pkl': p})
    for data in mutants():
        file.write_bytes(data)
        watching.append(1)
        try: read_checkpoint(file)
        except UserError as e: assert '\n' not in str(e) and str(file) in str(e)
        finally: watching.clear()
        assert not seen and not ran.exists()

# --- the contents: property-based

BIG = [10**9, -1, 0, 2**31, 4096, 65536, 'x'*3000]
numbers = st.integers(-2**70, 2**70) | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.sampled_from(BIG)
keys = st.text(max_size=8) | st.integers(0, 9)
def containers(x): return st.lists(x, max_size=4) | st.dictionaries(keys, x, max_size=4) | st.tuples(x, x)
plain = st.recursive(scalars, containers, max_leaves=8)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8,
                          torch.uint8, torch.bool])
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 300]), max_size=4).filter(lambda s: np.prod(s) < 1e6)
fillings = st.sampled_from([0., 1., -1., 1e30, float('nan'), float('inf'), -float('inf')])
tensors = st.builds(lambda s, dt, v: torch.full(s, v, dtype=torch.float64).to(dt), shapes, dtypes, fillings)

def leaves(d, path=()):
    "Every place in a tree"
    for k, v in d.items() if isinstance(d, dict) else enumerate(d):
        yield path + (k,)
        if isinstance(v, (dict, list)): yield from leaves(v, path + (k,))

def change(d, where, how, v):
    for k in where[:-1]:
        if not isinstance(d, (dict, list, tuple)): return
        try: d = d[k]
        except (KeyError, IndexError, TypeError): return
    if not isinstance(d, (dict, list)): return
    with suppress(KeyError, IndexError, TypeError):
        if how == 'drop': del d[where[-1]]
        elif how == 'add' and isinstance(d, dict): d[str(v)[:20]] = v
        else: d[where[-1]] = v

def with_settings(card, d):
    "The card with the settings that these contents have, so that more than the card is wrong with them"
    groups = dict(training=d.get('training_config'), model=d.get('model_config'), mel=d.get('spectrogram_config'))
    return card | dict(settings=plain_settings(**{k: v for k, v in groups.items() if isinstance(v, dict)}))

def test_contents(good, tmp_path, record_property):
    raw, d, card = good
    tally, f = Tally(), tmp_path/'mutant.distillgan'
    places = sorted(leaves(d), key=lambda p: (len(p), str(p)))
    spots = st.sampled_from([p for p in places if p[0] != 'model_state_dict']) | st.sampled_from(places)
    ways = st.sampled_from(['set', 'set', 'set', 'drop', 'add'])
    several = st.lists(st.tuples(spots, ways, plain | tensors), min_size=1, max_size=3)

    @settings(max_examples=int(1500*TIMES), deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(changes=several, card_too=st.booleans(), extra=plain)
    def attempt(changes, card_too, extra):
        c, k = copy.deepcopy(d), copy.deepcopy(card)
        for where, how, v in changes:
            change(c, where, how, v)
            if card_too and where[0] == 'metadata': change(k, where, how, extra if isinstance(v, torch.Tensor) else v)
        if card_too: k = with_settings(k, c)
        try: data = craft(c, json.dumps(k).encode())
        except (TypeError, ValueError, OverflowError): data = craft(c, card)
        f.write_bytes(data)
        tally.load(f, len(data))

    attempt()
    tally.report('contents', record_property)
    assert tally.loaded and os.listdir(tmp_path) == ['mutant.distillgan']

NUMBERS = (0, -1, 1, 2, 3, 7, 255, 256, 4096, 65536, 10**9, 2**31, 2**62, .5, 1e300, float('nan'), float('inf'), True,
           None, '8', [], [8], (1.,)*8, (1.,)*4096, {})

def test_settings(good, tmp_path, record_property):
    "Configurations that announce what is not there: each number of each, by itself"
    raw, d, card = good
    def mutant(**parts):
        c = copy.deepcopy(d)
        for part, values in parts.items(): c[part] |= values
        return craft(c, with_settings(card, c))
    def mutants():
        for part in ('model_config', 'spectrogram_config'):
            for k in d[part]:
                for v in NUMBERS: yield mutant(**{part: {k: v}})
        for n_mels in (8, 256, 1024, 4096):
            for n_fft in (64, 4096, 65536):
                mel, net = dict(n_mels=n_mels, n_fft=n_fft), dict(n_mels=n_mels, mean=(), std=())
                yield mutant(spectrogram_config=mel, model_config=net)
        for channels in (4096, 512):
            for stages in (8, 1):
                for kernel in (63, 3): yield mutant(model_config=dict(channels=channels, stages=stages, kernel=kernel))
    run('settings', mutants(), tmp_path, record_property)

# --- the catalog reads the same files, and must not stumble either

def test_catalog(good, tmp_path, record_property):
    r = random.Random(3)
    mutants = [bytes_mutant(good[0], r) for _ in range(int(300*TIMES))]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        zips = enumerate(zip_mutants(good[0], good[2], r))
        mutants += [data for i, data in zips if i % 4 == 0 and len(data) < 1e6]
    for i, data in enumerate(mutants): (tmp_path/f'{i}.distillgan').write_bytes(data)
    start = time.perf_counter()
    lib = ModelLibrary(tmp_path)
    assert len(lib) + len(lib.unreadable) == len(mutants)
    assert lib.repair_index().unreadable == lib.unreadable and len(lib.df(settings=True)) == len(lib)
    record_property('figure', f'fuzz, catalog: {len(mutants)} mutants in one library, {len(lib)} listed, '
                              f'{len(lib.unreadable)} reported, twice in {time.perf_counter() - start:.1f} s')
