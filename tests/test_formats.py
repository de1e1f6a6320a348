"""Sound files as recorders, phones and servers leave them.

Headers that are wrong, several streams, tags at both ends, a few bytes too few.

What is read is read whole, sample by sample as a decoder of its own gives it; everything else is refused with a reason.
"""
import io, os, random, struct, subprocess, sys
import numpy as np
import pytest
import soundfile as sf
from distill.audio.corpus import Corpus
from distill.audio.decode import AudioError, read_audio, read_blocks, read_tags
from distill.audio.files import read_source
from distill.core import UserError

RATE = 48_000
NOISE = np.clip(.1*np.random.default_rng(0).normal(size=(RATE, 2)), -.9, .9).astype('float32')
ID3 = b'ID3\4\0\0' + bytes((0, 0, 1, 2)) + bytes(130)
ID3V1 = b'TAG' + bytes(125)
LYRICS = b'LYRICSBEGIN' + b'IND00002' + b'x'*300 + b'000319LYRICS200'

def _ape():
    item = struct.pack('<II', 60_000, 2) + b'Cover Art (Front)\0' + bytes(60_000)
    def foot(flags): return b'APETAGEX' + struct.pack('<IIII', 2000, len(item) + 32, 1, flags) + bytes(8)
    return foot(0xa000_0000) + item + foot(0x8000_0000)
APE = _ape()

def encode(format, subtype, channels=1, x=NOISE, rate=RATE, **kw):
    "The bytes of a file"
    data = io.BytesIO()
    with sf.SoundFile(data, 'w', rate, channels, subtype, format=format, **kw) as f: f.write(x[:, :channels])
    return data.getvalue()

def plain(data): # -> (c,t)
    "What libsndfile gives of an ordinary file"
    with sf.SoundFile(io.BytesIO(data)) as f:
        f.seekable = lambda: False
        return f.read(10*RATE, dtype='float32', always_2d=True).T

@pytest.fixture
def read(tmp_path):
    "Bytes as a file -> samples (c,t), or the reason of a refusal"
    def read(data):
        (tmp_path/'sound').write_bytes(data)
        try: return read_audio(tmp_path/'sound')[0].numpy()
        except AudioError as e: return e.reason
    return read

def is_same(got, wanted): return not isinstance(got, str) and got.shape == wanted.shape and np.array_equal(got, wanted)

# --- headers written before the length was known

FIELDS = {   # (name before it, bytes from there, width, byte order) of each length in a header
    'WAV': [(b'RIFF', 4, 4, 'little'), (b'data', 4, 4, 'little')],
    'RF64': [(b'ds64', 8, 8, 'little'), (b'ds64', 16, 8, 'little'), (b'ds64', 24, 8, 'little')],
    'W64': [(b'riff', 16, 8, 'little'), (b'data', 16, 8, 'little')],
    'AIFF': [(b'FORM', 4, 4, 'big'), (b'COMM', 10, 4, 'big'), (b'SSND', 4, 4, 'big')],
    'CAF': [(b'data', 4, 8, 'big')],
    'AU': [(b'.snd', 8, 4, 'big')],
    'SVX': [(b'FORM', 4, 4, 'big'), (b'BODY', 4, 4, 'big')],
    'AVR': [(b'2BIT', 26, 4, 'big')],
}
SUBTYPES = [tuple(kind.split()) for kind in (
    'WAV PCM_16', 'WAV PCM_24', 'WAV FLOAT', 'WAV ULAW', 'WAV IMA_ADPCM', 'RF64 PCM_16', 'W64 PCM_24',
    'AIFF PCM_16', 'AIFF FLOAT', 'AIFF IMA_ADPCM', 'CAF PCM_16', 'AU PCM_16', 'SVX PCM_16', 'AVR PCM_16')]

@pytest.mark.parametrize('format,subtype', SUBTYPES)
def test_a_length_that_was_not_known_does_not_shorten_the_sound(read, format, subtype):
    whole = encode(format, subtype)
    wanted = plain(whole)
    for fields in [FIELDS[format]] + [[f] for f in FIELDS[format]]:
        for value in range(4):
            data = bytearray(whole)
            for name, offset, width, order in fields:
                at = data.find(name) + offset
                bits = 8*width
                numbers = 0, 2**bits - 1, 2**(bits - 1), 2**(bits - 1) - 2**(bits - 17)
                data[at:at + width] = numbers[value].to_bytes(width, order)
            assert is_same(read(bytes(data)), wanted), (fields, value)

