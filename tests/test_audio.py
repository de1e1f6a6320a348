"Sound files of every kind, whole, cut and damaged; folders as they are; the cache that may vanish at any time."
import errno, os, random, resource, shutil, struct, sys
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
import torch
import distill.audio.cache as cached
from distill.audio.files import AudioError, Sound, SourceSound, read_audio, read_source, read_tags, resample, write_audio
import distill.audio.corpus as corpus_page
from distill.audio.corpus import Corpus
from distill.training.forecast import expected_seconds
from distill.training.plan import default_steps
from distill.generation.sounds import save_new, save_sound
from distill.core import MissingFile, UserError, WriteError, printable
from distill.audio.demo import demo_corpus

KINDS = [tuple(kind.split()) for kind in (   # suffix, format, subtype
    'wav WAV PCM_16', 'wav WAV FLOAT', 'wav WAV IMA_ADPCM', 'wav WAVEX PCM_24', 'rf64 RF64 PCM_16', 'w64 W64 PCM_24',
    'aiff AIFF PCM_24', 'AIF AIFF PCM_16', 'au AU PCM_16', 'caf CAF PCM_16', 'voc VOC PCM_16', 'flac FLAC PCM_16',
    'ogg OGG VORBIS', 'opus OGG OPUS', 'mp3 MP3 MPEG_LAYER_III')]
LABELS = [f'{s}-{sub}' for s, _, sub in KINDS]

@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    d = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('DISTILL_CACHE', str(d))
    return d

def noise(seconds=1., rate=48_000, channels=1, level=.1, seed=0):
    "Something that does not compress away and is loud everywhere"
    x = np.random.default_rng(seed).normal(size=(round(seconds*rate), channels))
    return np.clip(level*x, -1, 1).astype('float32')

def tone(hertz, seconds, rate): return (.5*np.sin(2*np.pi*hertz*np.arange(round(seconds*rate))/rate)).astype('float32')

def put(path, x, rate=48_000, **kw):
    sf.write(path, x, rate, **kw)
    return path

def status(corpus): return {f.name: (f.status, f.reason) for f in corpus.files}

# --- reading

@pytest.mark.parametrize('kind', KINDS, ids=LABELS)
@pytest.mark.parametrize('channels', [1, 2])
def test_every_kind_is_read_whole(tmp_path, kind, channels):
    suffix, format, subtype = kind
    x = noise(channels=channels)
    y, rate = read_audio(put(tmp_path/f'a.{suffix}', x, format=format, subtype=subtype))
    assert rate == 48_000 and y.dtype == torch.float32 and y.is_contiguous()
    lossy = subtype in ('VORBIS', 'OPUS', 'MPEG_LAYER_III', 'IMA_ADPCM')
    assert y.shape[0] == channels and abs(y.shape[1] - 48_000) <= (1100 if lossy else 0)
    if not lossy: np.testing.assert_allclose(y.numpy().T, x, atol=2**-15)

@pytest.mark.parametrize('kind', KINDS, ids=LABELS)
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path, kind):
    suffix, format, subtype = kind
    whole = put(tmp_path/f'a.{suffix}', noise(2), format=format, subtype=subtype).read_bytes()
    rng = random.Random(7)
    for share in [.02, .5, .95] + [rng.random()*.95 for _ in range(9)]:
        (cut := tmp_path/f'cut.{suffix}').write_bytes(whole[:int(len(whole)*share)])
        with pytest.raises(AudioError) as e: read_audio(cut)
        assert 'cut.' in str(e.value) and str(e.value).endswith('.') and '\n' not in str(e.value), share

def test_a_missing_last_chunk_that_is_not_sound_does_no_harm(tmp_path):
    with sf.SoundFile(tmp_path/'a.wav', 'w', 48_000, 1, 'PCM_16') as f:
        f.write(noise())
        f.comment = 'written after the sound, and lost'
    d = (tmp_path/'a.wav').read_bytes()
    assert d.rfind(b'LIST') > d.find(b'data')
    (tmp_path/'a.wav').write_bytes(d[:d.rfind(b'LIST') + 8])
    assert read_audio(tmp_path/'a.wav')[0].shape == (1, 48_000)

