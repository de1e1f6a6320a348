"A library: files are the truth, the index is a cache"
import json, math, os, shutil, sqlite3, stat, subprocess, sys, tempfile, traceback, unicodedata
from pathlib import Path
import pytest
from typer.testing import CliRunner
import distill.cli, distill.cli.doctor
from distill import core
from distill.audio.files import Sound
from distill.core import UserError, cache_folder, expand, free_names, models_folder
from distill.generation.presets import delete_preset, presets, save_preset
from distill.library.card import ModelEntry, ModelFileError, file_stem, plain_settings, read_card
from distill.library.catalog import AmbiguousModel, ModelLibrary, Repair, UnknownModel, find_entry, repair_index
from distill.models.metadata import ModelMetadata, VocoderInfo, vocoder_text
from distill.models.persistence import edit_model, load_model, verify_model, write_model as save_again
from little import offset, put_card, rezip, save, tiny

HIFI = VocoderInfo('hifigan_v2', 50, .03, '2026-01-15')
PARTS = b'"vocoder": null, "sizes": {}, "settings": {}, "library_version": "0.1"'
CARD = b'{"format": "distillgan_model", "version": 1, "metadata": {"name": "x"}, ' + PARTS + b'}'

@pytest.fixture
def shelf(tmp_path):
    put_card(tmp_path, 'Rain on tin', HIFI, model_id='a1b2c3d4e5', created='2026-01-15', tags=['field', 'Wet'],
             corpus='rain', epochs=40, held_out=.81)
    put_card(tmp_path, 'Rain at sea', model_id='a1b2ffff00', created='2026-01-16', tags=['field'], corpus='rain',
             epochs=55)
    put_card(tmp_path, 'Kalimba', VocoderInfo('fourier', 9), model_id='kkkk0000', created='2026-01-14', corpus='thumbs',
             description='Made of Ölfässer')
    repair_index(tmp_path)
    return tmp_path

def names(lib): return [e.name for e in lib]

def rows(folder):
    with sqlite3.connect(folder/'library.db') as db: return {r[0] for r in db.execute('SELECT file FROM models')}

def write_model(folder, card): (folder/'x.distillgan').write_bytes(rezip({'archive/card.json': card}))

# --- the folder is the truth