def riff(*chunks, pad=True):
    "A RIFF with (name, contents) or (name, contents, size that is told)"
    body = b'WAVE'
    for name, data, *size in chunks:
        body += name + struct.pack('<I', *(size or [len(data)])) + data
        if pad and len(data) % 2: body += b'\0'
    return b'RIFF' + struct.pack('<I', len(body)) + body

PCM = (NOISE[:, 0]*32_767).astype('<i2').tobytes()
PCM_SOUND = np.frombuffer(PCM, '<i2').astype('float32')[None]/32_768
FORMAT = b'fmt ', struct.pack('<HHIIHH', 1, 1, RATE, 2*RATE, 2, 16)
ODD = [(b'bext', b'field data, lake'.ljust(603, b'\0')), (b'LIST', b'INFOISFT' + struct.pack('<I', 9) + b'data data'),
       (b'JUNK', b'fmt data RIFF'*7), (b'id3 ', ID3), (b'fake', b'data' + struct.pack('<I', 10) + bytes(11))]

def test_chunks_are_walked_and_not_searched_for(read):
    wanted, r = PCM_SOUND, random.Random(0)
    for _ in range(30):
        chunks = r.sample(ODD, r.randint(0, 4))
        chunks.insert(r.randint(0, len(chunks)), FORMAT)
        behind = r.sample(ODD, r.randint(0, 3))
        assert is_same(read(riff(*chunks, (b'data', PCM), *behind)), wanted), (chunks, behind)
        assert is_same(read(riff(*chunks, (b'data', PCM, 0))), wanted), chunks
        assert is_same(read(riff(*chunks, (b'data', PCM, 0xffff_ffff), pad=False)), wanted), chunks
    assert is_same(read(riff((b'data', PCM), FORMAT)), wanted)
    assert is_same(read(riff(FORMAT, (b'data', PCM[:50_000]), ODD[1], (b'data', PCM[50_000:]))), wanted)
    assert 'no samples' in read(riff(FORMAT, (b'data', b''), ODD[1]))
    assert 'damaged' in read(riff(FORMAT)) and 'damaged' in read(riff((b'data', PCM)))

def test_a_size_that_was_never_corrected_is_not_believed(read):
    assert '40,000 bytes, and 56,000 more' in read(riff(FORMAT, (b'data', PCM, 40_000)))

# --- a little is missing

@pytest.mark.parametrize('more', [1, 2, 8, 22, 44, 1000])
def test_a_header_that_counts_some_bytes_too_many(read, more):
    assert is_same(read(riff(FORMAT, (b'data', PCM, len(PCM) + more))), PCM_SOUND)

@pytest.mark.parametrize('format,subtype', SUBTYPES + [('FLAC', 'PCM_16'), ('CAF', 'ALAC_16'), ('WAV', 'MS_ADPCM')])
def test_a_refusal_never_says_that_equal_numbers_differ(read, format, subtype):
    whole = encode(format, subtype)
    n = plain(whole).shape[1]
    for cut in (1, 2, 3, 7, 20, 44, 200, 2000, 4000, 6000, len(whole)//2):
        got = read(whole[:-cut])
        if not isinstance(got, str): assert n - got.shape[1] <= .05*RATE + 100, cut
        elif 'only' in got: assert len(set(got.split('only ')[1].split(' s are')[0].split(' of its '))) == 2, got

# --- frame counts believed

def mp3(rate=44_100, channels=1, mode='VARIABLE', seconds=2., hertz=330):
    t = np.arange(round(seconds*rate))/rate
    x = np.stack([.3*np.sin(2*np.pi*hertz*t)*(t % .5), .1*np.random.default_rng(1).normal(size=len(t))], 1)
    return encode('MP3', 'MPEG_LAYER_III', channels, x, rate, bitrate_mode=mode, compression_level=.3)

def mp3_frames(data):
    "Where each frame begins; MPEG-1 layer III"
    kbits, at, found = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320), 0, []
    while at + 4 <= len(data) and data[at] == 0xff:
        found.append(at)
        c = data[at + 2]
        at += 144_000*kbits[c >> 4]//(44_100, 48_000, 32_000)[c >> 2 & 3] + (c >> 1 & 1)
    return found

