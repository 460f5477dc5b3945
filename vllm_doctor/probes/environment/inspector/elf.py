"""Reads ELF files as the loader would: needed libraries, search folders, undefined symbols, and lookups by GNU hash.

Only a few pages of a library are read (a libtorch has up to 1.5 GB), by `pread`: a mapping would count as memory, and a
file that shrinks under it would kill the reader. Source: the System V ABI, and the GNU hash section as ld.so reads it
(glibc, elf/dl-lookup.c).
"""

from __future__ import annotations

import os
from struct import Struct, error, iter_unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAXIMUM_STRING_BYTES = 64 * 2**20
MAXIMUM_SYMBOLS = 1_000_000
MAXIMUM_NAME_BYTES = 8192
MAXIMUM_CHAIN = 4096
_MAXIMUM_DYNAMIC_BYTES = 65536

_HEADER = Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = Struct("<IIQQQQQQ")
_SECTION_HEADER = Struct("<IIQQQQIIQQ")
_SYMBOL = Struct("<IBBHQQ")
_HASH_HEADER = Struct("<IIII")
_PT_LOAD, _PT_DYNAMIC, _SHT_DYNSYM = 1, 2, 11
_NEEDED, _STRTAB, _SYMTAB, _STRSZ, _RPATH, _RUNPATH, _GNU_HASH = 1, 5, 6, 10, 15, 29, 0x6FFFFEF5
_BIND_GLOBAL = 1


class ElfError(Exception):
    """The file is no ELF file that could be read, and why."""


