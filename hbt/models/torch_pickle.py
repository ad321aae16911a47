"""Tensors of files that torch.save wrote, read without torch and without running their pickles."""

import collections
import mmap
import pathlib
import pickle
import pickletools
import re
import struct
import typing
import zipfile
from collections import abc

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C, 1001  # what torch before 1.6 begins a file with
WRAPPERS = ('state_dict', 'model')  # keys under which trainers save the tensors
NESTING = {'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'REDUCE', 'INST', 'OBJ', 'NEWOBJ', 'BINPERSID'}
STORAGES = dict(Double=np.float64, Float=np.float32, Half=np.float16, BFloat16=ml_dtypes.bfloat16)
STORAGES |= dict(Long=np.int64, Int=np.int32, Short=np.int16, Char=np.int8)
STORAGES |= dict(Byte=np.uint8, Bool=np.bool_)
Spans = dict[str, tuple[int, int]]  # key -> first byte and end of its numbers in the file


class Storage(typing.NamedTuple):
    """A range of the numbers under a key of the file."""

    dtype: np.dtype
    key: str
    start: int  # in numbers, as is `count`
    count: int


class Tensor(typing.NamedTuple):
    """A tensor as a pickle describes it, unchecked."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(file: pathlib.Path, mapped: mmap.mmap) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields (name, view of `mapped`) of each tensor; a damaged file raises any Exception."""
    is_zip = mapped[:4] == b'PK\3\4'
    tree, spans, is_swapped = _parse_zip(file, mapped) if is_zip else _parse_stream(mapped)
    for name, tensor in _unwrap_tensors(tree).items():
        try:
            array = _view(tensor, mapped, spans)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f'{name}: {error}') from error
        yield name, array.byteswap() if is_swapped else array


def _parse_zip(file: pathlib.Path, mapped: mmap.mmap) -> tuple[typing.Any, Spans, bool]:
    """What was pickled, the spans of its numbers, and whether they have the other byte order."""
    with zipfile.ZipFile(file) as opened:
        entries = {info.filename: info for info in opened.infolist()}
    roots = [name[:-8] for name in entries if re.fullmatch(r'[^/]+/data\.pkl', name)]
    if len(roots) != 1:
        names = ', '.join(list(entries)[:4]) or 'none'
        raise ValueError(f'expected one entry data.pkl, got {names}')
    prefix = f'{roots[0]}data/'
    numbers = {name: info for name, info in entries.items() if name.startswith(prefix)}
    spans = {name.removeprefix(prefix): _find_span(x, mapped) for name, x in numbers.items()}
    order = entries.get(f'{roots[0]}byteorder')
    is_big = order is not None and mapped[slice(*_find_span(order, mapped))] == b'big'
    mapped.seek(_find_span(entries[f'{roots[0]}data.pkl'], mapped)[0])
    return _unpickle(mapped, {}), spans, is_big


def _find_span(info: zipfile.ZipInfo, mapped: mmap.mmap) -> tuple[int, int]:
    """The first byte and the end of the content of an entry."""
    start = info.header_offset + 30
    header = mapped[max(info.header_offset, 0) : start]
    is_encoded = info.compress_type or info.flag_bits & 1 or info.file_size != info.compress_size
    if is_encoded or len(header) != 30 or header[:4] != b'PK\3\4':
        raise ValueError(f'{info.filename}: expected an uncompressed entry, got another or none')
    start += sum(struct.unpack('<HH', header[26:]))
    return start, min(start + info.file_size, len(mapped))


def _parse_stream(mapped: mmap.mmap) -> tuple[typing.Any, Spans, bool]:
    """As `_parse_zip` for an older torch: pickles, then numbers, which are little-endian."""
    for expected in MAGIC:
        got = _unpickle(mapped, {})
        if type(got) is not int or got != expected:
            raise ValueError(f'expected a zip or the number {expected}, got {type(got).__name__}')
    _unpickle(mapped, {})  # sizes of types on the machine that wrote it, which do not matter
    dtypes, spans = {}, {}
    tree = _unpickle(mapped, dtypes)
    for key in _unpickle(mapped, {}):
        if key not in dtypes:
            raise ValueError(f'expected storages {sorted(dtypes)[:4]}, got {key!r}')
        start = mapped.tell() + 8
        end = start + int.from_bytes(mapped.read(8), 'little') * dtypes[key].itemsize
        if end > len(mapped):
            raise ValueError(f'storage {key}: expected bytes up to {end}, got fewer')
        spans[key] = start, end
        mapped.seek(end)
    return tree, spans, False


