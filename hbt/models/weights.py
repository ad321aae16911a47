"""Tensors of a Hugging Face directory, streamed, from whichever files hold its weights.

Hides the formats: safetensors, Flax's msgpack and torch's pickles, whole or in shards. All are
read through a map of the file, which `copy` lets go of as it reads, so that no more than the
numbers that are kept takes memory. Called by `hf`.
"""

import json
import math
import mmap
import os
import pathlib
import re
from collections import abc

import ml_dtypes
import msgpack
import numpy as np
import safetensors

from hbt.models import torch_pickle
from hbt.utils import files

INDEX = '.index.json'
SHARD = re.compile(r'\w[\w.-]*')  # a name, and neither a path nor a pattern
BLOCK = 2**24  # numbers copied at a time
DTYPES = {  # of safetensors; those that are no floating-point numbers are refused by who wants them
    'F64': np.float64,
    'F32': np.float32,
    'F16': np.float16,
    'BF16': ml_dtypes.bfloat16,
    'I64': np.int64,
    'I32': np.int32,
    'I16': np.int16,
    'I8': np.int8,
    'U8': np.uint8,
    'BOOL': np.bool_,
}
EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # first byte -> bytes of the size that follows
BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
CHUNKED = '__msgpack_chunked_array__'  # an array of 1 GiB or more, in pieces


def find_weights(folder: str | pathlib.Path) -> pathlib.Path | None:
    """The file of weights, or the index of their shards, that `read` prefers in a directory."""
    paths = (pathlib.Path(folder) / name for name in FILES)
    return next((path for path in paths if path.is_file()), None)


def read_tensors(folder: str | pathlib.Path) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields (dotted name, array) of each tensor in a directory, one at a time.

    Arrays may be views of the file, not to be written to. ValueError names the file and the place
    of whatever is missing, damaged or not a tensor.
    """
    file = find_weights(folder)
    if file is None:
        expected = ' or '.join(READERS)
        raise ValueError(
            f'{folder}: expected a directory with {expected}, got {files.describe_path(folder)}'
        )
    reader = READERS[file.name.removesuffix(INDEX)]
    if not file.name.endswith(INDEX):
        yield from reader(file)
        return
    parts = {file.with_name(shard): names for shard, names in read_shard_index(file).items()}
    for path, names in parts.items():
        if not path.is_file():
            raise ValueError(
                f'{file}: weight_map: {names[0]}: expected the file {path.name} beside it,'
                f' got {files.describe_path(folder)}'
            )
    for path, names in parts.items():
        lacking = dict.fromkeys(names)
        for name, array in reader(path):
            lacking.pop(name, None)
            yield name, array
        if lacking:
            expected = f'{files.shorten_list(list(lacking))}, as {file.name} tells'
            raise ValueError(f'{path}: expected {expected}, got no such tensor')


def read_shard_index(index: pathlib.Path) -> dict[str, list[str]]:
    """File -> the dotted names of its tensors, as an index tells."""
    try:
        table = dict(json.loads(index.read_text('utf-8'))['weight_map'])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise files.format_error(index, 'a JSON object with weight_map', error) from error
    result = {}
    for name, shard in table.items():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            expected = 'the plain name of a file beside it'
            raise ValueError(f'{index}: weight_map: {name}: expected {expected}, got {shard!r}')
        result.setdefault(shard, []).append(name.replace('/', '.'))  # slashes are Flax's
    if not result:
        raise ValueError(f'{index}: weight_map: expected the names of tensors, got none')
    return result


def copy_tensor(view: np.ndarray, array: np.ndarray) -> None:
    """Copies an array that `read` gave, by blocks of rows, letting go of what was read."""
    mapped = array
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    rows = max(1, BLOCK * len(array) // max(array.size, 1)) if array.ndim else 0
    for start in range(0, len(array), rows) if rows else ():
        view[start : start + rows] = array[start : start + rows]
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)
    if not rows:
        view[...] = array


def map_file(file: pathlib.Path) -> mmap.mmap:
    with open(file, 'rb') as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def read_safetensors(file: pathlib.Path) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields (name, view of the file)."""
    try:
        with safetensors.safe_open(file, 'np'):  # checks the header, and its size against the file
            mapped = map_file(file)
        start = 8 + int.from_bytes(mapped[:8], 'little')
        header = json.loads(mapped[8:start])
        header.pop('__metadata__', None)
        for name, entry in header.items():
            if entry['dtype'] not in DTYPES:
                known = ', '.join(DTYPES)
                raise ValueError(f'{name}: expected numbers of {known}, got {entry["dtype"]}')
            dtype, offset = np.dtype(DTYPES[entry['dtype']]), start + entry['data_offsets'][0]
            yield name, np.ndarray(entry['shape'], dtype, mapped, offset)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise files.format_error(file, 'a safetensors file', error) from error