@pytest.mark.parametrize('said', [0, 0xffff_ffff, 0x7fff_f000, 0x7fff_ffff - 36])
def test_streams_that_could_not_know_their_length(tmp_path, said):
    d = bytearray(put(tmp_path/'a.wav', noise(), subtype='PCM_16').read_bytes())
    i = d.find(b'data') + 4
    d[i:i+4], d[4:8] = struct.pack('<I', said), struct.pack('<I', min(said + 36, 0xffff_ffff))
    (tmp_path/'a.wav').write_bytes(d)
    assert read_audio(tmp_path/'a.wav')[0].shape == (1, 48_000)

def test_a_header_that_lies_about_terabytes_takes_no_memory(tmp_path):
    d = bytearray(put(tmp_path/'a.flac', noise()).read_bytes())
    d[21] |= 0x0f
    d[22:26] = b'\xff'*4  # 2**36 - 1 samples
    (tmp_path/'a.flac').write_bytes(d)
    with pytest.raises(AudioError): read_audio(tmp_path/'a.flac')

@pytest.mark.parametrize('suffix', ['flac', 'ogg', 'mp3'])
def test_a_damaged_middle_is_refused(tmp_path, suffix):
    d = bytearray(put(tmp_path/f'a.{suffix}', noise(4)).read_bytes())
    m = len(d)//2
    d[m:m+3000] = bytes(3000)
    (tmp_path/f'a.{suffix}').write_bytes(d)
    with pytest.raises(AudioError, match='damaged'): read_audio(tmp_path/f'a.{suffix}')

@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('channel', [0, 1])
def test_one_sample_that_is_no_number(tmp_path, bad, channel):
    x = noise(channels=2)
    x[24_000, channel] = bad
    with pytest.raises(AudioError, match='0.500 s'): read_audio(put(tmp_path/'a.wav', x, subtype='FLOAT'))

@pytest.mark.parametrize('rate', [1, 100, 2_000_000])
def test_rates_no_sound_has(tmp_path, rate):
    with pytest.raises(AudioError, match=f'{rate} Hz'): read_audio(put(tmp_path/'a.wav', noise(.1), rate))

def test_not_files(tmp_path):
    with pytest.raises(MissingFile, match='no file'): read_audio(tmp_path/'a.wav')
    with pytest.raises(AudioError, match='ordinary'): read_audio(tmp_path)
    for data, says in ((b'', 'empty'), (b'hello', 'not a sound'), (os.urandom(5000), 'not a sound|damaged')):
        for suffix in ('wav', 'flac', 'mp3', 'ogg'):
            (tmp_path/f'x.{suffix}').write_bytes(data)
            with pytest.raises(AudioError, match=says): read_audio(tmp_path/f'x.{suffix}')

# --- rates

RATES = [4000, 8000, 11_025, 11_111, 22_050, 32_000, 44_056, 44_100, 44_101, 47_999, 48_000, 88_200, 96_000,
         192_000, 352_800]

@pytest.mark.parametrize('rate', RATES)
def test_resampling_keeps_pitch_level_and_length(rate):
    for t in (1, 7, 2000, rate): assert resample(torch.ones(t), rate).shape == (max(1, round(t*48_000/rate)),)
    y = resample(torch.from_numpy(tone(1000, 1, rate)), rate).numpy()
    e = (y - tone(1000, 1, 48_000))[3000:-3000]
    assert np.sqrt((e**2).mean())/.35 < (.1 if rate in (11_111, 44_056, 44_101, 47_999) else 1e-4)
    assert abs(np.abs(y[3000:-3000]).max() - .5) < .002

def test_resampling_takes_any_leading_shape():
    x = torch.randn(2, 3, 4410, generator=torch.Generator().manual_seed(0))
    y = resample(x, 44_100)
    assert y.shape == (2, 3, 4800)
    torch.testing.assert_close(y[1, 2], resample(x[1, 2], 44_100))

def test_what_folds_over_is_gone():
    for hertz in (26_000, 30_000, 40_000):
        y = resample(torch.from_numpy(tone(hertz, 1, 96_000)), 96_000)
        assert float(y[2000:-2000].abs().max()) < .5*10**(-90/20)

# --- writing

