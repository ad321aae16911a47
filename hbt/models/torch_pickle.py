"""Tensors of files that torch.save wrote, without torch and without running what they name.

Hides both layouts, the zip of torch 1.6 on and the stream before it: `Unpickler` has its own idea
of a tensor. Called by `weights`.
"""

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
WRAPPERS = ('state_dict', 'model')  # keys under which a trainer may keep the tensors
NESTING = {'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'REDUCE', 'INST', 'OBJ', 'NEWOBJ', 'BINPERSID'}
FLOATS = dict(Double=np.float64, Float=np.float32, Half=np.float16, BFloat16=ml_dtypes.bfloat16)
STORAGES = FLOATS | dict(
    Long=np.int64, Int=np.int32, Short=np.int16, Char=np.int8, Byte=np.uint8, Bool=np.bool_
)


class Storage(typing.NamedTuple):
    """A part of the numbers that the file holds under a key, counted in numbers."""

    dtype: np.dtype
    key: str
    start: int
    count: int


class Tensor(typing.NamedTuple):
    """What a pickle tells of a tensor; nothing here is checked yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(file: pathlib.Path, mapped: mmap.mmap) -> abc.Iterator[tuple[str, np.ndarray]]:
    """Yields (name, view of the file) of the tensors that torch.save wrote, of any version.

    Raises whatever a damaged file leads to: neither pickle nor zipfile promises to be special.
    """
    parse = parse_zip if mapped[:4] == b'PK\3\4' else parse_stream
    tree, spans, swapped = parse(file, mapped)
    for name, tensor in tensors(tree).items():
        try:
            array = view(tensor, mapped, spans)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f'{name}: {error}') from error
        yield name, array.byteswap() if swapped else array


def parse_zip(file: pathlib.Path, mapped: mmap.mmap):
    """(tree, key -> bytes from and to, whether bytes are swapped) of a file of torch 1.6 on."""
    with zipfile.ZipFile(file) as opened:
        entries = {info.filename: info for info in opened.infolist()}
    roots = [name[:-8] for name in entries if re.fullmatch(r'[^/]+/data\.pkl', name)]
    if len(roots) != 1:
        found = ', '.join(list(entries)[:4]) or 'none'
        raise ValueError(f'expected one entry data.pkl, got {found}')
    prefix = f'{roots[0]}data/'
    held = [name for name in entries if name.startswith(prefix)]
    spans = {name.removeprefix(prefix): span(entries[name], mapped) for name in held}
    pickled, order = (f'{roots[0]}{name}' for name in ('data.pkl', 'byteorder'))
    mapped.seek(span(entries[pickled], mapped)[0])
    big = order in entries and mapped[slice(*span(entries[order], mapped))] == b'big'
    return unpickle(mapped, {}), spans, big


def span(info: zipfile.ZipInfo, mapped: mmap.mmap) -> tuple[int, int]:
    """Where the content of an entry begins and ends."""
    start = info.header_offset + 30
    header = mapped[max(info.header_offset, 0) : start]
    encoded = info.compress_type or info.flag_bits & 1 or info.file_size != info.compress_size
    if encoded or len(header) != 30 or header[:4] != b'PK\3\4':
        raise ValueError(f'{info.filename}: expected an uncompressed entry, got another or none')
    start += sum(struct.unpack('<HH', header[26:]))
    return start, min(start + info.file_size, len(mapped))


def parse_stream(file: pathlib.Path, mapped: mmap.mmap):
    """As `parse_zip`, of a file of older torch: pickles, and numbers, which are little-endian."""
    for expected in MAGIC:
        got = unpickle(mapped, {})
        if type(got) is not int or got != expected:
            raise ValueError(f'expected a zip or the number {expected}, got {type(got).__name__}')
    unpickle(mapped, {})  # sizes of types on the machine that wrote it, on which nothing depends
    dtypes, spans = {}, {}
    tree = unpickle(mapped, dtypes)
    for key in unpickle(mapped, {}):
        if key not in dtypes:
            raise ValueError(f'expected storages {sorted(dtypes)[:4]}, got {key!r}')
        start = mapped.tell() + 8
        end = start + int.from_bytes(mapped.read(8), 'little') * dtypes[key].itemsize
        if end > len(mapped):
            raise ValueError(f'storage {key}: expected bytes up to {end}, got fewer')
        spans[key] = start, end
        mapped.seek(end)
    return tree, spans, False


def unpickle(stream: mmap.mmap, dtypes: dict[str, np.dtype]):
    """The object at which a stream stands, to be left behind it; adds its storages to `dtypes`."""
    start, nested = stream.tell(), 0
    for operation, value, at in pickletools.genops(stream):
        # Python sets aside memory up to the greatest number that an object is put under, and
        # hashes tuples within tuples until its stack ends.
        nested += operation.name in NESTING
        if nested > 50_000 or 'PUT' in operation.name and value > at - start:
            raise ValueError(f'the pickle has too many or too large a {operation.name}')
    end = stream.tell()
    stream.seek(start)
    result = Unpickler(stream, dtypes).load()
    stream.seek(end)
    return result


class Unpickler(pickle.Unpickler):
    """Makes tensors and containers only; whatever else a pickle names is an error."""

    def __init__(self, stream, dtypes: dict[str, np.dtype]):
        super().__init__(stream, encoding='utf-8')  # strings of Python 2 are names
        self.dtypes = dtypes

    def find_class(self, module: str, name: str):
        kind = name.removesuffix('Storage')
        if module in ('torch', 'torch.cuda') and kind != name and kind in STORAGES:
            return kind
        if f'{module}.{name}' not in STAND_INS:
            raise ValueError(f'the pickle asks for {module}.{name}, which is no part of a tensor')
        return STAND_INS[f'{module}.{name}']()

    def persistent_load(self, pid) -> Storage:
        """The storage of ('storage', class, key, device, count), in old files also (view,)."""
        word, kind, key, _, count, *rest = pid
        if (word, type(kind), type(key)) != ('storage', str, str):
            raise ValueError(f'the pickle asks for a {word!r}, which is no storage')
        dtype = self.dtypes[key] = np.dtype(STORAGES[kind])
        _, start, count = rest[0] if rest and rest[0] is not None else (None, 0, count)
        return Storage(dtype, key, start, count)


def tensors(tree) -> dict[str, Tensor]:
    """The dict of tensors that a file holds at its top or under one of the keys of trainers."""
    held = [tree[key] for key in WRAPPERS if isinstance(tree, dict) and key in tree]
    held = [inner for inner in held if inner and not misfit(inner)]
    tree = held[0] if len(held) == 1 else tree
    if misfit(tree):
        raise ValueError(misfit(tree))
    return tree


def misfit(tree) -> str:
    """What keeps a tree from being a dict of tensors, if anything."""
    if not isinstance(tree, dict):
        return f'expected a dict of tensors, got {type(tree).__name__}'
    for name, value in dict.items(tree):
        held = value.storage if isinstance(value, Tensor) else None
        if type(name) is not str or not isinstance(held, Storage):
            return f'{name!r}: expected a tensor, got {type(value).__name__}'
    return ''


def view(tensor: Tensor, mapped: mmap.mmap, spans: dict[str, tuple[int, int]]) -> np.ndarray:
    """The numbers of a tensor where they stand in the file."""
    storage, offset, size, stride = tensor
    dtype, key, first, count = storage
    numbers = (first, count, offset, *size, *stride)
    fair = len(size) == len(stride) <= 64 and all(type(n) is int for n in numbers)
    if not fair or not all(0 <= n < 2**63 for n in numbers):
        raise ValueError('expected a size and strides, got others than natural numbers')
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


STAND_INS = {  # a name in a pickle -> what makes anew what it gets: a pickle may change functions
    'collections.OrderedDict': lambda: collections.OrderedDict,
    'torch.Size': lambda: tuple,
    'torch._utils._rebuild_tensor': lambda: lambda *given: Tensor(*given[:4]),
    'torch._utils._rebuild_tensor_v2': lambda: lambda *given: Tensor(*given[:4]),
    'torch._utils._rebuild_parameter': lambda: lambda tensor, *_: tensor,
}
