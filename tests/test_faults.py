"""What the world does to a library: processes killed at any instant, sixteen at once, disks that are full or read-only.

    DISTILL_FAULTS=1 pytest tests/test_faults.py     in full: 16 processes for 60 seconds, not 8; 500 kills, not 200
"""
import contextlib, errno, os, random, shutil, signal, sqlite3, subprocess, tempfile, time, traceback, uuid
from collections import Counter
from pathlib import Path
import pytest
import torch
from distill.core import UserError, WriteError, sweep_leftovers
from distill.library.catalog import AmbiguousModel, ModelLibrary, UnknownModel, repair_index
from distill.models.contents import read_contents
from distill.models.persistence import load_model, verify_model
from little import save, vocoder

FULL = bool(int(os.environ.get('DISTILL_FAULTS', 0)))
forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')

class Log:
    "Lines that survive the process that writes them"
    def __init__(self, path):
        self.path = Path(path)
        self.path.touch()
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    def __call__(self, what, model_id): os.write(self.fd, f'{what} {model_id}\n'.encode())
    def ids(self, what): return [l.split()[1] for l in self.path.read_text().splitlines() if l.split()[0] == what]

def fork(work, *args):
    "Run `work` in a child; an exception is written beside the log and the exit code is 1"
    if pid := os.fork(): return pid
    try:
        torch.set_num_threads(1)
        work(*args)
        os._exit(0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)

def ids(lib): return [e.model_id for e in lib]

def old_index(folder, r):
    "An index as an older library would leave it"
    with sqlite3.connect(folder/'library.db') as db:
        db.execute(f'PRAGMA user_version={r.choice([0, 1])}')
        db.execute('ALTER TABLE models RENAME TO entries')

# --- kill -9

def busy(folder, log, seed):
    "Save, delete, repair, migrate, for ever; say what is about to happen and what has"
    r = random.Random(seed)
    while True:
        what = r.choice(['save', 'save', 'delete', 'repair', 'migrate'])
        if what == 'save':
            model_id = uuid.uuid4().hex
            own = vocoder() if r.random() < .3 else None
            save(folder, r.choice(['Rain', 'Bell']), model_id=model_id, vocoder_state=own)
            log('saved', model_id)
        elif what == 'delete':
            lib = ModelLibrary(folder)
            if len(found := list(lib)) < 4: continue
            e = r.choice(found)
            log('deleting', e.model_id)
            lib.delete(e)
            log('deleted', e.model_id)
        elif what == 'repair': repair_index(folder)
        else:
            with contextlib.suppress(sqlite3.Error): old_index(folder, r)
            ModelLibrary(folder)

@forks
def test_kill_at_any_instant(tmp_path, record_property):
    folder, log, r, n = tmp_path/'lib', Log(tmp_path/'log'), random.Random(0), 500 if FULL else 200
    save(folder, 'First')
    log('saved', ModelLibrary(folder).get('First').model_id)
    swept = torn = 0
    for i in range(n):
        pid = fork(busy, folder, log, i)
        time.sleep(r.uniform(.001, .08))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL, 'the child ended by itself'
        swept += len(list(folder.glob('.*.tmp.distillgan')))
        torn += (folder/'library.db-journal').exists()
        lib = ModelLibrary(folder)
        assert not lib.unreadable and not lib.note and not list(folder.glob('.*.tmp.*'))
        here, gone, saved, deleting = ids(lib), ids(lib.trash), set(log.ids('saved')), set(log.ids('deleting'))
        assert max(Counter(here + gone).values()) == 1, 'a model is there twice'
        assert saved - deleting <= set(here) and saved <= set(here) | set(gone), 'a model is lost'
        assert set(log.ids('deleted')) <= set(gone)
        for e in lib:
            if i % 20 == 0 or e.model_id not in saved: read_contents(e.path)
        if len(gone) > 200:
            lib.purge()
            log.path.write_text(''.join(f'saved {m}\n' for m in here))
    assert all(not verify_model(e) for e in ModelLibrary(folder))
    record_property('figure', f'faults, kill -9: {n} processes killed, {swept} left a temporary file '
        f'and {torn} an unfinished index, all swept and mended at the next opening; '
        f'{len(here)} models, none lost, none torn')

@forks
def test_a_sweeper_leaves_the_living_alone(tmp_path):
    from distill.core import atomic_write
    with atomic_write(tmp_path/'x.distillgan') as tmp:
        tmp.write_bytes(b'x')
        pid = fork(lambda: [ModelLibrary(tmp_path), sweep_leftovers(tmp_path)] and None)
        assert os.waitpid(pid, 0)[1] == 0 and tmp.exists()