def read_msgpack(file: pathlib.Path) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields (dotted name, view of the file) of what flax.serialization wrote."""
    try:
        mapped = map_file(file)
        yield from branch(mapped, '')
        if mapped.tell() != len(mapped):
            raise ValueError(f'expected nothing after byte {mapped.tell()}')
    except Exception as error:  # msgpack promises nothing more special
        raise files.format_error(file, 'a tree of arrays in msgpack', error) from error


def branch(mapped: mmap.mmap, prefix: str) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields the leaves of the map at which the file stands, to be left behind it."""
    for _ in range(step(mapped, 'read_map_header')):
        key = step(mapped, 'unpack')
        if key == CHUNKED:
            yield prefix[:-1], pieces(mapped)
            return
        if is_map(mapped):
            yield from branch(mapped, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', leaf(mapped)


def step(mapped: mmap.mmap, method: str):
    """What a method of msgpack's unpacker makes of the next bytes: nothing large is among them."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(mapped[mapped.tell() : mapped.tell() + 1024])
    value = getattr(unpacker, method)()
    mapped.seek(unpacker.tell(), os.SEEK_CUR)
    return value


def is_map(mapped: mmap.mmap) -> bool:
    byte = mapped[mapped.tell()]
    return byte >> 4 == 8 or byte in (0xDE, 0xDF)


def pieces(mapped: mmap.mmap) -> np.ndarray:
    """The array that Flax wrote in pieces, after the key that says so."""
    step(mapped, 'unpack')
    shape, chunks = (), []
    for _ in range(2):
        key = step(mapped, 'unpack')
        if key == 'shape':
            shape = tuple(step(mapped, 'unpack').values())
        else:
            chunks = [array.reshape(-1) for _, array in branch(mapped, '')]
    return np.concatenate(chunks).reshape(shape)


def leaf(mapped: mmap.mmap) -> np.ndarray:
    """The array at which the file stands: an extension that holds shape, type and bytes."""
    size = number(mapped, EXTENSIONS)
    kind = mapped.read_byte()
    end = mapped.tell() + size
    if kind != 1 or step(mapped, 'read_array_header') != 3:
        raise ValueError(f'expected an array at byte {mapped.tell()}')
    shape, name = step(mapped, 'unpack'), step(mapped, 'unpack')
    dtype = np.dtype(ml_dtypes.bfloat16 if name == 'bfloat16' else name)
    size = number(mapped, BINARIES)
    if mapped.tell() + size != end or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f'expected {shape} numbers of {name} before byte {end}, got {size} bytes')
    array = np.ndarray(shape, dtype, mapped, mapped.tell())
    mapped.seek(end)
    return array


def number(mapped: mmap.mmap, sizes: dict[int, int]) -> int:
    """The size that stands after one of the bytes `sizes`."""
    byte = mapped.read_byte()
    if byte not in sizes:
        raise ValueError(f'expected an array, got the byte {byte} at {mapped.tell() - 1}')
    return int.from_bytes(mapped.read(sizes[byte]), 'big')


def read_torch(file: pathlib.Path) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields (name, view of the file) of the tensors that torch.save wrote."""
    try:
        yield from torch_pickle.read(file, map_file(file))
    except Exception as error:  # see there
        raise files.format_error(file, 'tensors saved by torch', error) from error


READERS = {  # file -> what yields (name, array) of it, in order of preference
    'model.safetensors': read_safetensors,
    'flax_model.msgpack': read_msgpack,
    'pytorch_model.bin': read_torch,
}
FILES = tuple(name + end for name in READERS for end in ('', INDEX))  # in order of preference
