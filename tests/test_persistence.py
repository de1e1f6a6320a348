"""One model, one safe file. The requirements page of the docs points here:

PERS-01  a model saved with its vocoder comes back with it, tensor for tensor      test_pers_01_*
PERS-02  dropped by the user: v1 files are rejected cleanly instead of loaded      test_pers_02_*
PERS-03  the catalog shows which models carry a vocoder                            test_pers_03_*
"""
import copy, dataclasses, json, os, zipfile
from pathlib import Path
import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from distill.core import MissingFile, UserError
from distill.library.catalog import ModelLibrary, repair_index
from distill.models.metadata import ModelMetadata, VocoderInfo
from distill.library.card import NewerModelFile, OldModelFile
from distill.models import LoadedModel, delete_model, load_model, save_model, save_model_from_checkpoint
from distill.archive import MOST_OPS, to_plain
from distill.models.contents import read_contents
from distill.models.persistence import ModelFileError, verify_model
from distill.training.loop import CHECKPOINT_VERSION
from little import HISTORY, MEL, craft, generator_v2, offset, records, rezip, same, save, tiny, vocoder

V1 = 'This model was saved in v1 format which is no longer supported. Please retrain your model.'
V1_NAME = 'This model was saved in v1 format (.distill) which is no longer supported. Please retrain your model.'

def refused(path, why):
    with pytest.raises(ModelFileError, match=why) as e: load_model(path)
    assert isinstance(e.value, ValueError) and '\n' not in str(e.value)
    return str(e.value)

# --- PERS-01: a vocoder in the model's file

def test_pers_01_vocoder_comes_back_tensor_for_tensor(tmp_path):
    voc = vocoder(generator_v2())
    assert 9e5 < sum(t.numel() for t in voc['state_dict'].values()) < 1.1e6      # the real thing has 0.97 million
    m = load_model(save(tmp_path, vocoder_state=voc))
    assert same(m.vocoder_state, voc)
    assert m.vocoder_state['training_metadata'] == dict(epochs=50, final_loss=.03, training_date='2026-01-15')

def test_pers_01_without_one_the_key_is_absent(tmp_path):
    f = save(tmp_path)
    assert 'vocoder_state' not in torch.load(f, weights_only=True)
    assert load_model(f).vocoder_state is None

def test_pers_01_unfinished_training_travels_along(tmp_path):
    voc = vocoder() | dict(checkpoint=dict(optimizer=dict(state={0: dict(step=torch.tensor(3.), exp_avg=torch.zeros(2))}), rng=torch.get_rng_state()))
    assert same(load_model(save(tmp_path, vocoder_state=voc)).vocoder_state, voc)

@pytest.mark.parametrize('wrong', [dict(type='gan'), dict(type=3), dict(state_dict={}), dict(state_dict={'w': torch.tensor([float('nan')])}), dict(state_dict={'w': 1.}),
    dict(config=None), dict(training_metadata=dict(epochs=-1)), dict(training_metadata=dict(epochs=1, training_date='soon'))], ids=str)
def test_a_vocoder_that_could_not_be_loaded_is_not_saved(tmp_path, wrong):
    with pytest.raises(UserError, match="The model 'Tiny' cannot be saved: vocoder"): save(tmp_path, vocoder_state=vocoder() | wrong)
    assert not list(tmp_path.glob('*.distillgan'))

# --- PERS-02: the first generation is refused, in words

def v1_file(path, **kw):
    "As the first generation wrote them: numpy arrays beside the weights"
    torch.save(dict(format='distill_model', version=1, model_state_dict=dict(tiny().state_dict()), latent_mean=np.zeros(64), metadata=dict(created=np.datetime64('2025-01-01'))), path, **kw)
    return path

@pytest.mark.parametrize('name', ['old.distillgan', 'old.distill', 'old.sda'])
def test_pers_02_v1_by_content(tmp_path, name): assert refused(v1_file(tmp_path/name), 'v1') == V1

def test_pers_02_v1_without_numpy_too(tmp_path):
    torch.save(dict(format='distill_model', version=1), tmp_path/'old.distillgan')
    with pytest.raises(OldModelFile): load_model(tmp_path/'old.distillgan')

def test_pers_02_the_words_elsewhere_do_not_make_a_file_old(tmp_path):
    f = save_model(tiny(), MEL, dict(note=['format', 'distill_model']), ModelMetadata('format', description='distill_model', tags=['distill_model']), tmp_path)
    assert load_model(f).metadata.name == 'format'