@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg', '.mp3', '.WAV'])
@pytest.mark.parametrize('channels', [1, 2])
def test_written_is_read(tmp_path, suffix, channels):
    x = torch.from_numpy(.3*np.stack([tone(440*(i+1), .7, 44_100) for i in range(channels)]))
    tags = dict(title='Füße: "5"', artist='Ö', software='distill 9', seed=2**62, sliders={'brightness': -3.5},
                like=None, level=np.float32(.5))
    p = write_audio(tmp_path/'sub'/f'a{suffix}', x[0] if channels == 1 else x, 44_100, tags)
    y, rate = read_audio(p)
    assert rate == 44_100 and y.shape == x.shape
    assert float((y - x).abs().max()) < (2e-7 if suffix in ('.wav', '.flac', '.WAV') else .02)
    del tags['like']
    assert read_tags(p) == tags
    assert [f.name for f in p.parent.iterdir()] == [p.name]

@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg', '.mp3'])
def test_long_sounds_go_in_blocks_and_come_back_whole(tmp_path, suffix):
    x = tone(300, 2**18*2.3/48_000, 48_000)
    y, _ = read_audio(write_audio(tmp_path/f'a{suffix}', x))
    assert y.shape == (1, len(x)) and np.abs(y[0].numpy() - x).max() < .1

def test_full_scale_is_written_and_more_is_not(tmp_path):
    y, _ = read_audio(write_audio(tmp_path/'a.wav', torch.tensor([1., -1., 0.])))
    torch.testing.assert_close(y[0], torch.tensor([1., -1., 0.]), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match='1.001'): write_audio(tmp_path/'b.wav', torch.tensor([1.001]))
    assert not (tmp_path/'b.wav').exists()

def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    p = write_audio(tmp_path/'a.wav', noise(.1).T)
    before = p.read_bytes()
    for bad in (np.full(9, np.nan), np.zeros(0), np.zeros((2, 3, 4)), np.full(9, 2.), np.zeros((4800, 2))):
        with pytest.raises(UserError): write_audio(p, bad, overwrite=True)
    def full(*a, **k): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(WriteError, match='disk is full'): write_audio(p, noise(.1).T, overwrite=True)
    assert p.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

@pytest.mark.parametrize('name', ['雨', '🎵', 'für\udcfc', 'two\nlines', '\udced\udca0', ' '])
@pytest.mark.parametrize('suffix', ['wav', 'flac', 'ogg', 'mp3'])
def test_a_sound_of_any_name_is_saved(tmp_path, name, suffix):
    p = Sound(noise(.1).T).save(tmp_path/f'{name}.{suffix}')
    assert read_audio(p)[0].shape == (1, 4800) and read_tags(p)['title'] == printable(name)
    info = dict(name=name, like=dict(file=f'{name}.wav'))
    p = Sound(noise(.1).T, info=info).save(p, overwrite=True)
    assert read_tags(p)['like'] == info['like']

@pytest.mark.parametrize('there', ['a file', 'a link', 'a folder'])
def test_nothing_is_written_over_unless_that_is_asked_for(tmp_path, there):
    p, other = tmp_path/'a.wav', tmp_path/'other'
    if there == 'a file': p.write_text('mine')
    elif there == 'a folder': p.mkdir()
    else: p.symlink_to(other)
    sound = Sound(noise(.1).T)
    for write in (sound.save, lambda p: write_audio(p, noise(.1).T), lambda p: save_sound(sound, p)):
        with pytest.raises(FileExistsError, match='overwrite=True'): write(p)
    assert len(list(tmp_path.iterdir())) == 1 and save_new(sound, tmp_path, 'a', '.wav').name == 'a_1.wav'
    if there == 'a folder': return
    assert read_audio(sound.save(p, overwrite=True))[0].shape == (1, 4800)
    assert p.is_symlink() == other.exists() == (there == 'a link')

def test_a_folder_that_is_no_folder(tmp_path):
    (tmp_path/'f').write_text('')
    with pytest.raises(WriteError): write_audio(tmp_path/'f'/'a.wav', noise(.1).T)

def test_more_tags_than_a_wav_holds(tmp_path):
    tags = dict(notes='x'*3000)
    with pytest.raises(UserError, match='FLAC'): write_audio(tmp_path/'a.wav', noise(.1).T, tags=tags)
    for s in ('flac', 'mp3', 'ogg'): assert read_tags(write_audio(tmp_path/f'a.{s}', noise(.1).T, tags=tags)) == tags
    tags = dict(notes='é'*250, title='t')
    assert read_tags(write_audio(tmp_path/'a.wav', noise(.1).T, tags=tags)) == tags