def test_newest_first_and_nothing_imported_that_is_slow(shelf):
    code = f'''import sys
from distill.library import ModelLibrary
print([e.name for e in ModelLibrary({str(shelf)!r})], 'torch' in sys.modules, 'pandas' in sys.modules)'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "['Rain at sea', 'Rain on tin', 'Kalimba'] False False"

def test_the_usual_library(shelf, monkeypatch):
    monkeypatch.setenv('DISTILL_MODELS', str(shelf))
    assert len(ModelLibrary()) == 3 and ModelLibrary().folder == shelf and repair_index().unreadable == {}

def test_files_come_and_go(shelf, tmp_path_factory):
    lib, away = ModelLibrary(shelf), tmp_path_factory.mktemp('away')
    os.rename(shelf/'kkkk0000.distillgan', away/'k.distillgan')
    assert names(lib) == ['Rain at sea', 'Rain on tin'] and 'kkkk0000' not in lib       # a library that is open notices
    shutil.copy(away/'k.distillgan', shelf/'any name.distillgan')
    assert names(ModelLibrary(shelf)) == ['Rain at sea', 'Rain on tin', 'Kalimba']
    assert lib.get('kkkk0000').path.name == 'any name.distillgan'
    (away/'any name.distillgan').write_bytes((shelf/'a1b2ffff00.distillgan').read_bytes())
    os.replace(away/'any name.distillgan', shelf/'any name.distillgan')
    assert len(lib.search('sea')) == 2

def test_what_is_not_a_model_is_reported_and_the_rest_stays(shelf):
    for name in ('a.distillgan', '.hidden.distillgan', 'old.distill', 'x.pt'): (shelf/name).write_bytes(b'')
    (shelf/'b.distillgan').write_bytes(b'PK\3\4' + bytes(500))
    (shelf/'c.distillgan').mkdir()
    os.symlink('nowhere', shelf/'d.distillgan')
    os.symlink('e.distillgan', shelf/'e.distillgan')
    lib = ModelLibrary(shelf)
    assert len(lib) == 3 and list(lib.unreadable) == [f'{name}.distillgan' for name in 'abde']
    assert 'a link to a file that is not there' in lib.unreadable['d.distillgan']
    put_card(shelf, 'Back', model_id='nowhere0').rename(shelf/'nowhere')                # such as a disk that is plugged in
    assert len(ModelLibrary(shelf)) == 4 and 'd.distillgan' not in ModelLibrary(shelf).unreadable

@pytest.mark.parametrize('name', [b'fu\xdf\xff.distillgan', b'two\nlines.distillgan', b'\xe2\x80\xae.distillgan'])
def test_a_file_name_that_is_no_text(shelf, name):
    odd, bad = (shelf/os.fsdecode(name)), (shelf/os.fsdecode(b'bad' + name))
    shutil.copy(shelf/'kkkk0000.distillgan', odd)
    bad.write_text('no model')
    for lib in (ModelLibrary(shelf), ModelLibrary(shelf)):
        assert len(lib) == 4 == len(lib.df()) and list(lib.unreadable) == [bad.name] and not lib.note
        assert lib.get(odd).path == odd and repair_index(shelf).unreadable.keys() == {bad.name}
    r = sh(shelf, 'list')
    assert r.exit_code == 0 and r.output.count('Kalimba') == 2 and len(r.stdout.splitlines()) == 5
    assert sh(shelf, 'info', str(odd)).exit_code == 0
    lib.delete(odd)
    assert lib.restore('kkkk0000').path == odd and len(ModelLibrary(shelf)) == 4

@pytest.mark.parametrize('year', [1600, 1902, 2300, 2500])
def test_a_file_of_an_odd_date_spoils_its_own_date_at_most(shelf, year):
    seconds = (year - 1970)*365.2425*86400
    os.utime(shelf/'kkkk0000.distillgan', (seconds, seconds))
    put_card(shelf, 'Then', model_id='then0000', created=f'{year}-01-01')
    lib = ModelLibrary(shelf)
    assert len(lib) == 4 and not lib.note and not lib.unreadable
    assert lib.get('then0000').created.startswith(str(year)) and lib.get('Kalimba').modified
    df = lib.df()
    assert len(df) == 4 and df.created.dt.year['a1b2ffff00'] == 2026
    assert lib.refresh() == Repair([], [], {}) and ModelEntry.from_file(shelf/'kkkk0000.distillgan').name == 'Kalimba'

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
def test_a_file_that_may_not_be_read_comes_back_once_it_may():
    import tempfile
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        folder.chmod(0o777)
        put_card(folder, 'Open', model_id='open0000')
        f = put_card(folder, 'Closed', model_id='closed00')
        f.chmod(0)
        def as_somebody(expected):
            if os.geteuid() == 0: os.setuid(65534)
            lib = ModelLibrary(folder)
            assert (names(lib), list(lib.unreadable)) == expected and not lib.note
            assert lib.refresh() == Repair([], [], lib.unreadable)
        for mode, expected in ((0, (['Open'], [f.name])), (0o644, (['Closed', 'Open'], []))):
            f.chmod(mode)
            if not (pid := os.fork()):
                try:
                    as_somebody(expected)
                    os._exit(0)
                finally: os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0

def test_the_index_can_be_lost(shelf):
    assert len(ModelLibrary(shelf)) == 3
    (shelf/'library.db').unlink()
    assert len(ModelLibrary(shelf)) == 3 and not (shelf/'library.db').exists()   # looking leaves nothing behind
    assert repair_index(shelf) and len(rows(shelf)) == 3

INTRUDER = "INSERT INTO models (file, size, mtime_ns, model_id, card) VALUES ('../victim.txt', 1, 1, 'victim', '{}')"
DAMAGE = dict(table='DROP TABLE models', settings='DROP TABLE settings', columns='ALTER TABLE models DROP COLUMN card',
              rows=INTRUDER)

def damage_index(db, how):
    raw = db.read_bytes()
    if how == 'empty': db.write_bytes(b'')
    if how == 'text': db.write_bytes(b'my shopping list '*300)
    if how == 'cut': db.write_bytes(raw[:len(raw)//2])
    if how == 'torn': db.write_bytes(raw[:3000] + os.urandom(len(raw) - 3000))
    if how == 'journal': db.with_name('library.db-journal').write_bytes(os.urandom(3000))
    if how in DAMAGE:
        with sqlite3.connect(db) as c: c.execute(DAMAGE[how])

@pytest.mark.parametrize('how', ['empty', 'text', 'cut', 'torn', 'journal', *DAMAGE])
def test_the_index_can_be_damaged(shelf, how):
    lib, victim = ModelLibrary(shelf), shelf.parent/'victim.txt'
    victim.write_text('mine')
    damage_index(shelf/'library.db', how)
    for library in (lib, ModelLibrary(shelf)):
        assert sorted(names(library)) == ['Kalimba', 'Rain at sea', 'Rain on tin']
        assert len(library.df(settings=True)) == 3
        with pytest.raises(UnknownModel): library.delete('victim')
    assert victim.read_text() == 'mine' and not ModelLibrary(shelf).note

@pytest.mark.parametrize('version', [0, 1, 3])
def test_another_version_of_the_index(shelf, version):
    (shelf/'library.db').unlink()
    with sqlite3.connect(shelf/'library.db') as db:
        db.execute('CREATE TABLE models (file, name)')
        db.execute("INSERT INTO models VALUES ('ghost.distillgan', 'ghost')")
        db.execute(f'PRAGMA user_version={version}')
    lib = ModelLibrary(shelf)
    assert len(lib) == 3 and 'ghost' not in names(lib)
    with sqlite3.connect(shelf/'library.db') as db: now = db.execute('PRAGMA user_version').fetchone()[0]
    newer = version == 3                                                   # a newer one is not ours to change
    assert now == (3 if newer else 2) and ('newer version of Distill' in lib.note) == newer

def test_repair_reports(shelf):
    lib = ModelLibrary(shelf)
    with sqlite3.connect(shelf/'library.db') as db:
        db.execute("DELETE FROM models WHERE model_id='kkkk0000'")
        db.execute("INSERT INTO models (file, size, mtime_ns) VALUES ('gone.distillgan', 1, 1)")
        db.execute("UPDATE models SET name='wrong', card='{}' WHERE model_id='a1b2c3d4e5'")
    (shelf/'bad.distillgan').write_text('x')
    r = repair_index(shelf)
    bad = {'bad.distillgan': 'it is not a zip, or it is cut short'}
    assert r == Repair(['bad.distillgan', 'kkkk0000.distillgan'], ['gone.distillgan'], bad)
    assert str(r) == '2 added, 1 removed, 1 unreadable' and lib.get('a1b2c3d4e5').name == 'Rain on tin'
    assert repair_index(shelf) == Repair([], [], bad)

def test_a_folder_that_is_not_there_is_an_empty_library_and_stays_so(tmp_path):
    lib = ModelLibrary(tmp_path/'none')
    assert len(lib) == 0 and lib.df().empty and lib.df(settings=True).empty and not lib.note
    assert not (tmp_path/'none').exists() and repr(lib) == 'ModelLibrary(none): 0 models'
    (tmp_path/'none').mkdir()
    put_card(tmp_path/'none', 'First')
    assert names(lib) == ['First']

def test_a_folder_without_models_gets_no_index(tmp_path):
    (tmp_path/'song.wav').write_bytes(b'')
    assert not len(ModelLibrary(tmp_path)) and [f.name for f in tmp_path.iterdir()] == ['song.wav']

def test_leftovers_of_killed_writers_are_swept(shelf):
    (shelf/'.Rain.0123456789ab.tmp.distillgan').write_bytes(b'half')
    (shelf/'.keep.distillgan').write_bytes(b'')
    ModelLibrary(shelf)
    assert sorted(f.name for f in shelf.glob('.*')) == ['.keep.distillgan']

# --- what is known of a model

IMPOSSIBLE = [dict(name=None), dict(name='a\nb'), dict(name='\x1b[2J'), dict(name='\u202egnp.exe'), dict(name='x'*201),
              dict(model_id='a/b'), dict(model_id='abc'), dict(created='now'), dict(created=5),
              dict(created='9999-12-31T23:59:59-23:00'), dict(epochs=1.5), dict(epochs=2**63), dict(seed=-1),
              dict(tags='wet'), dict(tags=[1]), dict(held_out='low'), dict(extra={'x': {1}}),
              dict(description='x'*10_001)]

@pytest.mark.parametrize('bad', IMPOSSIBLE, ids=str)
def test_metadata_that_cannot_be(bad):
    with pytest.raises(UserError) as e: ModelMetadata(**{'name': 'x'} | bad)
    assert '\n' not in str(e.value)

def test_metadata_takes_numbers_of_all_makers():
    import numpy as np, torch
    m = ModelMetadata('x', epochs=np.int64(3), held_out=torch.tensor(.5), final_recon=np.float32('nan'),
                      final_kl=float('inf'), seconds=np.float32(2), created='2026-01-15T10:00:00+02:00')
    assert (m.epochs, m.held_out, m.final_recon, m.final_kl, m.seconds) == (3, .5, None, None, 2.)
    assert m.created == '2026-01-15T08:00:00.000+00:00' and json.dumps(m.to_dict(), allow_nan=False)

def test_vocoder_in_words():
    assert vocoder_text(HIFI) == 'HiFi-GAN (50 epochs, loss 0.0300)'
    assert vocoder_text(HIFI, short=True) == 'HiFi-GAN (50ep)'
    assert vocoder_text(None) == '(none)' and vocoder_text(VocoderInfo('new_kind', 2)) == 'new_kind (2 epochs)'

@pytest.mark.parametrize('card,why', [
    (b'[]', 'no dict'), (b'{}', 'marker'), (b'{"format": NaN}', 'not JSON'), (b'['*100_000, 'not JSON'),
    (b'\xff', 'not JSON'), (CARD[:-2], 'not JSON'), (CARD.replace(b'1,', b'1.0,'), 'version'),
    (b' '*(1 << 20) + CARD, 'too big'), (b'{"format": "distill_model"}', 'v1')])
def test_cards_that_cannot_be(tmp_path, card, why):
    write_model(tmp_path, card)
    with pytest.raises(ModelFileError) as e: read_card(tmp_path/'x.distillgan')
    assert why in e.value.why
    assert len(ModelLibrary(tmp_path)) == 0 and ModelLibrary(tmp_path).unreadable

@pytest.mark.parametrize('old,new', [(b'{"name": "x"}', new) for new in (
    b'null', b'{}', b'{"name": ""}', b'{"name": "x", "epochs": 1e999}', b'{"name": "x", "seed": 99999999999999999999}',
    b'{"name": "x", "tags": {}}')] + [(b', ' + PARTS, b''), (b'"settings": {}', b'"settings": []'),
    (b'"settings": {}', b'"settings": {"lr": [1]}'), (b'"settings": {}', b'"settings": {"lr": 1e999}'),
    (b'"settings": {}', b'"settings": {"lr": "\\u001b[2J"}'), (b'"sizes": {}', b'"sizes": {"parameters": 1.5}'),
    (b'"vocoder": null', b'"vocoder": {}')])
def test_cards_whose_parts_cannot_be(tmp_path, old, new):
    write_model(tmp_path, CARD)
    assert len(ModelLibrary(tmp_path)) == 1
    write_model(tmp_path, CARD.replace(old, new))
    lib = ModelLibrary(tmp_path)
    assert len(lib) == 0 and 'x.distillgan' in lib.unreadable and lib.df().empty

def test_settings_are_plain_short_and_few():
    odd = {'a': math.nan, 'b': 2**70, 'c': 'x'*300, 'd': '\x1b[2J', 'e': None, 'f': [1], 'g': {}, 7: True, 'h'*99: 1}
    s = plain_settings(training=odd | {f'n{i}': i for i in range(200)})
    assert (s['training_a'], s['training_b'], len(s['training_c']), s['training_d']) == ('nan', str(2**70), 200, '?[2J')
    assert s['training_e'] is None and s['training_7'] is True and len(s) == 100
    assert not {'training_f', 'training_g'} & s.keys() and json.dumps(s, allow_nan=False)

# --- the table

def test_df_has_proper_types(shelf):
    df = ModelLibrary(shelf).df()
    kinds = {k: str(v) for k, v in df.dtypes.items()}
    assert df.index.name == 'model_id' and list(df.index) == ['a1b2ffff00', 'a1b2c3d4e5', 'kkkk0000']
    assert {kinds[k] for k in ('epochs', 'vocoder_epochs', 'size')} == {'Int64'}
    assert {kinds[k] for k in ('held_out', 'vocoder_loss')} == {'float64'}
    assert all('datetime64' in kinds[k] and 'UTC' in kinds[k] for k in ('created', 'modified', 'vocoder_date'))
    assert kinds['corpus'] == kinds['vocoder'] == 'category'
    assert df.loc['a1b2c3d4e5', 'tags'] == ['field', 'Wet'] and df.vocoder_loss.isna().sum() == 2
    means = df.sort_values('epochs').groupby('corpus', observed=True).held_out.mean().round(2).to_dict()
    assert means == dict(rain=.81, thumbs=pytest.approx(float('nan'), nan_ok=True))

def test_settings_that_differ_are_columns(tmp_path):
    for name, lr, extra in (('Slow', 1e-3, {}), ('Fast', 3e-3, {}), ('Own', 3e-3, dict(mix='much'))):
        put_card(tmp_path, name, model_id=f'{name}0000', created='2026-01-15',
                 settings=plain_settings(training=dict(lr=lr, batch=32, **extra), mel=dict(hop=512)))
    lib = ModelLibrary(tmp_path)
    plain, df = lib.df(), lib.df(settings=True)
    assert list(df.columns.difference(plain.columns, sort=False)) == ['training_lr', 'training_mix']
    assert df.training_lr.to_dict() == dict(Slow0000=1e-3, Fast0000=3e-3, Own0000=3e-3)
    assert df.training_mix.isna().sum() == 2
    assert lib.get('Slow').settings == dict(training_lr=1e-3, training_batch=32, mel_hop=512)
    found = lib.compare('Slow', 'Own')
    assert list(found.loc['training_lr']) == [1e-3, 3e-3] and list(found.loc['training_mix']) == [None, 'much']
    assert not {'training_batch', 'mel_hop'} & set(found.index)

def test_a_saved_model_carries_its_settings(tmp_path):
    save(tmp_path, 'Real')
    s = ModelLibrary(tmp_path).get('Real').settings
    assert (s['training_lr'], s['training_seed'], s['model_channels'], s['mel_n_fft']) == (1e-3, 0, 4, 64)

# --- finding

@pytest.mark.parametrize('kw,found', [
    (dict(text='rain'), 2), (dict(text='RAIN tin'), 1), (dict(text='ölfässer'), 1), (dict(text='thumbs'), 1),
    (dict(text='a1b2'), 2), (dict(text='%'), 0), (dict(tags=['field', 'wet']), 1), (dict(tags='field'), 2),
    (dict(tags=['fie']), 0), (dict(vocoder=True), 2), (dict(vocoder=False), 1), (dict(vocoder='fourier'), 1),
    (dict(text='rain', vocoder=True), 1), (dict(), 3)], ids=str)
def test_search(shelf, kw, found): assert len(ModelLibrary(shelf).search(**kw)) == found

@pytest.mark.parametrize('ref,name', [
    ('a1b2c3d4e5', 'Rain on tin'), ('a1b2c', 'Rain on tin'), ('Rain on tin', 'Rain on tin'),
    ('rain ON tin', 'Rain on tin'), ('tin', 'Rain on tin'), ('kkkk', 'Kalimba'), ('kkkk0000.distillgan', 'Kalimba'),
    ('kal', 'Kalimba')])
def test_get(shelf, ref, name): assert ModelLibrary(shelf).get(ref).name == name

def test_get_by_path(shelf, tmp_path_factory, monkeypatch):
    lib, f = ModelLibrary(shelf), shelf/'kkkk0000.distillgan'
    elsewhere = shutil.copy(f, tmp_path_factory.mktemp('else')/'copy.distillgan')
    monkeypatch.chdir(shelf)
    for ref in (f, str(f), './kkkk0000.distillgan', Path('kkkk0000.distillgan'), elsewhere, str(elsewhere)):
        assert lib.get(ref).model_id == 'kkkk0000'
    with pytest.raises(UserError, match='not in the library'): lib.delete(elsewhere)
    assert lib.get(lib.get('kal')) == lib.get('kal') and os.fspath(lib.get('kal')) == str(f)

def test_get_does_not_guess(shelf):
    lib = ModelLibrary(shelf)
    said = "'rain' may be any of 2 models: Rain at sea .a1b2ffff. in a1b2ffff00.distillgan, Rain on tin"
    with pytest.raises(AmbiguousModel, match=said) as e: lib.get('rain')
    assert {c.model_id for c in e.value.candidates} == {'a1b2c3d4e5', 'a1b2ffff00'}
    with pytest.raises(AmbiguousModel): lib.get('a1b2')
    for ref in ('a1', 'xyz', '', '  ', 'nothing.distillgan', '%', '_', '\udcff'):   # three letters of an id are too few
        with pytest.raises((UnknownModel, AmbiguousModel)): lib.get(ref)
    for ref in (3, None, ['Rain']):
        with pytest.raises(UserError, match='is not a model'): lib.get(ref)
    put_card(shelf, 'kkkk', model_id='other000')                                  # a name that looks like another's id
    with pytest.raises(AmbiguousModel): lib.get('kkkk')

def test_two_files_of_one_id_are_both_listed(shelf):
    shutil.copy(shelf/'kkkk0000.distillgan', shelf/'backup.distillgan')
    lib = ModelLibrary(shelf)
    assert names(lib).count('Kalimba') == 2 and len(lib.df().loc[['kkkk0000']]) == 2
    with pytest.raises(AmbiguousModel, match='backup.distillgan'): lib.delete('kkkk0000')
    lib.delete('backup.distillgan')
    assert lib.get('kkkk0000').path.name == 'kkkk0000.distillgan'

def test_compare(shelf):
    df = ModelLibrary(shelf).compare('tin', 'sea')
    assert list(df.columns) == ['Rain on tin', 'Rain at sea'] and list(df.loc['epochs']) == [40, 55]
    assert 'corpus' not in df.index and list(df.loc['vocoder']) == ['HiFi-GAN (50 epochs, loss 0.0300)', '(none)']

# --- the trash

def test_trash_and_back(shelf):
    lib, raw = ModelLibrary(shelf), (shelf/'kkkk0000.distillgan').read_bytes()
    assert lib.delete('kal').name == 'Kalimba' and len(lib) == 2 and names(lib.trash) == ['Kalimba']
    assert rows(shelf) == {'a1b2c3d4e5.distillgan', 'a1b2ffff00.distillgan'}
    back = lib.restore('kalimba')
    assert back.path == shelf/'kkkk0000.distillgan' and back.path.read_bytes() == raw
    assert len(lib) == 3 and not len(lib.trash)

def test_restoring_never_overwrites(shelf):
    lib = ModelLibrary(shelf)
    lib.delete('kal')
    put_card(shelf, 'New', model_id='kkkk0000')
    assert lib.restore('Kalimba').path.name == 'kkkk0000_1.distillgan' and names(lib).count('New') == 1
    with pytest.raises(UnknownModel): lib.restore('Kalimba')

def test_purge(shelf):
    lib = ModelLibrary(shelf)
    for ref in ('kal', 'sea'): lib.delete(ref)
    lib.delete('tin', purge=True)
    assert [lib.purge('kal'), lib.purge(), lib.purge()] == [1, 1, 0]
    assert not len(lib) and not list(shelf.rglob('*.distillgan'))

def test_an_entry_that_is_out_of_date_deletes_nobody_else(shelf):
    lib = ModelLibrary(shelf)
    old = lib.get('kal')
    lib.delete('kal', purge=True)
    put_card(shelf, 'Newcomer', model_id='new00000').rename(old.path)                   # the name is used again
    for purge in (False, True):
        with pytest.raises(UnknownModel, match="'Kalimba' is no longer in the library"): lib.delete(old, purge=purge)
    assert lib.get('Newcomer').path == old.path and not len(lib.trash)
    old.path.unlink()
    with pytest.raises(UnknownModel, match='Kalimba'): lib.delete(old)

# --- the history

def test_a_history_of_one_model_and_sounds_from_elsewhere(shelf):
    import numpy as np
    from distill.audio.files import Sound
    from distill.library.history import History, take_cells
    history = History(shelf)
    quiet = np.full(4800, .1, np.float32)
    for seed, model_id in enumerate(('kkkk0000', 'a1b2ffff00', 'gone0000')):
        history.add(Sound(quiet, info=dict(model=model_id, model_id=model_id, seed=seed, sliders={'brightness': 2.})))
    both = [dict(model='a', model_id='a1b2c3d4e5', weight=.5), dict(model='b', model_id='kkkk0000', weight=.5)]
    history.add(Sound(quiet, info=dict(model='a', model_id='a1b2c3d4e5', seed=3, models=both, made='blend')))
    for i, odd in enumerate((dict(created='2300-01-01', seed='x', sliders=[1]), dict(seed=2**70, models=5, seconds=[]),
                             dict(created=7, model=['a'], like='door', sliders={'a': 'b'}), {})):
        Sound(quiet, info=odd).save(history.folder/f'2020010{i}-odd.flac')
    df = history.df()
    assert len(df) == 8 == len(history) and list(df.seed.dropna()) == [3, 2, 1, 0] and len(take_cells(df)) == 8
    tin = ModelLibrary(shelf).get('tin')
    assert list(history.df(model='kal').seed) == [3, 0] and list(history.df(model=tin).seed) == [3]
    with pytest.raises(UnknownModel): history.df(model='gone')
    (history.folder/'history.db').write_bytes(b'a shopping list'*1000)
    assert list(History(shelf).df().index) == list(df.index)
    (history.folder/'history.db').unlink()
    (history.folder/'history.db').mkdir()
    assert list(History(shelf).df('gone0000').seed) == [2]

# --- names for files

@pytest.mark.parametrize('name,stem', [
    ('Rain on tin', 'Rain_on_tin'), ('../../etc/passwd', 'etc_passwd'), ('a/b\\c:d', 'a_b_c_d'), ('...', 'model'),
    ('', 'model'), ('con', 'con_'), ('雨', '雨'), ('.hidden', 'hidden'), ('x'*500, 'x'*100), ('é'*500, 'é'*50),
    ('A\u030a', 'Å')])
def test_file_stem(name, stem): assert file_stem(name) == stem

def test_free_names(tmp_path):
    (tmp_path/'a.distillgan').write_text('')
    os.symlink('nowhere', tmp_path/'a_1.distillgan')
    assert next(free_names(tmp_path, 'a', '.distillgan')).name == 'a_2.distillgan'

def playable(folder, **kw):
    "A model of 700 weights that plays"
    import torch
    from distill.latent.analysis import analyze
    mels = [torch.randn(8, 60, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    return save(folder, analysis=analyze(tiny(), mels, steps=2, most_axes=3, sliders=2), **kw)

ODD_NAMES = [b'f\xfcr', b'two\nlines', b'a\xe2\x80\xaeb', b'\xed\xa0\x80', b'-n', b' x ', b'it\'s "q" %', b'\xe9\x9b\xa8']

@pytest.mark.parametrize('raw', ODD_NAMES, ids=ascii)
def test_folders_and_files_of_any_name(tmp_path, raw):
    "A folder of sounds, a library, a model's file, a take: each may be called whatever the system allows"
    import numpy as np, soundfile as sf
    from distill.audio.corpus import Corpus
    from distill.generation.replay import differs, replay
    from distill.generation.sounds import generate
    from distill.library.history import History, take_cells
    from distill.training.plan import corpus_facts
    odd = os.fsdecode(raw)
    sounds, lib = tmp_path/odd, tmp_path/f'{odd} lib'
    sounds.mkdir()
    with open(sounds/f'{odd}.wav', 'wb') as f: sf.write(f, .3*np.sin(np.arange(24_000)*.1), 48_000, format='WAV')
    corpus = Corpus(sounds, cache=False)
    shown = [repr(corpus), *str(corpus.report()).splitlines(), *corpus.df().name]
    model = playable(lib, corpus=corpus_facts(corpus)['name']).rename(lib/f'{odd}.distillgan')
    library = ModelLibrary(lib)
    entry = library.get(model)
    edit_model(entry, name='Renamed')
    assert [e.path for e in ModelLibrary(lib)] == [model] and not library.note and len(library.df()) == 1
    sound = generate(entry, like=sounds/f'{odd}.wav', seconds=.2)
    file = sound.save(tmp_path/'out'/f'{odd}.flac')
    assert differs(replay(file, lib), file) == 0
    history = History(lib)
    shutil.copy(file, history.add(sound).with_name(f'{odd}.flac'))
    takes = History(lib).df()
    assert len(takes) == 2 and all(history.sound(take).seconds == .2 for take in takes.index)
    library.delete('Renamed')
    back = library.restore('Renamed')
    shown += [repr(library), repr(back), *back.facts().values(), *map(' '.join, take_cells(takes)), *takes.index]
    assert back.path == model and all(text.isprintable() for text in shown)

NAMES = ['F', 'F#', 'f', 'F ♯', '🎵', '🎶', 'kick/1', 'kick:1', 'kick 1', 'kick_1', '雨', '雨.', 'con', 'model', '\u212b', '..', 'é'*90]

def test_names_that_differ_stay_different_on_disk(tmp_path):
    files = {name: save(tmp_path, name) for name in NAMES}
    assert len({f.name.casefold() for f in files.values()}) == len(NAMES)
    assert all(load_model(f).name == unicodedata.normalize('NFC', name) for name, f in files.items())
    assert sorted(names(ModelLibrary(tmp_path))) == sorted(unicodedata.normalize('NFC', name) for name in NAMES)

# --- seen as HTML

def test_names_are_text_and_never_html(shelf):
    put_card(shelf, '<img src=x onerror=alert(1)>', model_id='evil0000', tags=['<b>'], extra={'<i>': '<u>'})
    lib = ModelLibrary(shelf)
    for page in (lib._repr_html_(), lib.card('evil0000')._repr_html_()):
        page = page.replace('<b>&lt;img', '')
        assert not any(tag in page for tag in ('<img', '<b>', '<i>', '<u>'))
    assert '#d1fae5' in lib.card('tin')._repr_html_() and 'HiFi-GAN (50ep)' in lib._repr_html_()

# --- what a file is besides its bytes

def attributes(f):
    "Permissions, group and extended attributes of a file"
    status = os.stat(f)
    extended = {k: os.getxattr(f, k) for k in os.listxattr(f)} if hasattr(os, 'listxattr') else {}
    return stat.S_IMODE(status.st_mode), status.st_gid, extended

def rewrites(f):
    "Everything that writes a model's file anew"
    yield lambda: edit_model(f, name='Renamed', tags=['a'])
    yield lambda: save_preset(f, 'dark', dict(seconds=2))
    yield lambda: delete_preset(f, 'dark')
    yield lambda: save_again(load_model(f), path=f)
    yield lambda: save_again(load_model(f), path=str(f), fp16=True)

@pytest.mark.parametrize('mode', [0o664, 0o640, 0o600, 0o666, 0o755])
def test_a_rewritten_file_keeps_its_mode_its_group_and_its_attributes(tmp_path, mode):
    f = save(tmp_path, 'Shared')
    if os.geteuid() == 0: os.chown(f, -1, 1)
    f.chmod(mode)
    try: os.setxattr(f, 'user.note', b'for the choir')
    except (AttributeError, OSError): pass                        # this file system has none
    before, umask = attributes(f), os.umask(0o077)
    try:
        for rewrite in rewrites(f):
            inode = os.stat(f).st_ino
            rewrite()
            assert attributes(f) == before and os.stat(f).st_ino != inode
    finally: os.umask(umask)

@pytest.mark.skipif(not hasattr(os, 'fork') or os.geteuid() != 0, reason='needs root, to be another user')
def test_a_group_is_given_no_rights_of_another_group(tmp_path):
    f = save(tmp_path, 'Shared')
    open_to_all(tmp_path)
    os.chown(f, 54321, 1)
    f.chmod(0o664)
    def as_one_who_left_the_group():
        os.setgroups([])
        os.setgid(54321)
        os.setuid(54321)
        edit_model(f, name='Renamed')
    in_child(as_one_who_left_the_group)
    assert attributes(f)[:2] == (0o644, 54321)

@pytest.mark.parametrize('kind', ['relative', 'absolute', 'of a link', 'through a folder'])
def test_a_link_stays_a_link_and_its_file_changes(tmp_path, kind):
    big, lib = save(tmp_path/'big', 'Linked'), tmp_path/'lib'
    lib.mkdir()
    link = lib/'m.distillgan'
    if kind == 'relative': link.symlink_to('../big/Linked.distillgan')
    if kind == 'absolute': link.symlink_to(big)
    if kind == 'of a link':
        (tmp_path/'big'/'other').symlink_to('Linked.distillgan')
        link.symlink_to('../big/other')
    if kind == 'through a folder':
        (lib/'there').symlink_to('../big')
        link.symlink_to('there/Linked.distillgan')
    for rewrite in rewrites(link):
        rewrite()
        assert link.is_symlink() and not big.is_symlink() and link.resolve() == big
        assert read_card(big) == read_card(link) and read_card(big)['metadata']['name'] == 'Renamed'
    library = ModelLibrary(lib)
    assert library.get('Renamed').path == link
    library.delete('Renamed')
    assert not os.path.lexists(link) and names(library.trash) == ['Renamed'] and library.trash.get('Renamed').path.is_symlink()
    assert library.restore('Renamed').path == link and link.is_symlink() and link.resolve() == big
    library.delete('Renamed')
    assert library.purge() == 1 and not list((lib/'.trash').glob('*.distillgan')) and not verify_model(big)

def test_a_link_whose_file_is_gone_has_a_row_and_can_be_purged(tmp_path):
    big, lib = save(tmp_path/'big', 'Linked'), tmp_path/'lib'
    save(lib, 'Other')
    (lib/'m.distillgan').symlink_to('../big/Linked.distillgan')
    library = ModelLibrary(lib)
    library.delete('Linked')
    big.rename(tmp_path/'away')
    assert not len(library.trash) and len(library.trash.unreadable) == 1 and library.purge() == 1
    assert not library.trash.unreadable and names(library) == ['Other']

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
def test_a_write_protected_file_is_left_alone(tmp_path):
    f = save(tmp_path, 'Mine')
    f.chmod(0o444)
    open_to_all(tmp_path)
    before = f.read_bytes()
    def as_somebody():
        if os.geteuid() == 0: os.setuid(65534)
        with pytest.raises(UserError, match='write-protected'): edit_model(f, name='Yours')
    in_child(as_somebody)
    assert f.read_bytes() == before and attributes(f)[0] == 0o444

def open_to_all(folder):
    "Let every user into a folder of a test"
    for part in (folder, *folder.parents):
        if part == Path(tempfile.gettempdir()): break
        part.chmod(0o777)

def in_child(act):
    "Do it in a process of its own"
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
        return
    try:
        act()
        os._exit(0)
    except BaseException: traceback.print_exc()
    os._exit(1)

# --- looking leaves nothing behind

def tree(folder): return sorted((str(f), os.lstat(f).st_mtime_ns) for f in [folder, *folder.rglob('*')])

def test_who_only_looks_writes_nothing(tmp_path):
    from distill.cli import app
    from distill.library.history import History
    share, elsewhere = tmp_path/'share', tmp_path/'elsewhere'
    f = save(tmp_path/'made', 'Rain').rename(tmp_path/'m.distillgan')
    g = save(tmp_path/'made', 'Sea').rename(tmp_path/'n.distillgan')
    share.mkdir()
    elsewhere.mkdir()
    f, g = f.rename(share/'m.distillgan'), g.rename(share/'n.distillgan')
    (share/'history').mkdir()
    Sound([.1]*4800, info=dict(seed=1)).save(share/'history'/'20260101T000000-a-1.flac')
    before = tree(share)
    ModelLibrary(share).df(), ModelLibrary(share).compare('Rain', 'Sea'), History(share).df(), History(share).unreadable
    load_model(f), verify_model(f), read_card(f), ModelLibrary(share).trash.unreadable, presets(f)
    for line in ('model list', 'model list --trash', f'model info {f}', 'model info Rain', 'model compare Rain Sea',
                 'model verify', 'model restore', 'history'):
        r = CliRunner().invoke(app, [*line.split(), '--models-dir', str(share)], catch_exceptions=False)
        assert r.exit_code == 0, r.output
    assert tree(share) == before

# --- users without a home

@pytest.mark.skipif(not hasattr(os, 'fork') or os.geteuid() != 0, reason='needs root, to be another user')
def test_a_user_without_a_home_or_a_name(tmp_path, monkeypatch):
    import getpass, numpy as np, soundfile as sf
    from distill.audio.corpus import Corpus
    f = save(tmp_path, 'Rain')
    sf.write(tmp_path/'a.wav', .1*np.sin(np.arange(9600)*.1), 48_000)
    open_to_all(tmp_path)
    for name in ('HOME', 'DISTILL_MODELS', 'DISTILL_CACHE', 'XDG_DATA_HOME', 'XDG_CACHE_HOME', 'USER', 'LOGNAME',
                 'LNAME', 'USERNAME'): monkeypatch.delenv(name, raising=False)
    def as_nobody():
        os.setuid(54321)
        for place in (models_folder, cache_folder, ModelLibrary, lambda: load_model('Rain'), lambda: expand('~/x')):
            with pytest.raises(UserError, match='home folder'): place()
        assert find_entry(f).name == load_model(f).name == 'Rain' and load_model('Rain', models_dir=tmp_path)
        r = CliRunner().invoke(distill.cli.app, ['model', 'info', str(f)])
        assert r.exit_code == 0 and 'Rain' in r.stdout
        r = CliRunner().invoke(distill.cli.app, ['model', 'list'])
        assert r.exit_code == 1 and '--models-dir' in r.stderr and len(r.stderr.splitlines()) == 1
        corpus = Corpus(tmp_path)
        assert len(corpus[0]) == 9600 and 'DISTILL_CACHE' in corpus.cache_trouble
        wrong = []
        distill.cli.doctor._folders(None, wrong)
        assert len(wrong) == 2 and 'DISTILL_MODELS' in wrong[0] and 'DISTILL_CACHE' in wrong[1]
        core._name_user()
        assert getpass.getuser() == 'user54321'
    in_child(as_nobody)

# --- the commands

def sh(shelf, *a, **kw):
    from distill.cli.model import app
    return CliRunner().invoke(app, [*a, '--models-dir', str(shelf)], **kw)

def test_tables_on_stdout_notes_on_stderr(shelf):
    r = sh(shelf, 'list')
    head, *rest = r.stdout.splitlines()
    assert head.split() == ['Name', 'ID', 'Created', 'Corpus', 'Epochs', 'Held-out', 'Vocoder', 'Size']
    assert len(rest) == 3
    assert '3 of 3 models' in r.stderr and r.exit_code == 0

@pytest.mark.parametrize('args', [
    ['list'], ['info', 'tin'], ['compare', 'tin', 'sea'], ['repair'], ['restore'], ['delete', 'tin', '--force'],
    ['purge', '--force']], ids=lambda a: a[0])
def test_json_is_all_there_is_on_stdout(shelf, args):
    assert json.loads(sh(shelf, *args, '--json').stdout) is not None

def test_json_schema(shelf):
    e = json.loads(sh(shelf, 'info', 'tin', '--json').stdout)
    own = {f for f in ModelMetadata.__dataclass_fields__ if f != 'extra'}
    assert set(e) == own | {'path', 'size', 'modified', 'vocoder', 'version', 'library_version', 'sizes', 'settings'}
    assert e['vocoder'] == dict(type='hifigan_v2', epochs=50, final_loss=.03, training_date='2026-01-15',
                                held_out=None, griffin_lim=None)
    assert json.loads(sh(shelf, 'repair', '--json').stdout) == dict(added=[], removed=[], unreadable={})

def test_options_before_or_after_the_arguments(shelf):
    from distill.cli.model import app
    before = CliRunner().invoke(app, ['info', '--json', '--models-dir', str(shelf), 'tin'])
    assert before.stdout == sh(shelf, 'info', 'tin', '--json').stdout

def test_ambiguous_references_list_the_candidates(shelf):
    r = sh(shelf, 'info', 'rain')
    assert r.exit_code == 1 and not r.stdout and 'a1b2c3d4' in r.stderr and 'a1b2ffff' in r.stderr
    assert sh(shelf, 'info', 'xylophone').exit_code == 1

def test_delete_asks_and_force_does_not(shelf):
    def left(): return len(ModelLibrary(shelf))
    assert sh(shelf, 'delete', 'tin', input='n\n').exit_code == 1 and left() == 3
    assert sh(shelf, 'delete', 'tin').exit_code == 1 and left() == 3                # nobody there to answer
    assert sh(shelf, 'delete', 'tin', input='y\n').exit_code == 0 and left() == 2
    assert sh(shelf, 'delete', 'sea', 'kal', '--force').exit_code == 0 and left() == 0
    assert sh(shelf, 'restore', 'tin').exit_code == 0 and names(ModelLibrary(shelf)) == ['Rain on tin']
    assert sh(shelf, 'delete', 'tin', '--purge', '--force').exit_code == 0 and len(ModelLibrary(shelf).trash) == 2
    assert sh(shelf, 'purge', input='y\n').exit_code == 0 and not len(ModelLibrary(shelf).trash)

def test_verify_reads_all(tmp_path):
    save(tmp_path, 'Whole')
    hurt = save(tmp_path, 'Hurt')
    raw = bytearray(hurt.read_bytes())
    raw[offset(raw, 'archive/data/3')] ^= 255
    hurt.write_bytes(raw)
    r = sh(tmp_path, 'verify', '--json')
    assert r.exit_code == 1 and {x['name']: x['ok'] for x in json.loads(r.stdout)} == dict(Whole=True, Hurt=False)
    assert sh(tmp_path, 'verify', 'Whole').exit_code == 0

def test_listing_a_thousand_imports_nothing_heavy(tmp_path):
    for i in range(1000): put_card(tmp_path, f'Model {i}', HIFI if i % 3 else None, corpus='rain', epochs=i)
    ModelLibrary(tmp_path)
    code = f'''import sys
from distill.cli.model import app
try: app(['list', '--models-dir', {str(tmp_path)!r}])
finally: print('torch' in sys.modules, 'pandas' in sys.modules, file=sys.stderr)'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert len(r.stdout.splitlines()) == 1001 and r.stderr.split()[-2:] == ['False', 'False']