def _unpickle(stream: mmap.mmap, dtypes: dict[str, np.dtype]):
    """The next object of a stream; adds the types of its storages to `dtypes`."""
    start, nested = stream.tell(), 0
    for operation, value, at in pickletools.genops(stream):
        # Python allocates memory up to the greatest index of its memo, and hashes nested tuples
        # until its stack overflows.
        nested += operation.name in NESTING
        if nested > 50_000 or 'PUT' in operation.name and value > at - start:
            raise ValueError(f'the pickle has too many or too large a {operation.name}')
    end = stream.tell()
    stream.seek(start)
    result = Unpickler(stream, dtypes).load()
    stream.seek(end)
    return result


class Unpickler(pickle.Unpickler):
    """Builds tensors and containers; every other name in a pickle is a ValueError."""

    def __init__(self, stream, dtypes: dict[str, np.dtype]):
        super().__init__(stream, encoding='utf-8')  # strings of Python 2 are names
        self.dtypes = dtypes

    def find_class(self, module: str, name: str):
        kind = name.removesuffix('Storage')
        if module in ('torch', 'torch.cuda') and kind != name and kind in STORAGES:
            return kind
        if f'{module}.{name}' not in SUBSTITUTES:
            raise ValueError(f'the pickle asks for {module}.{name}, which is no part of a tensor')
        return SUBSTITUTES[f'{module}.{name}']()

    def persistent_load(self, pid) -> Storage:
        """The storage of ('storage', class, key, device, count), in old files also (view,)."""
        word, kind, key, _, count, *rest = pid
        if (word, type(kind), type(key)) != ('storage', str, str):
            raise ValueError(f'the pickle asks for a {word!r}, which is no storage')
        dtype = self.dtypes[key] = np.dtype(STORAGES[kind])
        _, start, count = rest[0] if rest and rest[0] is not None else (None, 0, count)
        return Storage(dtype, key, start, count)


def _unwrap_tensors(tree) -> dict[str, Tensor]:
    """The dict of tensors that a pickle has at its top or under one of the keys of trainers."""
    inner = [tree[key] for key in WRAPPERS if isinstance(tree, dict) and key in tree]
    inner = [x for x in inner if x and not _describe_misfit(x)]
    tree = inner[0] if len(inner) == 1 else tree
    if message := _describe_misfit(tree):
        raise ValueError(message)
    return tree


def _describe_misfit(tree) -> str:
    """Why a tree is no dict of tensors; empty if it is."""
    if not isinstance(tree, dict):
        return f'expected a dict of tensors, got {type(tree).__name__}'
    for name, value in dict.items(tree):
        is_tensor = isinstance(value, Tensor) and isinstance(value.storage, Storage)
        if type(name) is not str or not is_tensor:
            return f'{name!r}: expected a tensor, got {type(value).__name__}'
    return ''


def _view(tensor: Tensor, mapped: mmap.mmap, spans: Spans) -> np.ndarray:
    """The numbers of a tensor as a view of the file."""
    storage, offset, size, stride = tensor
    dtype, key, first, count = storage
    numbers = (first, count, offset, *size, *stride)
    is_plain = len(size) == len(stride) <= 64 and all(type(n) is int for n in numbers)
    if not is_plain or not all(0 <= n < 2**63 for n in numbers):
        raise ValueError('expected natural numbers as size and strides, got others')
    start, end = spans.get(key, (0, 0))
    if first + count > (end - start) // dtype.itemsize:
        raise ValueError(f'expected {first + count} numbers, got {end - start} bytes')
    if 0 in size:
        return np.empty(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= count:
        raise ValueError(f'expected a number at {last}, got a storage of {count}')
    strides = [n * dtype.itemsize for n in stride]
    return np.ndarray(size, dtype, mapped, start + (first + offset) * dtype.itemsize, strides)


SUBSTITUTES = {  # name in a pickle -> makes its substitute, anew since a pickle may change it
    'collections.OrderedDict': lambda: collections.OrderedDict,
    'torch.Size': lambda: tuple,
    'torch._utils._rebuild_tensor': lambda: lambda *args: Tensor(*args[:4]),
    'torch._utils._rebuild_tensor_v2': lambda: lambda *args: Tensor(*args[:4]),
    'torch._utils._rebuild_parameter': lambda: lambda tensor, *_: tensor,
}