# --- sixteen at once

DOCUMENTED = UnknownModel, AmbiguousModel

def crowd(folder, log, trouble, seed, until):
    "Everything a user does, among others who do the same"
    r, done = random.Random(seed), 0
    while time.time() < until:
        what = r.choices(['save', 'delete', 'restore', 'list', 'search', 'repair', 'df'], [6, 4, 1, 3, 3, 1, 1])[0]
        try:
            lib = ModelLibrary(folder)
            if lib.note: trouble('note', lib.note.replace(' ', '_'))
            if what == 'save':
                model_id = uuid.uuid4().hex
                save(folder, r.choice(['Rain', 'Bell', 'Kick']), model_id=model_id)
                log('saved', model_id)
            elif what == 'delete':
                found = list(lib)
                if len(found) > 20:
                    e = lib.delete(r.choice(found))
                    log('deleted', e.model_id)
            elif what == 'restore':
                found = list(lib.trash)
                if found:
                    e = lib.restore(r.choice(found))
                    log('restored', e.model_id)
            elif what == 'list':
                for e in lib: assert e.size > 1000
            elif what == 'search': lib.search('rain')
            elif what == 'repair': repair_index(folder)
            else: lib.df()
            if bad := lib.unreadable: trouble('unreadable', str(bad).replace(' ', '_'))
        except DOCUMENTED: log('documented', what)
        done += 1
    log('did', done)

@forks
def test_sixteen_processes_at_once(tmp_path, record_property):
    import pandas                                             # once, before the forks
    folder, log, trouble, seconds = tmp_path/'lib', Log(tmp_path/'log'), Log(tmp_path/'trouble'), 60 if FULL else 8
    save(folder, 'First')
    log('saved', ids(ModelLibrary(folder))[0])
    ModelLibrary(folder).df()
    until = time.time() + seconds
    pids = [fork(crowd, folder, log, trouble, i, until) for i in range(16)]
    assert [os.waitpid(p, 0)[1] for p in pids] == [0]*16, 'an error that is not documented'
    assert not trouble.path.read_text()
    lib = ModelLibrary(folder)
    events = Counter(log.ids('deleted'))
    events.subtract(log.ids('restored'))
    saved, away = set(log.ids('saved')), {m for m, n in events.items() if n}
    assert all(n in (0, 1) for n in events.values()) and len(saved) == len(log.ids('saved'))
    assert sorted(ids(lib)) == sorted(saved - away) and sorted(ids(lib.trash)) == sorted(away)
    assert repair_index(folder).unreadable == {} and len(list(folder.glob('*.distillgan'))) == len(lib)
    assert all(not verify_model(e) for e in list(lib)[:50])
    did, deleted, restored = sum(map(int, log.ids('did'))), len(log.ids('deleted')), len(log.ids('restored'))
    record_property('figure', f'faults, 16 processes for {seconds} s: {did} operations, '
        f'{len(saved)} saved, {deleted} deleted, {restored} restored; '
        f'nothing lost, nothing twice; {len(log.ids("documented"))} times somebody else was first')

@forks
def test_two_who_save_one_name_both_keep_it(tmp_path):
    pids = [fork(lambda: [save(tmp_path, 'Same') for _ in range(10)] and None) for _ in range(4)]
    assert [os.waitpid(p, 0)[1] for p in pids] == [0]*4
    lib = ModelLibrary(tmp_path)
    assert len(lib) == 40 == len({e.model_id for e in lib})
    assert {e.path.name for e in lib} == {'Same.distillgan', *(f'Same_{i}.distillgan' for i in range(1, 40))}

# --- disks

@pytest.fixture
def disk(tmp_path):
    "A small disk of its own: returns its folder and a function that mounts it anew with other options"
    folder = tmp_path/'disk'
    folder.mkdir()
    def mount(*options):
        command = ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', str(folder)]
        return subprocess.run(command, capture_output=True)
    if mount('size=200k').returncode: pytest.skip('mounting a small disk needs root')
    yield folder, lambda *o: mount('remount', *o)
    subprocess.run(['umount', '-l', str(folder)])

def fill(folder, leave):
    "Fill a disk but for `leave` bytes"
    with open(folder/'filler', 'wb') as f:
        with contextlib.suppress(OSError):
            while True: os.write(f.fileno(), bytes(4096))
        f.truncate(max(0, f.tell() - leave))