MP3S = [(rate, n, mode) for rate in (8000, 22_050, 44_100, 48_000) for n in (1, 2) for mode in ('CONSTANT', 'VARIABLE')]

@pytest.mark.parametrize('kind', MP3S)
def test_an_mp3_is_decoded_to_its_end_whatever_surrounds_it(tmp_path, read, capfd, kind):
    d = mp3(*kind)
    wanted = plain(d)
    fmt = struct.pack('<HHIIHHHHIHHH', 0x55, kind[1], kind[0], 8000, 1, 0, 12, 1, 2, 400, 1, 0)
    junk = random.Random(1).randbytes(3000)
    for data in (d, ID3 + ID3 + d + LYRICS + APE + ID3V1, bytes(1000) + d + bytes(5000), d + junk,
                 riff((b'fmt ', fmt), (b'data', d)), riff((b'fmt ', fmt), (b'data', d, 0))):
        assert is_same(read(data), wanted)
    assert 'damaged' in read(d[:len(d)*2//3])
    for data in (d*3, (ID3 + d + ID3V1)*3): assert is_same(read(data), np.tile(wanted, 3))
    read_tags(tmp_path/'sound')
    assert capfd.readouterr() == ('', '')

@pytest.mark.parametrize('mode', ['CONSTANT', 'VARIABLE', 'AVERAGE'])
def test_an_mp3_without_its_note_or_with_a_wrong_one(read, capfd, mode):
    d = mp3(mode=mode)
    at = mp3_frames(d)
    bare, n = d[at[1]:], 1152*(len(at) - 1)
    for data in (bare, ID3 + bare + APE, bare + ID3V1, bare + bytes(3000)): assert read(data).shape == (1, n)
    from_within_a_frame, spliced = bare[at[3] - at[1] + 5:], bare[:-7] + bare
    assert read(from_within_a_frame).shape == (1, n - 3*1152)
    assert abs(read(spliced).shape[1] - 2*n) <= 2*1152
    assert 'damaged' in read(bare[:at[20]] + bytes(5000) + bare[at[30]:])
    i = max(d.find(b'Xing'), d.find(b'Info')) + 8
    for count in (0, 1, len(at)//2, len(at)):
        assert abs(read(d[:i] + count.to_bytes(4, 'big') + d[i + 4:]).shape[1] - 88_200) <= 1152, count
    assert capfd.readouterr() == ('', '')

def test_sounds_of_different_kinds_in_a_row_are_refused(read):
    assert 'changes on the way' in read(mp3(44_100) + mp3(48_000))
    assert 'changes on the way' in read(encode('WAV', 'PCM_16') + encode('WAV', 'PCM_16', 2))

@pytest.mark.parametrize('format,subtype', [('FLAC', 'PCM_16'), ('FLAC', 'PCM_24'), ('OGG', 'VORBIS'), ('OGG', 'OPUS')])
@pytest.mark.parametrize('channels', [1, 2])
def test_every_stream_of_a_file_is_read(read, format, subtype, channels):
    d = encode(format, subtype, channels)
    wanted = plain(d)
    def right(got, wanted):
        return is_same(got, wanted) if subtype != 'OPUS' else got.shape == wanted.shape     # Opus dithers
    junk = random.Random(1).randbytes(3000)
    for tail in (b'', ID3V1, APE, APE + ID3V1, bytes(5000), junk): assert right(read(d + tail), wanted)
    assert right(read(d*3), np.tile(wanted, 3))
    middle = len(d)//2
    first, zeros = d[:middle], bytes(3000)
    for bad in (first, first + zeros + d[middle + 3000:], first + d[middle + 5000:]): assert 'damaged' in read(bad)

def test_the_number_of_samples_in_a_flac_is_compared_and_not_believed(read):
    d = encode('FLAC', 'PCM_16')
    def stating(n): return d[:21] + bytes([d[21] & 0xf0]) + n.to_bytes(4, 'big') + d[26:]
    for n in (0, 1, 1000, 32_000): assert is_same(read(stating(n)), plain(d))
    assert 'damaged' in read(stating(90_000))

# --- containers that are not what they seem

def test_a_voc_in_several_blocks_has_no_clicks(read):
    x = (NOISE[:, 0]*32_767).astype('<i2')
    def block(kind, data): return bytes([kind]) + len(data).to_bytes(3, 'little') + data
    form = struct.pack('<IBBHI', RATE, 16, 1, 4, 0)
    head = b'Creative Voice File\x1a' + struct.pack('<HHH', 26, 0x114, 0x111f)
    silence = block(3, struct.pack('<HB', 99, 0))
    sound = block(9, form + x[:20_000].tobytes()) + block(2, x[20_000:30_000].tobytes())
    sound += silence + block(9, form + x[30_000:].tobytes())
    wanted = np.r_[x[:30_000], np.zeros(100, 'i2'), x[30_000:]].astype('float32')[None]/32_768
    assert is_same(read(head + sound + b'\0'), wanted)
    assert is_same(read(head + block(9, form + x.tobytes())), x.astype('float32')[None]/32_768)
    other = struct.pack('<IBBHI', 22_050, 16, 1, 4, 0)
    assert 'several formats' in read(head + sound + block(9, other + x[:99].tobytes()) + b'\0')

def test_what_is_not_known_is_told_apart_from_what_is_damaged(read):
    for code in (0x1234, 0x151):
        fmt = struct.pack('<HHIIHH', code, 1, RATE, 8000, 100, 0)
        assert 'damaged' not in read(riff((b'fmt ', fmt), (b'data', PCM))), code
    for text in (b'Dear Anna, here is the sound', random.Random(2).randbytes(5000)): assert 'not a sound' in read(text)

# --- what phones and players make

av = pytest.importorskip('av', reason='the extra [formats] is not installed')

CODECS = [tuple(kind.split()) for kind in (
    'm4a aac', 'm4a alac', 'mp4 aac', 'mov pcm_s16le', 'wma wmav2', 'wv wavpack', 'tta tta', 'webm libopus', 'mka flac',
    'oga flac', 'aac aac')]

def coded(path, codec, channels=2, rate=44_100, x=None):
    "A file that FFmpeg writes"
    x = (.5*NOISE[:, :channels].T if x is None else x)*2**15
    layout = {1: 'mono', 2: 'stereo'}[channels]
    with av.open(str(path), 'w') as out:
        track = out.add_stream(codec, rate=rate, layout=layout)
        track.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x.astype('int16').T.reshape(1, -1)), 's16', layout)
        frame.rate, frame.pts = rate, 0
        convert = av.AudioResampler(track.codec_context.format, layout, rate).resample
        for part in [*convert(frame), None]: out.mux(track.encode(part))
    return path

def ffmpeg(path): # -> (c,t)
    "What FFmpeg gives"
    with av.open(str(path)) as f:
        track = f.streams.audio[0]
        frames = [frame for packet in f.demux(track) for frame in packet.decode()]
    to_float = av.AudioResampler('fltp', track.layout, frames[0].sample_rate)
    return np.concatenate([x.to_ndarray() for frame in [*frames, None] for x in to_float.resample(frame)], 1)

@pytest.mark.parametrize('suffix,codec', CODECS)
def test_formats_of_phones_are_read_as_ffmpeg_decodes_them(tmp_path, capfd, suffix, codec):
    path = coded(tmp_path/f'memo.{suffix}', codec, rate=48_000 if codec == 'libopus' else 44_100)
    x, rate = read_audio(path)
    wanted = ffmpeg(path)
    assert x.shape[1] <= wanted.shape[1] and np.abs(x.numpy() - wanted[:, :x.shape[1]]).max() <= 2e-7
    if suffix not in ('wma', 'webm', 'aac'): assert x.shape == (2, 48_000)     # they tell how long they are
    assert abs(x.shape[1] - 48_000) <= 3000
    data = path.read_bytes()
    for share in (.4, .9):
        (tmp_path/'cut').write_bytes(data[:int(len(data)*share)])
        with pytest.raises(AudioError): print(codec, share, read_audio(tmp_path/'cut')[0].shape)
    assert capfd.readouterr().err == ''

def test_an_encoders_delay_is_cut_where_a_note_tells_it(tmp_path):
    x = np.zeros((1, 48_000), 'float32')
    x[0, 10_000:10_100] = .5
    y = read_audio(coded(tmp_path/'click.m4a', 'aac', 1, x=x))[0][0].numpy()
    assert len(y) == 48_000 and abs(int(np.abs(y).argmax()) - 10_050) < 60

def test_a_film_with_several_tracks_or_none(tmp_path):
    for n, says in ((2, '2 sound tracks'), (0, 'no sound')):
        with av.open(str(tmp_path/f'{n}.mkv'), 'w', options={'default_mode': 'passthrough'}) as out:
            film = out.add_stream('mjpeg', rate=10, width=16, height=16, pix_fmt='yuvj420p')
            tracks = [out.add_stream('pcm_s16le', rate=8000, layout='mono') for _ in range(n)]
            out.mux(film.encode(av.VideoFrame(16, 16, 'yuvj420p')))
            out.mux(film.encode())
            for track in tracks:
                frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), 'int16'), 's16', 'mono')
                frame.rate = 8000
                out.mux(track.encode(frame))
                out.mux(track.encode())
        with pytest.raises(AudioError, match=says): read_audio(tmp_path/f'{n}.mkv')

