"""Tensors of safetensors, Flax's msgpack and torch's pickles, as views of memory-mapped files."""

import json
import math
import mmap
import os
import pathlib
import re
from collections import abc

import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import safetensors
import safetensors.numpy

from hbt.models import torch_pickle
from hbt.utils import files

INDEX = '.index.json'
SHARD = re.compile(r'\w[\w.-]*')  # a name, and neither a path nor a pattern
BLOCK = 2**24  # numbers copied at a time
DTYPES = dict(F64=np.float64, F32=np.float32, F16=np.float16, BF16=ml_dtypes.bfloat16)
DTYPES |= dict(I64=np.int64, I32=np.int32, I16=np.int16, I8=np.int8, U8=np.uint8, BOOL=np.bool_)
BINARY, EXTENSION = 0xC4, 0xC7  # of msgpack: before a size of 1 byte; the next two: of 2 and of 4
CHUNKED = '__msgpack_chunked_array__'  # an array of 1 GiB or more, in chunks

Tensors = abc.Iterator[tuple[str, np.ndarray]]  # dotted name, array


def find_weights(folder: str | pathlib.Path) -> pathlib.Path | None:
    """The file of weights, or the index of their shards, that is read in a directory."""
    paths = (pathlib.Path(folder) / name for name in FILES)
    return next((path for path in paths if path.is_file()), None)


def read_tensors(folder: str | pathlib.Path) -> Tensors:
    """Yields (dotted name, array), maybe a view of the file; ValueError if missing or damaged."""
    file = find_weights(folder)
    if file is None:
        expected, got = ' or '.join(READERS), files.describe_path(folder)
        raise ValueError(f'{folder}: expected a directory with {expected}, got {got}')
    kind, shards = file.name.removesuffix(INDEX), {file: ()}
    if file.name != kind:
        shards = {file.with_name(shard): names for shard, names in read_shard_index(file).items()}
    for path, names in shards.items():
        if not path.is_file():
            expected, got = f'the file {path.name} beside it', files.describe_path(folder)
            raise ValueError(f'{file}: weight_map: {names[0]}: expected {expected}, got {got}')
    for path, names in shards.items():
        missing = dict.fromkeys(names)
        for name, array in _read_file(path, kind):
            missing.pop(name, None)
            yield name, array
        if missing:
            expected = f'{files.shorten_list(list(missing))}, as in {file.name}'
            raise ValueError(f'{path}: expected {expected}, got no such tensor')


def read_shard_index(index: pathlib.Path) -> dict[str, list[str]]:
    """File -> the dotted names of its tensors, from an index of shards."""
    try:
        table = dict(json.loads(index.read_text('utf-8-sig'))['weight_map'])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise files.format_error(index, 'a JSON object with weight_map', error) from error
    shards = {}
    for name, shard in table.items():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            expected = 'the plain name of a file beside it'
            raise ValueError(f'{index}: weight_map: {name}: expected {expected}, got {shard!r}')
        shards.setdefault(shard, []).append(name.replace('/', '.'))  # slashes are Flax's
    if not shards:
        raise ValueError(f'{index}: weight_map: expected the names of tensors, got none')
    return shards