@pytest.mark.parametrize('line', ['info old.distill', 'delete old.distill --force', 'verify old.distill', 'compare old.distill x', 'restore old.distill'])
def test_pers_02_v1_by_name_in_the_model_commands(tmp_path, line):
    from distill.cli.model import app
    r = CliRunner().invoke(app, [*line.split(), '--models-dir', str(tmp_path)])
    assert r.exit_code == 2 and V1_NAME in r.stderr and not r.stdout

def test_pers_02_v1_by_name_in_generate(tmp_path):
    from distill.cli import app
    r = CliRunner().invoke(app, ['generate', str(tmp_path/'old.distill')])
    assert r.exit_code == 2 and V1_NAME in ' '.join(r.stderr.replace('│', ' ').split()) and not r.stdout

def test_pers_02_the_catalog_does_not_see_them(tmp_path):
    v1_file(tmp_path/'old.distill'); v1_file(tmp_path/'renamed.distillgan'); save(tmp_path)
    r = repair_index(tmp_path)
    assert r.unreadable == {'renamed.distillgan': 'v1'} and [e.name for e in ModelLibrary(tmp_path)] == ['Tiny']
    assert len(ModelLibrary(tmp_path).df()) == 1

# --- PERS-03: the catalog shows the vocoder

def test_pers_03_row_and_columns(tmp_path):
    save(tmp_path, 'With', vocoder_state=vocoder()); save(tmp_path, 'Without')
    lib = ModelLibrary(tmp_path)
    assert lib.get('With').vocoder == VocoderInfo('hifigan_v2', 50, .03, '2026-01-15') and lib.get('Without').vocoder is None
    df = lib.df().set_index('name')
    assert df.loc['With', 'vocoder'] == 'hifigan_v2' and df.loc['With', 'vocoder_epochs'] == 50 and df.loc['With', 'vocoder_loss'] == .03
    assert str(df.loc['With', 'vocoder_date'].date()) == '2026-01-15'
    assert df.loc['Without', ['vocoder', 'vocoder_epochs', 'vocoder_loss', 'vocoder_date']].isna().all()

def test_pers_03_in_the_commands_and_on_the_card(tmp_path):
    from distill.cli.model import app
    save(tmp_path, 'With', vocoder_state=vocoder()); save(tmp_path, 'Without')
    sh = lambda *a: CliRunner().invoke(app, [*a, '--models-dir', str(tmp_path)]).stdout
    assert 'Vocoder' in sh('list').splitlines()[0] and 'HiFi-GAN (50ep)' in sh('list')
    assert 'HiFi-GAN (50 epochs, loss 0.0300)' in sh('info', 'With') and '(none)' in sh('info', 'Without')
    card = ModelLibrary(tmp_path).card('With')._repr_html_()
    assert '#d1fae5' in card and 'HiFi-GAN (50ep)' in card and '#d1fae5' not in ModelLibrary(tmp_path).card('Without')._repr_html_()

# --- saving and loading

def test_what_comes_out_is_what_went_in(tmp_path):
    f = save(tmp_path, 'Ä name with spaces / and a slash', tags=['a', 'b'], description='two\nlines', epochs=3, held_out=.5, extra=dict(mood='calm'))
    m = load_model(f)
    assert isinstance(m, LoadedModel) and f.parent == tmp_path and m.path == f
    assert same(dict(m.net.state_dict()), dict(tiny().state_dict())) and m.net.cfg == tiny().cfg
    assert not m.net.training and not any(p.requires_grad for p in m.net.parameters())
    assert m.mel.cfg == MEL and m.training_config == dict(lr=1e-3, seed=0) and m.training_history == HISTORY
    assert m.metadata.extra == dict(mood='calm') and m.metadata.tags == ('a', 'b') and m.analysis is None
    z = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(m.net.decode(z), tiny().decode(z))
    assert not verify_model(f)

def test_the_file_is_plain_and_carries_its_card(tmp_path):
    f = save(tmp_path, vocoder_state=vocoder())
    d = torch.load(f, weights_only=True)
    assert list(d) == ['format', 'version', 'model_state_dict', 'model_config', 'latent_dim', 'spectrogram_config', 'training_config', 'training_history',
                       'latent_analysis', 'metadata', 'vocoder_state']
    assert type(d['model_state_dict']) is dict and d['format'] == 'distillgan_model' and d['version'] == 1
    with zipfile.ZipFile(f) as z: card = json.loads(z.read('archive/card.json'))
    assert card['metadata'] == d['metadata'] and card['vocoder']['epochs'] == 50 and card['sizes']['latent_dim'] == 2