def test_a_playlist_opens_no_other_file(read):
    concat = b'ffconcat version 1.0\nfile /etc/passwd\n'
    for text in (b'#EXTM3U\n/etc/passwd\n', concat, b'<?xml version="1.0"?><MPD/>'):
        assert 'not a sound' in read(text)

def test_without_ffmpeg_the_refusal_names_the_extra(tmp_path, monkeypatch):
    path = coded(tmp_path/'memo.m4a', 'aac')
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(AudioError, match=r'\[formats\]'): read_audio(path)

def test_a_corpus_of_what_people_have(tmp_path):
    for i, (suffix, codec) in enumerate(CODECS):
        coded(tmp_path/f'{codec}.{suffix}', codec, rate=48_000, x=.5*np.roll(NOISE.T, 999*i, 1))
    corpus = Corpus(tmp_path, cache=False)
    assert len(corpus) == len(CODECS), corpus.report()

# --- a given sound that cancels; long sounds

def test_a_given_sound_is_refused_for_the_reason_of_a_corpus(tmp_path):
    sf.write(tmp_path/'inverted.wav', NOISE[:, :1]*[[1, -1]], RATE)
    with pytest.raises(UserError, match='cancel'): read_source(tmp_path/'inverted.wav')

def test_a_long_sound_comes_in_blocks(tmp_path):
    sf.write(tmp_path/'long.wav', np.tile(NOISE, (20, 1)), RATE)
    blocks = [len(x) for x, rate in read_blocks(tmp_path/'long.wav')]
    assert sum(blocks) == 20*RATE and max(blocks) <= 2**16

