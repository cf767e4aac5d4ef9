"""The superblock (version 3), the first bytes of an HDF5 file's content, with the mark of an open writer.

The library sets the mark when a program opens a file for writing, removes it when the program closes the
file, and refuses to open a file that has it. If the program is killed, the mark stays.
"""

from __future__ import annotations

HEAD = 48
"""Length of a superblock in bytes; the last four are a checksum of the others."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION, _FLAGS = 8, 11
_BASE, _END = slice(12, 20), slice(28, 36)
_MASK = 0xFFFFFFFF
_MIX = ((0, 2, 4, 1), (1, 0, 6, 2), (2, 1, 8, 0), (0, 2, 16, 1), (1, 0, 19, 2), (2, 1, 4, 0))
_FINAL = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))


def marked(head: bytes) -> bool:
    """Whether a superblock has the mark of a writer, which may have been killed since."""
    known = len(head) == HEAD and head.startswith(SIGNATURE) and head[_VERSION] == 3
    return known and head[_FLAGS] != 0


def cleared(head: bytes) -> bytes:
    """The superblock without the mark; bytes without a mark are returned unchanged."""
    return _changed(head, slice(_FLAGS, _FLAGS + 1), 0) if marked(head) else head


def end(head: bytes) -> int:
    """The length of the file that a superblock states: HDF5 appends new content behind it."""
    return int.from_bytes(head[_END], "little")


def with_end(head: bytes, length: int) -> bytes:
    """The superblock of a file of this length that begins with it."""
    return _changed(_changed(head, _BASE, 0), _END, length)


def _changed(head: bytes, place: slice, value: int) -> bytes:
    """The superblock with another number in one place, and its checksum."""
    number = value.to_bytes(place.stop - place.start, "little")
    content = head[: place.start] + number + head[place.stop : -4]
    return content + _lookup3(content).to_bytes(4, "little")


def _lookup3(data: bytes) -> int:
    """Bob Jenkins' hash function lookup3, the checksum of HDF5's metadata."""
    state = [0xDEADBEEF + len(data) & _MASK] * 3
    *blocks, last = (data[i : i + 12] for i in range(0, len(data), 12))
    for block in blocks:
        _add(state, block)
        for changed, by, turn, grown in _MIX:
            state[changed] = (state[changed] - state[by] & _MASK) ^ _rotated(state[by], turn)
            state[by] = state[by] + state[grown] & _MASK
    _add(state, last)
    for changed, by, turn in _FINAL:
        state[changed] = (state[changed] ^ state[by]) - _rotated(state[by], turn) & _MASK
    return state[2]


def _add(state: list[int], block: bytes) -> None:
    for i in range(3):
        word = int.from_bytes(block[4 * i : 4 * i + 4], "little")
        state[i] = state[i] + word & _MASK


def _rotated(word: int, turn: int) -> int:
    return (word << turn | word >> 32 - turn) & _MASK
