"""Every kind of file gives the same tensors; a hostile one gives a ValueError and runs nothing."""

import dataclasses
import json
import os
import pickle
import zipfile

import flax.serialization
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from hbt import config
from hbt.models import huggingface, torch_pickle, weights
from tests import FIXTURES

XLMR = FIXTURES / 'xlmr'
BIN = 'pytorch_model.bin'
NUMBERS = np.arange(6, dtype=np.float32)


def assert_same(got, expected):
    assert sorted(got) == sorted(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, strict=True)


def literal(value) -> bytes:
    """The opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def storage(kind='torch\nFloatStorage', key='0', count=6, word='storage', view=b'') -> bytes:
    named = literal(word) + b'c' + kind.encode() + b'\n' + literal(key) + literal('cpu')
    return b'(' + named + literal(count) + view + b'tQ'


def tensor(offset=0, size=(2, 3), stride=(3, 1), storage_bytes=None, **changes) -> bytes:
    """The opcodes that push a tensor, as torch writes them, whatever it claims of itself."""
    storage_bytes = storage(**changes) if storage_bytes is None else storage_bytes
    numbers = literal(offset) + literal(size) + literal(stride) + literal(False)
    hooks = b'ccollections\nOrderedDict\n)R'
    return b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage_bytes + numbers + hooks + b'tR'


def state(**values: bytes) -> bytes:
    items = b''.join(literal(name) + value + b's' for name, value in values.items())
    return b'\x80\x02}' + items + b'.'


def write_zip(folder, pickled: bytes, entries=None, compression=zipfile.ZIP_STORED):
    entries = {'data/0': NUMBERS.tobytes()} if entries is None else entries
    with zipfile.ZipFile(folder / BIN, 'w', compression) as file:
        for name, content in {'data.pkl': pickled, **entries}.items():
            file.writestr(f'archive/{name}', content)
    return folder


def write_legacy(folder, pickled: bytes, keys=('0',), counts=(6,)):
    head = b''.join(
        pickle.dumps(part, 2) for part in (*torch_pickle.MAGIC, {'little_endian': True})
    )
    lengths = b''.join(count.to_bytes(8, 'little') for count in counts)
    tail = pickle.dumps(list(keys), 2) + lengths + NUMBERS.tobytes()
    (folder / BIN).write_bytes(head + pickled + tail)
    return folder


WRITERS = [write_zip, write_legacy]


def refused(folder) -> str:
    with pytest.raises(ValueError) as caught:
        for _ in weights.read_tensors(folder):
            pass
    message = str(caught.value)
    assert '\n' not in message and len(message) < 1000
    return message


@pytest.mark.parametrize('form', ['bin', 'legacy'])
def test_recorded_pickles_of_torch_equal_the_recorded_safetensors(form):
    base = huggingface.read_architecture(XLMR, config.Encoder())
    expected, got = huggingface.load_params(XLMR, base), huggingface.load_params(XLMR / form, base)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    expected = safetensors.numpy.load_file(XLMR / 'model.safetensors')
    tensors = dict(weights.read_tensors(XLMR / form))
    assert_same({name: tensors[name] for name in expected}, expected)
    np.testing.assert_array_equal(tensors['lm_head.decoder.bias'], tensors['lm_head.bias'])


@pytest.mark.parametrize('form', ['bin', 'legacy'])
def test_tensors_of_pickles_are_views_of_the_file(form):
    for _, array in weights.read_tensors(XLMR / form):
        assert not array.flags.owndata and not array.flags.writeable


@pytest.mark.parametrize('is_zip', [True, False])
def test_whatever_torch_saves_is_read_bit_for_bit(tmp_path, is_zip):
    torch = pytest.importorskip('torch')
    base = torch.arange(1, 25).reshape(4, 6).float() / 7
    values = {
        'plain': base,
        'shared': base,
        'transposed': base.T,
        'strided': base[1:, ::2],
        'expanded': base[:1].expand(5, 6),
        'scalar': base[2, 3],
        'empty': torch.zeros(0, 3),
        'parameter': torch.nn.Parameter(base.clone()),
    }
    kinds = 'float16 float64 int64 int32 int16 int8 uint8 bool'.split()
    values |= {kind: (base * 3).to(getattr(torch, kind)) for kind in kinds}
    expected = {name: value.detach().numpy().copy() for name, value in values.items()}
    values['bfloat16'] = base.bfloat16()
    expected['bfloat16'] = expected['plain'].astype(ml_dtypes.bfloat16)
    torch.save(values, tmp_path / BIN, _use_new_zipfile_serialization=is_zip)
    assert_same(dict(weights.read_tensors(tmp_path)), expected)


@pytest.mark.parametrize('is_zip', [True, False])
@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_modules_are_read_by_every_protocol(tmp_path, is_zip, protocol):
    torch = pytest.importorskip('torch')
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    expected = {name: value.numpy() for name, value in module.state_dict().items()}
    how = dict(pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    for value in (module.state_dict(), dict(module.named_parameters())):
        torch.save(value, tmp_path / BIN, **how)
        assert_same(dict(weights.read_tensors(tmp_path)), {name: expected[name] for name in value})


@pytest.mark.parametrize('write', WRITERS)
def test_what_is_written_by_hand_is_read(tmp_path, write):
    """So that the hostile files below are wrong in the one way that they are meant to be."""
    write(tmp_path, state(x=tensor(), y=tensor(offset=1, size=(5,), stride=(1,))))
    expected = {'x': NUMBERS.reshape(2, 3), 'y': NUMBERS[1:]}
    assert_same(dict(weights.read_tensors(tmp_path)), expected)


def test_older_pickles_are_read(tmp_path):
    """Storages that are views, storages of a GPU, strings of Python 2 and three arguments less."""
    storage_bytes = storage('torch.cuda\nFloatStorage', view=literal(('1', 2, 4)))
    numbers = literal(1) + literal((3,)) + literal((1,))
    old = b'ctorch._utils\n_rebuild_tensor\n(' + storage_bytes + numbers + b'tR'
    write_legacy(tmp_path, b'\x80\x02}U\x01x' + old + b's.')
    assert_same(dict(weights.read_tensors(tmp_path)), {'x': NUMBERS[3:]})


def test_numbers_of_a_machine_of_the_other_byte_order_are_read(tmp_path):
    entries = {'byteorder': b'big', 'data/0': NUMBERS.byteswap().tobytes()}
    write_zip(tmp_path, state(x=tensor()), entries)
    assert_same(dict(weights.read_tensors(tmp_path)), {'x': NUMBERS.reshape(2, 3)})


@pytest.mark.parametrize('key', ['state_dict', 'model'])
def test_the_dict_of_tensors_of_a_trainer_is_unwrapped(tmp_path, key):
    inner = b'}' + literal('x') + tensor() + b's'
    write_zip(tmp_path, state(epoch=literal(3), **{key: inner}))
    assert_same(dict(weights.read_tensors(tmp_path)), {'x': NUMBERS.reshape(2, 3)})
    write_zip(tmp_path, state(model=inner, state_dict=inner))
    assert "'model': expected a tensor, got dict" in refused(tmp_path)


@pytest.mark.parametrize(
    'pickled, message',
    [
        (state(y=tensor(), x=literal(7)), "'x': expected a tensor, got int"),
        (state(x=storage()), "'x': expected a tensor, got Storage"),
        (
            state(y=tensor(), x=tensor(storage_bytes=literal(7))),
            "'x': expected a tensor, got Tensor",
        ),
        (b'\x80\x02}K\x01' + tensor() + b's.', '1: expected a tensor, got Tensor'),
        (b'\x80\x02' + tensor() + b'.', 'expected a dict of tensors, got Tensor'),
        (state(y=tensor(), model=b'}'), "'model': expected a tensor, got dict"),
        (state(x=tensor(word='module')), "asks for a 'module', which is no storage"),
        (state(x=tensor(kind='torch\nQInt8Storage')), r'asks for torch\.QInt8Storage, which is no'),
        (state(x=tensor(kind='torch\nload')), r'asks for torch\.load, which is no'),
    ],
)
@pytest.mark.parametrize('write', WRITERS)
def test_pickles_of_other_things_are_named(tmp_path, write, pickled, message):
    pytest.raises(ValueError, list, weights.read_tensors(write(tmp_path, pickled))).match(message)


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('write', WRITERS)
def test_no_pickle_runs_anything(tmp_path, write, protocol):
    marker = tmp_path / 'marker'
    code = f'open({str(marker)!r}, "w")'
    calls = {
        'system': Evil(os.system, f'touch {marker}'),
        'exec': Evil(exec, code),
        'eval': Evil(eval, code),
        'getattr': Evil(getattr, dict, 'items'),
        'Unpickler': Evil(torch_pickle.Unpickler, b''),
    }
    for name, call in calls.items():
        for value in (call, {'x': call}, {call: 1}, [call]):
            message = refused(write(tmp_path, pickle.dumps(value, protocol)))
            assert f'{BIN}: expected tensors saved by torch, got' in message
            assert f'.{name}, which is no part of a tensor' in message
    assert not marker.exists()


@pytest.mark.parametrize('write', WRITERS)
@pytest.mark.parametrize(
    'opcodes',
    [
        b'(S"touch %s"\nios\nsystem\n',  # INST
        b'(cos\nsystem\nX\x01\0\0\0ao',  # OBJ
        b'cposix\nsystem\n)\x81',  # NEWOBJ
        b'\x8c\x02os\x8c\x06system\x93',  # STACK_GLOBAL
        b'ccollections\nOrderedDict.__init__.__globals__\n',
        b'ctorch._utils\n_rebuild_tensor_v2.__globals__\n',
        b'\x82\x01',  # EXT1
        b'\x97',  # NEXT_BUFFER
        b'N)R',  # calls None
    ],
)
def test_no_opcode_reaches_beyond_tensors(tmp_path, write, opcodes):
    marker = tmp_path / 'marker'
    opcodes = opcodes.replace(b'%s', str(marker).encode())
    refused(write(tmp_path, b'\x80\x04' + opcodes + b'.'))
    assert not marker.exists()


@pytest.mark.parametrize('write', WRITERS)
def test_what_a_pickle_does_to_what_it_is_given_does_not_last(tmp_path, write):
    function = b'ctorch._utils\n_rebuild_tensor_v2\n'
    change = function + b'(N}' + literal('__defaults__') + literal((1, 2)) + b'stb'
    refused(write(tmp_path, b'\x80\x02' + change + b'.'))
    shadow = b'ccollections\nOrderedDict\n)R}' + literal('keys') + function + b'sb'
    refused(write(tmp_path, b'\x80\x02' + shadow + literal('x') + literal(1) + b's.'))
    test_what_is_written_by_hand_is_read(tmp_path, write)


HUGE = 2**62
CLAIMS = [
    dict(size=(7,), stride=(1,)),
    dict(size=(2, 3), stride=(3, 2)),
    dict(size=(2, 3), stride=(3, 1), offset=1),
    dict(offset=6, size=(), stride=()),
    dict(offset=-1),
    dict(offset=HUGE),
    dict(offset=True),
    dict(size=(-2, 3)),
    dict(stride=(3, -1)),
    dict(stride=(3,)),
    dict(stride=(HUGE, HUGE)),
    dict(size=(2.0, 3)),
    dict(size=('2', '3')),
    dict(size=None),
    dict(size=7),
    dict(size=(HUGE, HUGE)),
    dict(size=(HUGE, HUGE), stride=(0, 0)),
    dict(size=(0, 10**30)),
    dict(size=(0, HUGE, HUGE), stride=(1, 1, 1)),
    dict(size=(1,) * 65, stride=(1,) * 65),
    dict(size=(10**12,), stride=(1,), count=10**12),
    dict(count=7),
    dict(count=HUGE),
    dict(count='6'),
    dict(key='1'),
    dict(key='../0'),
    dict(key=0),
    dict(kind='torch\nDoubleStorage'),
]


@pytest.mark.parametrize('number', range(len(CLAIMS)))
@pytest.mark.parametrize('write', WRITERS)
def test_tensors_beyond_their_storage_are_refused(tmp_path, write, number):
    message = refused(write(tmp_path, state(x=tensor(**CLAIMS[number]))))
    assert f'{BIN}: expected tensors saved by torch, got' in message


def test_a_tensor_repeated_beyond_memory_is_a_view_until_its_shape_is_checked(tmp_path):
    write_zip(tmp_path, state(x=tensor(size=(10**12,), stride=(0,))))
    ((_, array),) = weights.read_tensors(tmp_path)
    assert array.shape == (10**12,)


@pytest.mark.parametrize(
    'changes', [dict(counts=(5,)), dict(counts=(2**63,)), dict(keys=('0', '1')), dict(keys=())]
)
def test_storages_of_old_files_that_do_not_hold_what_they_claim_are_refused(tmp_path, changes):
    refused(write_legacy(tmp_path, state(x=tensor()), **changes))


@pytest.mark.parametrize(
    'opcodes',
    [
        b'r\xff\xff\xff\x7f',  # put under a number for which Python would take 32 GB
        b'p99999999999\n',
        b'\x8e' + b'\xff' * 7 + b'\x7f',  # bytes
        b'\x96' + b'\xff' * 6 + b'\0\0',  # a bytearray
        b'\x95' + b'\xff' * 7 + b'\x7f',  # a frame
        b'\x8b\xff\xff\xff\x7f',  # an integer
        b'X\xff\xff\xff\xff',  # a string
    ],
)
@pytest.mark.parametrize('write', WRITERS)
def test_pickles_that_ask_for_more_memory_than_they_have_bytes_are_refused(
    tmp_path, write, opcodes
):
    refused(write(tmp_path, b'\x80\x04N' + opcodes + b'.'))


@pytest.mark.parametrize('write', WRITERS)
@pytest.mark.parametrize(
    'wrap', [(b'', b'\x85'), (b'(', b't'), (b'(', b'itorch._utils\n_rebuild_tensor\n')]
)
def test_keys_nested_deeper_than_the_stack_are_refused(tmp_path, write, wrap):
    before, after = (part * 10**5 for part in wrap)
    message = refused(write(tmp_path, b'\x80\x02}' + before + b'N' + after + b'Ns.'))
    assert 'the pickle has too many' in message


def test_zips_that_torch_does_not_write_are_named(tmp_path):
    pickled = state(x=tensor())
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write_zip(tmp_path, pickled, {'data/0': b'\0' * 10**6}, compression)
        assert 'archive/data/0: expected an uncompressed entry' in refused(tmp_path)
    with zipfile.ZipFile(tmp_path / BIN, 'w') as file:
        file.writestr('data.pkl', pickled)
    assert 'expected one entry data.pkl, got data.pkl' in refused(tmp_path)
    write_zip(tmp_path, pickled, {'data/0': b''})
    with zipfile.ZipFile(tmp_path / BIN, 'a') as file:
        file.writestr('other/data.pkl', pickled)
    assert 'expected one entry data.pkl, got' in refused(tmp_path)
    write_zip(tmp_path, pickled, {})
    assert 'x: expected 6 numbers, got 0 bytes' in refused(tmp_path)


@pytest.mark.parametrize('content', [b'', b'PK\3\4', b'PK', b'version https://git-lfs', b'\x80'])
def test_files_of_another_kind_are_named(tmp_path, content):
    (tmp_path / BIN).write_bytes(content)
    expected = f'{BIN}: expected tensors saved by torch, got {len(content)} bytes that are none'
    assert expected in refused(tmp_path)


def test_old_files_of_another_version_are_named(tmp_path):
    for number, head in enumerate([(1, 1001), (torch_pickle.MAGIC[0], 1000)]):
        content = b''.join(pickle.dumps(part, 2) for part in head)
        (tmp_path / BIN).write_bytes(content)
        expected = f'expected a zip or the number {torch_pickle.MAGIC[number]}, got int'
        assert expected in refused(tmp_path)


@pytest.mark.parametrize('form', ['bin', 'legacy'])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, form):
    content = (XLMR / form / BIN).read_bytes()
    for end in [*range(0, 400, 7), *range(400, len(content), 331), len(content) - 1]:
        (tmp_path / BIN).write_bytes(content[:end])
        assert f'got {end} bytes that are none' in refused(tmp_path)


@pytest.mark.parametrize('form', ['bin', 'legacy'])
@pytest.mark.parametrize('bits', [1, 50])
def test_damaged_bytes_give_tensors_or_a_value_error_and_nothing_else(tmp_path, form, bits):
    content = np.fromfile(XLMR / form / BIN, np.uint8)
    rng = np.random.default_rng(bits)
    ends = [0, len(content) - 6000], [6000, len(content)]  # where the structure is
    for _ in range(200):
        damaged = content.copy()
        start, stop = (side[rng.integers(2)] for side in zip(*ends, strict=True))
        start, stop = (start, stop) if start < stop else (0, len(content))
        where = rng.integers(start, stop, bits)
        damaged[where] ^= 1 << rng.integers(8, size=bits).astype(np.uint8)
        damaged.tofile(tmp_path / BIN)
        try:
            for _, array in weights.read_tensors(tmp_path):
                assert array.size < 10**6 and array.copy().size == array.size
        except ValueError as error:
            assert BIN in str(error)


def part(arrays, kind, folder, name):
    """Writes one shard of a kind without torch."""
    if kind == 'model.safetensors':
        safetensors.numpy.save_file(arrays, folder / name)
    elif kind == 'flax_model.msgpack':
        tree = {}
        for path, array in arrays.items():
            *parents, leaf = path.split('.')
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = array
        (folder / name).write_bytes(flax.serialization.to_bytes(tree))
    else:
        entries = {f'data/{n}': array.tobytes() for n, array in enumerate(arrays.values())}
        pickled = {
            path: tensor(size=a.shape, stride=(a.shape[1], 1), key=str(n), count=a.size)
            for n, (path, a) in enumerate(arrays.items())
        }
        write_zip(folder, state(**pickled), entries)
        (folder / BIN).rename(folder / name)


ARRAYS = {f'a.{name}': NUMBERS.reshape(2, 3) + i for i, name in enumerate('bcde')}
KINDS = list(weights.READERS)


def write_shards(folder, kind, **changes):
    """Two tensors a shard; a change gives another shard for a tensor in the index, None: none."""
    names = list(ARRAYS)
    table = {}
    for n, shard in enumerate(('part-1', 'part-2')):
        shard_names = names[2 * n : 2 * n + 2]
        part({name: ARRAYS[name] for name in shard_names}, kind, folder, shard)
        separator = '/' if kind.startswith('flax') else '.'
        table |= {name.replace('.', separator): shard for name in shard_names}
    table = {name: shard for name, shard in {**table, **changes}.items() if shard is not None}
    index = {'metadata': {'total_size': 96}, 'weight_map': table}
    (folder / f'{kind}.index.json').write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize('kind', KINDS)
def test_shards_are_read_as_one_file(tmp_path, kind):
    got = list(weights.read_tensors(write_shards(tmp_path, kind)))
    assert [name for name, _ in got] == list(ARRAYS)
    assert_same(dict(got), ARRAYS)


@pytest.mark.parametrize('kind', KINDS)
def test_a_missing_shard_or_tensor_is_named(tmp_path, kind):
    write_shards(tmp_path, kind, **{'a.f': 'part-2'})
    message = rf'part-2: expected a\.f, as in {kind}\.index\.json, got no such tensor'
    pytest.raises(ValueError, list, weights.read_tensors(tmp_path)).match(message)
    write_shards(tmp_path, kind, **{'a.f': 'part-3'})
    message = r'json: weight_map: a\.f: expected the file part-3 beside it, got .*part-1, part-2'
    pytest.raises(ValueError, next, weights.read_tensors(tmp_path)).match(message)


@pytest.mark.parametrize('shard', ['../x', 'a/b', '/etc/passwd', '..', '.x', '', '*', 'a\\b', 7])
def test_a_shard_elsewhere_is_refused(tmp_path, shard):
    write_shards(tmp_path, 'model.safetensors', **{'a.f': shard})
    message = r'index\.json: weight_map: a\.f: expected the plain name of a file beside it, got'
    pytest.raises(ValueError, next, weights.read_tensors(tmp_path)).match(message)


@pytest.mark.parametrize(
    'content', ['', '{"weight_map":', '[]', '7', '{}', '{"weight_map": 7}', '[' * 10**5]
)
def test_an_index_of_another_kind_is_named(tmp_path, content):
    (tmp_path / f'{BIN}.index.json').write_text(content)
    assert 'bin.index.json: expected a JSON object with weight_map, got' in refused(tmp_path)


def test_an_index_of_nothing_is_named(tmp_path):
    (tmp_path / f'{BIN}.index.json').write_text('{"weight_map": {}}')
    assert 'weight_map: expected the names of tensors, got none' in refused(tmp_path)


def test_the_kinds_are_preferred_in_their_order(tmp_path):
    assert weights.find_weights(tmp_path) is None
    for file in reversed(weights.FILES):
        (tmp_path / file).touch()
        assert weights.find_weights(tmp_path) == tmp_path / file
    names = [name for kind in KINDS for name in (kind, f'{kind}.index.json')]
    assert list(weights.FILES) == names


def test_shards_of_transformers_are_read_as_one_file(tmp_path):
    pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    model = transformers.AutoModelForMaskedLM.from_pretrained(XLMR)
    model.save_pretrained(tmp_path, max_shard_size='8KB')
    assert len(list(tmp_path.glob('model-*.safetensors'))) > 2
    expected = safetensors.numpy.load_file(XLMR / 'model.safetensors')
    assert_same(dict(weights.read_tensors(tmp_path)), expected)
    c = huggingface.read_architecture(tmp_path, config.Encoder())
    jax.tree.map(
        np.testing.assert_array_equal,
        huggingface.load_params(tmp_path, c),
        huggingface.load_params(XLMR, c),
    )
    with pytest.raises(
        ValueError, match=r'safetensors\.index\.json: expected the weights of .*of 1 '
    ):
        huggingface.load_params(tmp_path, dataclasses.replace(c, num_layers=1))