def test_a_disk_that_fills_up(disk):
    folder, _ = disk
    f = save(folder, 'Old')
    before = sorted(folder.iterdir())
    fill(folder, 8192)
    big = vocoder({'w': torch.zeros(10_000)})
    why = r'the model takes 5\d\.\d kB and 8\.2 kB are free, so 4\d\.\d kB are missing: free some space'
    with pytest.raises(WriteError, match=rf'Cannot write .*Old_1.distillgan: {why}') as e:
        save(folder, 'Old', vocoder_state=big)
    with pytest.raises(WriteError, match='are missing'): save(folder, 'Old', vocoder_state=big, path=f)
    assert isinstance(e.value, OSError) and not verify_model(f)
    assert sorted(folder.iterdir()) == sorted([*before, folder/'filler'])
    assert ids(ModelLibrary(folder)) and not ModelLibrary(folder).note

def test_a_full_disk_still_lists_and_deletes(disk):
    folder, _ = disk
    save(folder, 'Old')
    (folder/'library.db').unlink()
    fill(folder, 0)
    lib = ModelLibrary(folder)
    assert [e.name for e in lib] == ['Old'] and len(lib.df()) == 1
    assert lib.repair_index().unreadable == {} and 'cannot be used' in lib.note and len(lib) == 1
    (folder/'filler').unlink()
    assert repair_index(folder).unreadable == {} and not ModelLibrary(folder).note

def test_a_full_index_does_not_undo_a_save(tmp_path, monkeypatch):
    from distill.library import index
    def full(*a): raise sqlite3.OperationalError('database or disk is full')
    monkeypatch.setattr(index.IndexFile, 'put', full)
    f = save(tmp_path)
    monkeypatch.undo()
    assert ModelLibrary(tmp_path).get('Tiny').path == f

def test_no_room_in_words_without_a_small_disk(tmp_path, monkeypatch):
    f = save(tmp_path)
    def no_room(self, data): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Path, 'write_bytes', no_room)
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(9, 9, 1000))
    with pytest.raises(WriteError, match='1.0 kB are free, so .* kB are missing'): save(tmp_path)
    assert sorted(x.name for x in tmp_path.iterdir()) == ['Tiny.distillgan', 'library.db'] and not verify_model(f)

def read_only(folder, model_id, index):
    "What a reader can do, and what it is told"
    lib = ModelLibrary(folder)
    assert [e.name for e in lib] == ['Kept'] and len(lib.df()) == 1
    assert lib.search('kept') and lib.get('Kept').model_id == model_id
    assert not lib.note and load_model(lib.get('Kept')).metadata.name == 'Kept'
    assert repair_index(folder).unreadable == {} and len(ModelLibrary(folder)) == 1
    for act in (lambda: save(folder, 'New'), lambda: lib.delete('Kept'), lambda: lib.delete('Kept', purge=True)):
        with pytest.raises(WriteError, match='read-only|may not be written') as e: act()
        assert str(folder) in str(e.value) and '\n' not in str(e.value)
    assert len(ModelLibrary(folder)) == 1

@pytest.mark.parametrize('index', [True, False], ids=['with an index', 'without'])
def test_a_read_only_disk(disk, index):
    folder, again = disk
    save(folder, 'Kept')
    model_id = ids(ModelLibrary(folder))[0]
    if not index: (folder/'library.db').unlink()
    assert not again('ro').returncode
    read_only(folder, model_id, index)

@forks
@pytest.mark.parametrize('index', [True, False], ids=['with an index', 'without'])
def test_a_folder_one_may_not_write(index):
    import pandas
    with tempfile.TemporaryDirectory() as tmp:
        os.chmod(tmp, 0o755)
        folder = Path(tmp)/'lib'
        f = save(folder, 'Kept')
        model_id = ids(ModelLibrary(folder))[0]
        ModelLibrary(folder).df()
        load_model(f)
        if not index: (folder/'library.db').unlink()
        for x in folder.iterdir(): os.chmod(x, 0o444)
        os.chmod(folder, 0o555)
        def as_reader():
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            read_only(folder, model_id, index)
        assert os.waitpid(fork(as_reader), 0)[1] == 0
        os.chmod(folder, 0o755)

def test_a_library_where_a_file_is_in_the_way(tmp_path):
    (tmp_path/'lib').write_text('a file')
    with pytest.raises(UserError, match='Not a directory'): save(tmp_path/'lib'/'deeper', 'x')