def write_tensors(file: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a file of safetensors and its folder; OSError if that fails."""
    file.parent.mkdir(exist_ok=True)
    file.touch()
    mode = file.stat().st_mode  # as the umask has it; safetensors would let only the owner read
    try:
        safetensors.numpy.save_file(arrays, file, {'format': 'pt'})
    except safetensors.SafetensorError as error:
        raise OSError(f'{file}: {error}') from error
    file.chmod(mode)


def copy_tensor(view: np.ndarray, array: np.ndarray, where: str) -> None:
    """Copies a tensor by blocks and releases its file's memory.

    ValueError if it does not fit, or has numbers that are not finite, also after the conversion.
    """
    if array.shape != view.shape:
        raise ValueError(f'{where}: expected shape {view.shape}, got {array.shape}')
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f'{where}: expected floating-point numbers, got {array.dtype}')
    mapped = array
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    view, array = np.atleast_1d(view, array)
    rows = max(1, BLOCK * len(array) // max(array.size, 1))
    for start in range(0, len(array), rows):
        block = view[start : start + rows]
        with np.errstate(over='ignore', invalid='ignore'):
            block[...] = array[start : start + rows]
        if not np.isfinite(block).all():
            first = block[~np.isfinite(block)][0]
            raise ValueError(f'{where}: expected finite numbers, got {first}')
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)


def _read_file(file: pathlib.Path, kind: str) -> Tensors:
    reader, content = READERS[kind]
    try:
        with open(file, 'rb') as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        yield from reader(file, mapped)
    except Exception as error:  # msgpack, pickle and zipfile have no base class of their errors
        raise files.format_error(file, content, error) from error


def _read_safetensors(file: pathlib.Path, mapped: mmap.mmap) -> Tensors:
    with safetensors.safe_open(file, 'np'):  # checks the header, and its size against the file
        start = 8 + int.from_bytes(mapped[:8], 'little')
    header = json.loads(mapped[8:start])
    header.pop('__metadata__', None)
    for name, entry in header.items():
        if entry['dtype'] not in DTYPES:
            expected = f'numbers of {", ".join(DTYPES)}'
            raise ValueError(f'{name}: expected {expected}, got {entry["dtype"]}')
        dtype, offset = np.dtype(DTYPES[entry['dtype']]), start + entry['data_offsets'][0]
        yield name, np.ndarray(entry['shape'], dtype, mapped, offset)


def _read_msgpack(_: pathlib.Path, mapped: mmap.mmap) -> Tensors:
    """Reads what flax.serialization wrote."""
    yield from _read_map(mapped, '')
    if mapped.tell() != len(mapped):
        raise ValueError(f'expected nothing after byte {mapped.tell()}')


def _read_map(mapped: mmap.mmap, prefix: str) -> Tensors:
    """Yields the leaves of the map at the position of the file, and moves behind it."""
    for _ in range(_unpack(mapped, 'read_map_header')):
        key = _unpack(mapped)
        if key == CHUNKED:
            yield prefix[:-1], _read_chunks(mapped)
            return
        byte = mapped[mapped.tell()]
        if byte >> 4 == 8 or byte in (0xDE, 0xDF):  # a map
            yield from _read_map(mapped, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', _read_array(mapped)


def _unpack(mapped: mmap.mmap, method: str = 'unpack'):
    """The result of a method of msgpack's unpacker on the next bytes, which are few."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(mapped[mapped.tell() : mapped.tell() + 1024])
    value = getattr(unpacker, method)()
    mapped.seek(unpacker.tell(), os.SEEK_CUR)
    return value


def _read_chunks(mapped: mmap.mmap) -> np.ndarray:
    """The array that Flax wrote in chunks, from behind the key CHUNKED."""
    _unpack(mapped)
    shape, chunks = (), []
    for _ in range(2):
        if _unpack(mapped) == 'shape':
            shape = tuple(_unpack(mapped).values())
        else:
            chunks = [array.reshape(-1) for _, array in _read_map(mapped, '')]
    return np.concatenate(chunks).reshape(shape)


def _read_array(mapped: mmap.mmap) -> np.ndarray:
    """The next array: an extension with shape, type and bytes."""
    size = _read_size(mapped, EXTENSION)
    kind = mapped.read_byte()
    end = mapped.tell() + size
    if kind != 1 or _unpack(mapped, 'read_array_header') != 3:
        raise ValueError(f'expected an array at byte {mapped.tell()}')
    shape, name = _unpack(mapped), _unpack(mapped)
    dtype = np.dtype(ml_dtypes.bfloat16 if name == 'bfloat16' else name)
    size = _read_size(mapped, BINARY)
    if mapped.tell() + size != end or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f'expected {shape} numbers of {name} before byte {end}, got {size} bytes')
    array = np.ndarray(shape, dtype, mapped, mapped.tell())
    mapped.seek(end)
    return array


def _read_size(mapped: mmap.mmap, first: int) -> int:
    """The size behind the byte `first` (1 byte) or one of the next two (2 and 4 bytes)."""
    byte = mapped.read_byte()
    if not first <= byte < first + 3:
        raise ValueError(f'expected an array, got the byte {byte} at {mapped.tell() - 1}')
    return int.from_bytes(mapped.read(1 << byte - first), 'big')


READERS = {  # file -> its reader and what it has, in order of preference
    'model.safetensors': (_read_safetensors, 'a safetensors file'),
    'flax_model.msgpack': (_read_msgpack, 'a tree of arrays in msgpack'),
    'pytorch_model.bin': (torch_pickle.read_tensors, 'tensors saved by torch'),
}
FILES = tuple(name + end for name in READERS for end in ('', INDEX))