def test_a_long_sound_takes_no_more_memory_than_a_short_one(tmp_path):
    head = riff((b'fmt ', struct.pack('<HHIIHH', 1, 2, 96_000, 384_000, 4, 16)))
    peak = '''
import resource, sys
from distill.audio.cache import decode
facts = decode(sys.argv[1], lambda y: None)
print(facts.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)'''
    used = []
    for seconds in (5, 50):
        with open(tmp_path/'long.wav', 'wb') as f:
            size = seconds*96_000*4
            f.write(head + b'data' + struct.pack('<I', size) + b'\1\2'*200)
            f.truncate(44 + size)     # the rest is a hole, which takes no room on the disk
        env = os.environ | {'OMP_NUM_THREADS': '1'}
        said = subprocess.check_output([sys.executable, '-c', peak, tmp_path/'long.wav'], text=True, env=env)
        frames, megabytes = map(int, said.split())
        assert frames == seconds*96_000
        used.append(megabytes)
    assert used[1] < used[0] + 40, used

@pytest.mark.parametrize('mode', ['CONSTANT', 'VARIABLE'])
@pytest.mark.parametrize('rate', [8000, 12_000, 22_050, 44_100])
def test_an_mp3_that_begins_inside_a_frame_is_read_without_a_word(rate, mode, read, capfd):
    "Its first frames have their sound in frames that are not there: silence, and nothing on the error stream"
    data = mp3(rate, mode=mode)
    whole = read(data.replace(b'Xing', bytes(4)).replace(b'Info', bytes(4)))    # without the encoder's note
    for cut in (97, 300, 777):
        x = read(data[cut:])
        assert capfd.readouterr() == ('', '')
        np.testing.assert_allclose(x[:, -rate:], whole[:, -rate:], atol=1e-4)  # by then all is there