def test_an_analysis_travels_along(tmp_path):
    latent = pytest.importorskip('distill.latent.analysis')
    mels = [torch.randn(8, 60, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    a = latent.analyze(tiny(), mels, steps=4, most_axes=4, sliders=2)
    m = load_model(save(tmp_path, analysis=a))
    assert same(m.analysis.to_dict(), a.to_dict())

def test_unknown_metadata_is_written_back(tmp_path):
    d, card = read_contents(save(tmp_path))
    d['metadata']['from_the_future'] = card['metadata']['from_the_future'] = [1, 2]
    (tmp_path/'new.distillgan').write_bytes(craft(d, card))
    m = load_model(tmp_path/'new.distillgan')
    g = save_model(m.net, m.mel.cfg, m.training_config, m.metadata, tmp_path/'other')
    assert load_model(g).metadata.extra == dict(from_the_future=[1, 2]) and ModelLibrary(tmp_path/'other').get('Tiny').extra == dict(from_the_future=[1, 2])

def test_a_second_copy_is_a_second_model(tmp_path):
    meta = ModelMetadata('Twin')
    a, b = (save_model(tiny(), MEL, {}, meta, tmp_path) for _ in range(2))
    ids = [load_model(f).metadata.model_id for f in (a, b)]
    assert a.name == 'Twin.distillgan' and b.name == 'Twin_1.distillgan' and ids[0] == meta.model_id != ids[1]

def test_replacing_keeps_the_identity_and_the_name(tmp_path):
    f = save(tmp_path); m = load_model(f); before = os.stat(f).st_ino
    g = save_model(m.net, m.mel.cfg, m.training_config, m.metadata, tmp_path, vocoder_state=vocoder(), path=f)
    assert g == f and load_model(f).metadata == m.metadata and os.stat(f).st_ino != before
    assert [e.vocoder.epochs for e in ModelLibrary(tmp_path)] == [50]

def test_saving_does_not_touch_what_it_is_given(tmp_path):
    voc, conf = vocoder(), dict(a=[1, (2, 3)])
    w, c = copy.deepcopy(voc), copy.deepcopy(conf)
    save_model(tiny(), MEL, conf, ModelMetadata('x'), tmp_path, vocoder_state=voc)
    assert same(voc, w) and conf == c

@pytest.mark.parametrize('bad', [dict(a=np.zeros(3)), dict(a={1, 2}), dict(a=Path('x')), {('a', 1): 2}, dict(a=lambda: 0)], ids=['numpy', 'set', 'path', 'key', 'function'])
def test_only_plain_values_are_saved(tmp_path, bad):
    with pytest.raises(UserError, match='training_config'): save_model(tiny(), MEL, bad, ModelMetadata('x'), tmp_path)
    assert not list(tmp_path.iterdir())

def test_a_cycle_is_not_followed_for_ever(tmp_path):
    loop = []; loop.append(loop)
    with pytest.raises(UserError, match='nested too deep'): to_plain(loop)

def test_views_do_not_drag_their_memory_along(tmp_path):
    wide = torch.zeros(1_000_000)
    f = save(tmp_path, vocoder_state=vocoder({'w': wide[:2], 'v': wide[:2]}))
    assert f.stat().st_size < 30_000

def test_another_device_is_an_error_in_words(tmp_path):
    if torch.cuda.is_available(): pytest.skip('this machine has one')
    with pytest.raises(UserError, match='no device'): load_model(save(tmp_path), 'cuda')

def test_old_files_still_load():
    "A file written by the first version of this format, kept in the repository"
    m = load_model(Path(__file__).parent/'golden'/'v1_tiny.distillgan')
    assert m.metadata.name == 'Golden' and m.metadata.model_id == 'golden-0001' and m.vocoder_state['training_metadata']['epochs'] == 50
    out = m.net.decode(torch.ones(1, 2, 2))
    assert out.shape == (1, 8, 4) and torch.allclose(out.sum(), torch.tensor(float((Path(__file__).parent/'golden'/'v1_tiny.txt').read_text())), atol=1e-4)

# --- from a checkpoint, and away again

def checkpoint(path, **kw):
    torch.save(dict(format='distill_checkpoint', version=CHECKPOINT_VERSION, kind='vae', model_state_dict=dict(tiny().state_dict()), model_config=dataclasses.asdict(tiny().cfg),
                    spectrogram_config=dataclasses.asdict(MEL), training_config=dict(lr=1e-3, seed=7), training_history=HISTORY, optimizer=dict(m=torch.zeros(50_000)),
                    random=torch.get_rng_state(), corpus=dict(name='rain', n_files=30, seconds=147.), cpu_seconds=12.5) | kw, path)
    return path

def test_a_checkpoint_becomes_a_model_without_its_optimiser(tmp_path):
    f = save_model_from_checkpoint(checkpoint(tmp_path/'run.pt'), ModelMetadata('Made', seed=3), tmp_path/'lib')
    assert f.stat().st_size < 50_000 and not [k for k in torch.load(f, weights_only=True) if 'optim' in k]
    m = load_model(f).metadata
    assert (m.corpus, m.n_files, m.seconds, m.epochs, m.steps, m.held_out, m.final_recon, m.train_seconds, m.seed) == ('rain', 30, 147., 1, 50, .8, .9, 12.5, 3)

@pytest.mark.parametrize('wrong', [dict(format='?'), dict(model_state_dict={}), dict(model_config=dict(n_mels=0)), dict(model_config=None)], ids=str)
def test_a_checkpoint_that_is_none(tmp_path, wrong):
    with pytest.raises(UserError): save_model_from_checkpoint(checkpoint(tmp_path/'run.pt', **wrong), ModelMetadata('x'), tmp_path/'lib')
    assert not list(tmp_path.glob('lib/*.distillgan'))

def test_delete_goes_to_the_trash_and_comes_back(tmp_path):
    f = save(tmp_path, model_id='rain-0001')
    assert delete_model('rain-0001', tmp_path) is True and not f.exists() and not len(ModelLibrary(tmp_path))
    assert delete_model('rain-0001', tmp_path) is False
    assert ModelLibrary(tmp_path).restore('rain-0001').path == f and load_model(f)

@pytest.mark.parametrize('unknown', ['', 'rain', 'Tiny', 'Tiny.distillgan', '../x', None])
def test_delete_wants_the_whole_id(tmp_path, unknown):
    f = save(tmp_path, model_id='rain-0001')
    assert delete_model(unknown, tmp_path) is False and f.exists()

# --- refusing (each kind once, by name; tests/test_fuzz.py has them by the thousand)

def test_no_file(tmp_path):
    with pytest.raises(MissingFile, match='There is no model file'): load_model(tmp_path/'x.distillgan')
    assert 'it is not a file' in refused(tmp_path, 'Not a valid .distillgan model file')

def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path/'pipe.distillgan')
    refused(tmp_path/'pipe.distillgan', 'it is not a file')
    assert not len(ModelLibrary(tmp_path))

def test_newer_files_say_which_version(tmp_path):
    d, card = read_contents(save(tmp_path))
    for contents, c in ((d | dict(version=2), card), (d, card | dict(version=2))):
        (tmp_path/'new.distillgan').write_bytes(craft(contents, c))
        with pytest.raises(NewerModelFile, match='has version 2 of the model format, and this library reads up to version 1: upgrade distill'): load_model(tmp_path/'new.distillgan')

def set_(d, path, v):
    for k in path[:-1]: d = d[k]
    d[path[-1]] = v

WRONG = {
    'absurd mean': (['model_config', 'mean'], (1e39,)*8, 'not finite'), 'absurd settings': (['model_config', 'silence'], 1e300, 'its card disagrees with its contents about settings'),
    'marker': (['format'], 'holiday', 'marker'), 'no version': (['version'], 'one', 'version'), 'bool version': (['version'], True, 'version'),
    'nan weight': (['model_state_dict', 'encoder.0.bias'], torch.tensor([0., float('nan'), 0, 0]), 'not finite'),
    'inf weight': (['model_state_dict', 'encoder.0.bias'], torch.tensor([0., float('inf'), 0, 0]), 'not finite'),
    'wrong shape': (['model_state_dict', 'encoder.0.bias'], torch.zeros(5), 'wrong shape or type of weight encoder.0.bias'),
    'wrong dtype': (['model_state_dict', 'encoder.0.bias'], torch.zeros(4, dtype=torch.float64), 'wrong shape or type'),
    'a number for a tensor': (['model_state_dict', 'encoder.0.bias'], 3, 'wrong shape or type'),
    'extra weight': (['model_state_dict', 'extra'], torch.zeros(1), "unknown weight 'extra'"),
    'huge declared shape': (['model_state_dict', 'encoder.0.bias'], torch.zeros(1).expand(10**12), 'wrong shape'),
    'sparse': (['training_config', 'x'], torch.zeros(3).to_sparse(), 'unsafe content'),
    'gradient': (['model_state_dict', 'encoder.0.bias'], torch.zeros(4, requires_grad=True), 'gradient'),
    'giant net': (['model_config', 'channels'], 4096, 'wrong shape'), 'impossible net': (['model_config', 'kernel'], 4, 'kernel is 4'),
    'unknown setting': (['model_config', 'color'], 1, 'color'), 'no settings': (['model_config'], {}, 'model_config says 16'),
    'latent_dim': (['latent_dim'], 3, 'latent_dim is 3'), 'mel rows': (['spectrogram_config', 'n_mels'], 9, 'mel rows'),
    'giant mel': (['spectrogram_config'], dict(n_fft=65536, hop=512, n_mels=4096), 'too many'), 'history': (['training_history'], {}, 'training_history has the wrong type'),
    'analysis': (['latent_analysis'], dict(version=1), 'latent_analysis'), 'name': (['metadata', 'name'], '', 'metadata'),
    'id': (['metadata', 'model_id'], '../../x', 'metadata'), 'escape codes': (['metadata', 'name'], 'x\x1b[2J', 'metadata'),
    'set': (['training_config', 'x'], {1, 2}, 'unsafe content'), 'long number': (['training_config', 'x'], 2**70, 'too long'), 'bytes': (['training_config', 'x'], b'x', 'unsafe content'),
    'a tensor for a date': (['vocoder_state', 'training_metadata', 'training_date'], torch.tensor(0.), 'training_date'),
    'vocoder': (['vocoder_state'], None, 'vocoder_state'), 'card': (['metadata', 'epochs'], 5, 'its card disagrees with its contents about metadata'),
}

@pytest.fixture(scope='module')
def good(tmp_path_factory):
    "Contents and card of a file that loads"
    return read_contents(save(tmp_path_factory.mktemp('good'), vocoder_state=vocoder()))

@pytest.mark.parametrize('what', WRONG)
def test_wrong_contents(tmp_path, good, what):
    d, card = copy.deepcopy(good)
    where, v, why = WRONG[what]
    set_(d, where, v)
    (tmp_path/'x.distillgan').write_bytes(craft(d, card))
    refused(tmp_path/'x.distillgan', why)

@pytest.mark.parametrize('key', ['format', 'version', 'model_state_dict', 'model_config', 'latent_dim', 'spectrogram_config', 'training_config', 'training_history', 'latent_analysis', 'metadata'])
def test_missing_keys_are_named(tmp_path, good, key):
    (tmp_path/'x.distillgan').write_bytes(craft({k: v for k, v in good[0].items() if k != key}, good[1]))
    refused(tmp_path/'x.distillgan', dict(format='marker', version='version').get(key, f'missing key {key}'))

def test_shared_containers_do_not_explode(tmp_path, good):
    d, card = copy.deepcopy(good)
    laugh = ['ha']
    for _ in range(18): laugh = [laugh]*10
    d['training_config']['x'] = laugh
    (tmp_path/'x.distillgan').write_bytes(craft(d, card))
    refused(tmp_path/'x.distillgan', 'holds one container twice')          # at once: in full it would not end

def test_deep_nesting_is_an_error_not_a_crash(tmp_path, good):
    recs = records(craft(*good))
    deep = b'\x80\x02' + b']'*200_000 + b'a'*199_999 + b'.'
    (tmp_path/'x.distillgan').write_bytes(rezip(recs | {'archive/data.pkl': deep}))
    refused(tmp_path/'x.distillgan', 'it holds no dict')
    long = b'\x80\x02' + b']0'*MOST_OPS + b']' + b'.'
    (tmp_path/'x.distillgan').write_bytes(rezip(recs | {'archive/data.pkl': long}))
    refused(tmp_path/'x.distillgan', 'unsafe content|too long')

def test_every_flipped_byte_of_the_weights_is_noticed(tmp_path):
    f = save(tmp_path); raw = f.read_bytes()
    for name in [n for n in records(raw) if '/data/' in n]:
        bad = bytearray(raw); bad[offset(raw, name)] ^= 1
        (tmp_path/'x.distillgan').write_bytes(bad)
        assert f'damaged record {name}' in refused(tmp_path/'x.distillgan', 'damaged record')