class Elf:
    """One shared library, open for reading; raises ElfError where it is none, is cut short or makes no sense."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as problem:
            raise ElfError(getattr(problem, "strerror", None) or str(problem)) from None
        try:
            self._size = os.fstat(self._descriptor).st_size
            self._read_headers()
            self._read_dynamic()
        except (OSError, error, OverflowError) as problem:
            self.close()
            raise ElfError(f"not readable as a library: {problem}") from None
        except ElfError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Elf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset > self._size:
            raise ElfError("an offset lies outside the file")
        return os.pread(self._descriptor, length, offset)

    def _read_headers(self) -> None:
        head = self._at(0, _HEADER.size)
        if head[:4] != b"\x7fELF":
            raise ElfError("no ELF file" if head else "an empty file")
        if len(head) < _HEADER.size:
            raise ElfError("cut short")
        if head[4:6] != b"\x02\x01":
            raise ElfError("no 64-bit little-endian library")
        fields = _HEADER.unpack(head)
        self.machine: int = fields[2]
        self._sections = (fields[6], fields[11], fields[12])
        offset, size, count = fields[5], fields[9], fields[10]
        if size != _PROGRAM_HEADER.size or count > 512:
            raise ElfError("no sensible program headers")
        self._segments: list[tuple[int, int, int]] = []
        self._dynamic = (0, 0)
        table = self._at(offset, size * count)
        if len(table) < size * count:
            raise ElfError("cut short")
        for kind, _, start, address, _, length, _, _ in iter_unpack(_PROGRAM_HEADER.format, table):
            if kind == _PT_LOAD:
                if start + length > self._size:
                    raise ElfError(f"cut short: {self._size} of at least {start + length} bytes are there")
                self._segments.append((address, start, length))
            elif kind == _PT_DYNAMIC:
                self._dynamic = (start, min(length, _MAXIMUM_DYNAMIC_BYTES))

    def _read_dynamic(self) -> None:
        self._entries: dict[int, int] = {}
        needed: list[int] = []
        table = self._at(*self._dynamic)
        for tag, value in iter_unpack("<QQ", table[: len(table) // 16 * 16]):
            if tag == 0:
                break
            if tag == _NEEDED:
                needed.append(value)
            else:
                self._entries[tag] = value
        self._string_bytes = min(self._entries.get(_STRSZ, 0), MAXIMUM_STRING_BYTES)
        self._strings = self._offset(self._entries[_STRTAB]) if _STRTAB in self._entries else 0
        self._symbols = self._offset(self._entries[_SYMTAB]) if _SYMTAB in self._entries else 0
        self.needed = [self._text(value) for value in needed[:512]]
        self._prepare_hash()

    def _offset(self, address: int) -> int:
        """The place in the file that an address is loaded from."""
        for start, offset, length in self._segments:
            if start <= address < start + length:
                return address - start + offset
        raise ElfError("an address lies outside the file")

    def _text(self, index: int) -> str:
        if index >= self._string_bytes:
            raise ElfError("a name lies outside the string table")
        return self._at(self._strings + index, MAXIMUM_NAME_BYTES).split(b"\0", 1)[0].decode("utf-8", "replace")

    @property
    def search_folders(self) -> list[str]:
        """The folders of RUNPATH (else RPATH), `$ORIGIN` expanded."""
        value = self._entries.get(_RUNPATH, self._entries.get(_RPATH))
        if value is None:
            return []
        origin = os.path.dirname(os.path.abspath(self.path))
        text = self._text(value).replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin)
        return [folder for folder in text.split(":") if folder]

    def undefined(self, prefixes: tuple[bytes, ...]) -> Iterator[bytes]:
        """The names, starting with one of the prefixes, that must be defined elsewhere (weak ones need not be)."""
        strings = self._at(self._strings, self._string_bytes)
        symbols = self._at(self._symbols, _SYMBOL.size * self._unhashed_count())
        whole = len(symbols) // _SYMBOL.size * _SYMBOL.size
        for name, information, _, section, _, _ in iter_unpack(_SYMBOL.format, symbols[:whole]):
            if section == 0 and information >> 4 == _BIND_GLOBAL and strings.startswith(prefixes, name):
                end = strings.find(b"\0", name, name + MAXIMUM_NAME_BYTES)
                if end > name:
                    yield strings[name:end]

    def _unhashed_count(self) -> int:
        """How many symbols have to be looked at: the undefined ones lie before the first that GNU hash holds.

        With nothing hashed that start says nothing (ld writes 1), and the section header has the count.
        """
        if self._hash is not None and self._first_hashed > 1:
            return min(self._first_hashed, MAXIMUM_SYMBOLS)
        offset, size, count = self._sections
        if size == _SECTION_HEADER.size and 0 < count < 4096:
            table = self._at(offset, size * count)
            for entry in iter_unpack(_SECTION_HEADER.format, table[: len(table) // size * size]):
                if entry[1] == _SHT_DYNSYM:
                    return min(int(entry[5]) // _SYMBOL.size, MAXIMUM_SYMBOLS)
        raise ElfError("the number of its symbols cannot be told")

    def _prepare_hash(self) -> None:
        self._hash: int | None = None
        self._first_hashed = 0
        if _GNU_HASH not in self._entries:
            return
        start = self._offset(self._entries[_GNU_HASH])
        header = self._at(start, _HASH_HEADER.size)
        self._buckets, self._first_hashed, self._bloom_words, self._bloom_shift = _HASH_HEADER.unpack(header)
        if not self._buckets or not self._bloom_words or self._bloom_shift > 63:
            raise ElfError("no sensible hash table")
        self._hash = start + _HASH_HEADER.size

    @property
    def can_look_up(self) -> bool:
        """Whether `defines` can be asked."""
        return self._hash is not None

    def defines(self, name: bytes, hashed: int) -> bool:
        """Whether it exports the symbol; `hashed` is `gnu_hash(name)`. Raises ElfError for a table without sense."""
        if self._hash is None:
            return False
        bloom = self._hash
        word = self._number(bloom + hashed // 64 % self._bloom_words * 8, 8)
        if not (word >> (hashed & 63)) & (word >> ((hashed >> self._bloom_shift) & 63)) & 1:
            return False
        buckets = bloom + self._bloom_words * 8
        index = self._number(buckets + hashed % self._buckets * 4, 4)
        if index < self._first_hashed or not index:
            return False
        chain = buckets + self._buckets * 4 + (index - self._first_hashed) * 4
        return self._in_chain(name, hashed | 1, index, chain)

    def _in_chain(self, name: bytes, hashed: int, index: int, chain: int) -> bool:
        for step in range(MAXIMUM_CHAIN):
            value = self._number(chain + step * 4, 4)
            if value | 1 == hashed and self._is(index + step, name):
                return True
            if value & 1:
                return False
        return False

    def _is(self, index: int, name: bytes) -> bool:
        symbol = self._at(self._symbols + index * _SYMBOL.size, _SYMBOL.size)
        start, _, _, section, _, _ = _SYMBOL.unpack(symbol)
        return bool(section) and self._at(self._strings + start, len(name) + 1) == name + b"\0"

    def _number(self, offset: int, length: int) -> int:
        data = self._at(offset, length)
        if len(data) != length:
            raise ElfError("the hash table runs over the end of the file")
        return int.from_bytes(data, "little")


def gnu_hash(name: bytes) -> int:
    """The hash of a symbol's name (glibc, elf/dl-lookup.c, _dl_new_hash)."""
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value