def test_strangers_tags(tmp_path):
    with sf.SoundFile(tmp_path/'a.flac', 'w', 48_000, 1) as f:
        f.comment, f.software = '[1, 2]', 'Somebody'
        f.write(noise(.1))
    assert read_tags(tmp_path/'a.flac') == dict(software='Somebody', comment='[1, 2]')

def test_sound():
    x = noise(.5, channels=2).T
    s = Sound(torch.from_numpy(x), info=dict(name='<b>', seed=3))
    assert np.array(s) is not s.samples and np.array_equal(np.asarray(s), x)
    assert np.asarray(s, 'float64').dtype == np.float64
    assert s.seconds == .5 and len(s) == 24_000 and 'seed 3' in repr(s) and len(repr(s)) < 100
    assert s._repr_html_() == Sound(x.copy(), info=s.info)._repr_html_() and '<b>' not in s._repr_html_()
    assert len(s._repr_html_()) < x.nbytes/4
    assert Sound(x[0], rate=11_111)._repr_html_().count('audio/wav') == 1
    assert s.encode('MP3') == s.encode('MP3') and s.encode('FLAC')[:4] == b'fLaC'
    for bad in (np.zeros(0), np.zeros((1, 2, 3)), 1.):
        with pytest.raises(UserError, match='shape'): Sound(bad)

# --- a corpus

@pytest.fixture
def folder(tmp_path):
    d = tmp_path/'Töne und mehr'
    d.mkdir()
    for i in range(3): put(d/f'{i}.wav', noise(.5 + i, seed=i))
    return d

def test_every_bad_file_has_its_reason_and_the_rest_is_used(folder):
    whole = put(folder/'0.flac', noise(.5, seed=9)).read_bytes()
    (folder/'half.flac').write_bytes(whole[:len(whole)//2])
    put(folder/'zero.wav', np.zeros(9600))
    put(folder/'quiet.wav', noise(level=1e-5), subtype='FLOAT')
    put(folder/'short.wav', noise(.049))
    put(folder/'just.wav', noise(.05, seed=3))
    put(folder/'against.wav', noise()*[[1, -1]])
    put(folder/'nearly.wav', noise()*[[1, -.999]])
    put(folder/'huge.wav', noise()*30_000, subtype='FLOAT')
    x = noise()
    x[3] = np.nan
    put(folder/'nan.wav', x, subtype='FLOAT')
    put(folder/'same.flac', sf.read(folder/'1.wav')[0])
    put(folder/'Twice.AIFF', np.repeat(sf.read(folder/'2.wav', always_2d=True)[0], 2, 1), format='AIFF')
    (folder/'empty.mp3').touch()
    (folder/'text.ogg').write_text('hello')
    (folder/'x.rex').touch()
    (folder/'readme').touch()
    (folder/'.hidden.wav').touch()
    (folder/'._0.wav').touch()
    (folder/'line\nbreak.txt').touch()
    Sound(noise(seed=5).T).save(folder/'take.mp3')
    Sound(noise(seed=5).T).save(folder/'take.wav')
    got = status(Corpus(folder))
    wanted = {'half.flac': 'cut short', 'zero.wav': 'all its samples are 0', 'quiet.wav': 'silent',
              'short.wav': '49 ms', 'against.wav': 'cancel', 'nearly.wav': 'cancel',
              'huge.wav': 'full scale', 'nan.wav': 'not numbers', 'same.flac': 'the same sound as 1.wav',
              'Twice.AIFF': 'the same sound as 2.wav', 'empty.mp3': '0 bytes',
              'text.ogg': 'not a sound', 'x.rex': 'convert'}
    for name, reason in wanted.items(): assert got[name][0] == 'refused' and reason in got[name][1], (name, got[name])
    ignored = {'readme', '.hidden.wav', '._0.wav', 'line\ufffdbreak.txt', 'take.mp3', 'take.wav'}
    for name in ignored: assert got[name][0] == 'ignored' and got[name][1], name
    assert {n for n, (s, _) in got.items() if s == 'used'} == {'0.flac', '0.wav', '1.wav', '2.wav', 'just.wav'}
    corpus = Corpus(folder)
    text = corpus.report()
    for name in wanted: assert name in text
    df = corpus.df()
    assert len(df) == len(got) and str(df.status.dtype) == 'category'
    assert df.seconds.dtype == 'Float64' and df.rate.dtype == 'Int64'
    assert df.query('status == "refused"').reason.str.len().min() > 0

def test_odd_things_in_a_folder(folder, tmp_path):
    sub = folder/'a b'/'ñ'
    sub.mkdir(parents=True)
    put(sub/'Ü 1.WaV', noise(seed=4), format='WAV')
    (folder/'0 first').mkdir()
    put(folder/'0 first'/'x.wav', noise(seed=11))
    (folder/'loop').symlink_to(folder)
    (sub/'up').symlink_to('..')
    (folder/'self.wav').symlink_to('self.wav')
    (folder/'gone.wav').symlink_to('nowhere.wav')
    (other := tmp_path/'other').mkdir()
    put(other/'far.flac', noise(seed=5))
    (folder/'away').symlink_to(other)
    (folder/'.git').mkdir()
    put(folder/'.git'/'x.wav', noise(seed=6))
    (folder/'folder.wav').mkdir()
    os.mkfifo(folder/'pipe.wav')
    c = Corpus(folder)
    assert c.names == ['0 first/x.wav', '0.wav', '1.wav', '2.wav', 'a b/ñ/Ü 1.WaV', 'away/far.flac']
    got = status(c)
    for name, why in {'loop/': 'link', 'a b/ñ/up/': 'link', 'gone.wav': 'not there', 'self.wav': 'not there'}.items():
        assert why in got[name][1]
    assert got['pipe.wav'] == ('refused', 'not an ordinary file') and got['.git/'] == ('ignored', 'hidden')

@pytest.mark.skipif(sys.platform != 'linux', reason='names are bytes only on Linux')
def test_a_name_that_is_no_text(folder):
    put(folder/'b.wav', noise(seed=8))
    os.rename(os.fsencode(folder/'b.wav'), os.fsencode(folder) + b'/b\xff.wav')
    c = Corpus(folder)
    assert 'b\ufffd.wav' in c.names and c.report().encode()
    os.rename(os.fsencode(folder) + b'/b\xff.wav', os.fsencode(folder) + b'/b\xfe.wav')
    os.truncate(os.fsencode(folder) + b'/b\xfe.wav', 900)
    assert 'cut short' in status(Corpus(folder))['b\ufffd.wav'][1]

def test_files_that_may_not_be_opened(folder, monkeypatch):
    (folder/'deep').mkdir()
    put(folder/'deep'/'x.wav', noise(seed=7))
    if os.geteuid():  # for root there is no such file
        (folder/'0.wav').chmod(0)
        (folder/'deep').chmod(0)
    else:
        real, walk = corpus_page.decode_once, os.scandir
        def closed(path, cache):
            if path.name == '0.wav': raise PermissionError(errno.EACCES, 'Permission denied')
            return real(path, cache)
        def shut(path='.'):
            if Path(os.fsdecode(path)).name == 'deep': raise PermissionError(errno.EACCES, 'Permission denied')
            return walk(path)
        monkeypatch.setattr(corpus_page, 'decode_once', closed)
        monkeypatch.setattr(os, 'scandir', shut)
    try: got = status(Corpus(folder))
    finally: (folder/'deep').chmod(0o755)
    for name in ('0.wav', 'deep/'): assert got[name][0] == 'refused' and 'permissions' in got[name][1]

@pytest.mark.parametrize('make,says', [
    (lambda d: None, 'is empty'),
    (lambda d: (d/'a.txt').write_text('a'), 'a.txt: .txt is not a sound'),
    (lambda d: put(d/'a.wav', noise(.01)), '10 ms'),
    (lambda d: (d/'.DS_Store').touch(), 'hidden')])
def test_nothing_left_is_one_sentence(tmp_path, make, says):
    (d := tmp_path/'leer').mkdir()
    make(d)
    with pytest.raises(UserError) as e: Corpus(d)
    assert says in str(e.value) and str(d) in str(e.value) and 'put sounds' in str(e.value) and '\n' not in str(e.value)

def test_no_folder(tmp_path):
    with pytest.raises(MissingFile, match='nowhere'): Corpus(tmp_path/'nowhere')
    with pytest.raises(UserError, match='is a file'): Corpus(put(tmp_path/'a.wav', noise()))

@pytest.mark.parametrize('value', ['', [], ['a', 'b'], 7, None, {}])
def test_what_is_no_folder(tmp_path, monkeypatch, value):
    put(tmp_path/'a.wav', noise())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='folder of sounds') as e: Corpus(value)
    assert repr(value) in str(e.value)

# --- a sound from the user

def test_every_kind_of_sound_is_given_alike(tmp_path):
    x = noise(.2, channels=2)
    file = put(tmp_path/'a.wav', x, subtype='FLOAT')
    mono = x.mean(1)
    kinds = [file, str(file), x.T, torch.from_numpy(x.T), Sound(x.T), (x.T, 48_000), mono, list(map(float, mono))]
    assert len({read_source(k).hash for k in kinds}) == 1
    g = read_source(file)
    assert isinstance(g, SourceSound) and read_source(g) is g and g.note() == dict(file=str(file), hash=g.hash)

NO_SOUNDS = None, 7, {}, 'gone.wav', [['a']], np.zeros(0), np.zeros((2, 2, 2)), (noise(.1).T, 0), (noise(.1).T, 44.1)

@pytest.mark.parametrize('bad', NO_SOUNDS)
def test_no_sound_is_one_sentence(bad):
    with pytest.raises(UserError) as e: read_source(bad)
    assert str(e.value).endswith('.') and '\n' not in str(e.value)

@pytest.mark.parametrize('x,why', [
    (noise(.049), '49 ms'),
    (noise()*0, 'all its samples are 0'),
    (noise(level=1e-5), 'silent'),
    (noise()*[[1, -1]], 'cancel'),
    (noise()*30_000, 'full scale')])
def test_a_given_sound_is_refused_with_the_reason_of_a_corpus(tmp_path, x, why):
    file = put(tmp_path/'bad.wav', x, subtype='FLOAT')
    put(tmp_path/'good.wav', noise())
    reason = status(Corpus(tmp_path))['bad.wav'][1]
    assert why in reason
    for kind in (file, x.T.astype('float32')):
        with pytest.raises(UserError) as e: read_source(kind)
        assert reason in str(e.value)

@pytest.mark.parametrize('rate', [22_050, 44_100, 48_000, 96_000])
def test_channels_are_averaged_and_loudness_is_kept(tmp_path, rate):
    l, r = tone(500, 1, rate), tone(700, 1, rate)
    put(tmp_path/'loud.wav', np.stack([l, r], 1), rate, subtype='FLOAT')
    put(tmp_path/'soft.wav', .01*l, rate, subtype='FLOAT')
    loud, soft = Corpus(tmp_path)
    wanted = (tone(500, 1, 48_000) + tone(700, 1, 48_000))/2
    np.testing.assert_allclose(loud[2000:-2000], wanted[2000:-2000], atol=1e-4)
    assert abs(float(soft[2000:-2000].abs().max()) - .005) < 1e-4

def test_order_and_fingerprint_do_not_depend_on_threads(tmp_path, monkeypatch):
    demo_corpus(tmp_path/'d')
    for i, f in enumerate(sorted((tmp_path/'d').rglob('*.wav'))[:6]): shutil.copy(f, tmp_path/'d'/f'copy {i}.wav')
    real = corpus_page.decode_once
    def late(path, cache):
        import time
        time.sleep(random.random()*.01)
        return real(path, cache)
    seen = set()
    for n in (1, 4, 4):
        monkeypatch.setattr(corpus_page.os, 'cpu_count', lambda: n)
        monkeypatch.setattr(corpus_page, 'decode_once', late)
        c = Corpus(tmp_path/'d', cache=False)
        seen.add((c.fingerprint, tuple(c.names), c.report()))
    assert len(seen) == 1

def test_the_fingerprint_follows_the_sounds_only(folder):
    a = Corpus(folder).fingerprint
    os.utime(folder/'0.wav', (1, 1))
    (folder/'note.txt').touch()
    assert Corpus(folder).fingerprint == a
    put(folder/'0.wav', noise(.5, seed=77))
    assert Corpus(folder).fingerprint != a

def test_samples_given_out_are_the_callers_own(folder):
    c = Corpus(folder)
    c[0].zero_()
    assert c[0].any()
    with pytest.raises(IndexError): c[3]
    assert torch.equal(c[-1], c[2])

def test_split_is_by_file_and_seeded(folder):
    c = Corpus(folder)
    assert c.split() == ([0, 1, 2], [])
    for i in range(3, 20): put(folder/f'{i}.wav', noise(.1, seed=i))
    c = Corpus(folder)
    a, b = c.split(.15)
    assert len(b) == 3 and not set(a) & set(b) and sorted(a + b) == list(range(20))
    assert c.split(.15) == (a, b) != c.split(.15, seed=1)
    assert len(c.split(.001)[1]) == 1 and c.split(0)[1] == []
    for bad in (-.1, .6, float('nan')):
        with pytest.raises(UserError, match='hold out'): c.split(bad)

def test_progress(folder):
    (folder/'a.txt').touch()
    seen = []
    Corpus(folder, progress=lambda *a: seen.append(a))
    assert seen == [(1, 3, '0.wav'), (2, 3, '1.wav'), (3, 3, '2.wav')]

# --- the cache

def counted(monkeypatch):
    names, real = [], cached.decode
    def decode(path, take):
        names.append(path.name)
        return real(path, take)
    monkeypatch.setattr(cached, 'decode', decode)
    return names

def test_decoded_once_whatever_the_name(folder, monkeypatch):
    n = counted(monkeypatch)
    a = [x for x in Corpus(folder)]
    assert len(n) == 3
    os.rename(folder/'0.wav', folder/'00.wav')
    b = [x for x in Corpus(folder)]
    assert len(n) == 3 and all(map(torch.equal, a, b))

HARMS = 'delete', 'no samples', 'no facts', 'cut samples', 'flip samples', 'flip facts', 'text'

@pytest.mark.parametrize('harm', HARMS)
@pytest.mark.parametrize('alive', [False, True])
def test_a_harmed_cache_is_made_again(folder, cache, harm, alive):
    wanted = [x for x in Corpus(folder, cache=False)]
    c = Corpus(folder)
    for f in list((cache/'audio').iterdir()):
        if harm == 'delete' or (harm, f.suffix) in (('no samples', '.f32'), ('no facts', '.json')): f.unlink()
        elif (harm, f.suffix) == ('cut samples', '.f32'): f.write_bytes(f.read_bytes()[:-400])
        elif (harm, f.suffix) == ('text', '.f32'): f.write_text('hello')
        elif harm.split()[0] == 'flip' and f.suffix == ('.f32' if 'samples' in harm else '.json'):
            d = bytearray(f.read_bytes())
            d[len(d)//2] ^= 4
            f.write_bytes(d)
    if harm == 'delete': shutil.rmtree(cache/'audio')
    if not alive: c = Corpus(folder)
    assert all(map(torch.equal, c, wanted)) and not c.cache_trouble
    if not alive: assert all(cached.is_intact(d.base, d.facts) for d in c._decoded)

def test_no_room_for_the_cache(folder, cache):
    wanted = [x for x in Corpus(folder, cache=False)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try: c = Corpus(folder)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert all(map(torch.equal, c, wanted)) and 'too large' in c.cache_trouble and 'in memory' in c.report()
    assert not list((cache/'audio').iterdir())

def test_a_file_that_changes_while_the_corpus_is_open(folder, cache):
    c = Corpus(folder)
    shutil.rmtree(cache/'audio')
    put(folder/'0.wav', noise(.5, seed=99))
    (folder/'1.wav').unlink()
    with pytest.raises(UserError, match='has changed'): c[0]
    with pytest.raises(MissingFile): c[1]

def test_without_a_cache_nothing_is_written(folder, cache):
    list(Corpus(folder, cache=False))
    assert not list(cache.iterdir())

# --- costs

def test_steps_grow_with_the_sound():
    class Of:
        def __init__(self, s): self.seconds = s
    steps = [default_steps(Of(s)) for s in (1, 100, 180, 720, 4500, 1e6)]
    assert steps == [1000, 1000, 1000, 2000, 2000, 2000]

def test_the_global_generator_and_the_threads_are_left_alone(folder):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    c = Corpus(folder)
    c.split()
    c.report()
    assert expected_seconds(2) > 0
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads

# --- the demonstration corpus

def test_demo_corpus(tmp_path):
    files = demo_corpus(tmp_path/'demo', seed=3)
    c = Corpus(tmp_path/'demo')
    assert len(files) >= 24 and len(c) == len(files) and len({f.parent.name for f in files}) >= 6
    assert {f.suffix for f in files} == {'.wav', '.flac'}
    assert {f.rate for f in c.used} == {22_050, 44_100, 48_000} and {f.channels for f in c.used} == {1, 2}
    assert all(.15 <= f.seconds <= 2.55 for f in c.used)
    again = demo_corpus(tmp_path/'again', seed=3)
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(files, demo_corpus(tmp_path/'other', seed=4)))
