"""
Masks of WebSocket frames (:rfc:`6455`, section 5.3): payload ↔ **mask** ↔ bytes on the wire.

A client masks each frame with a new key of 4 bytes, and a server removes the mask. Masking and
unmasking are the same operation: XOR with the repeated key. Used by `twsock.websocket.messages`.

If the package ``websockets`` is installed (extra ``speedups``), its function in C is used. For
64 KiB that function needs about 2 % of the time that Python needs; for 64 bytes about the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["KEY_SIZE", "Mask", "MaskKeys", "Maskable", "mask", "mask_in_c", "mask_in_python"]

#: The size of a key, in bytes.
KEY_SIZE: Final = 4

#: Bytes that can be masked.
Maskable = bytes | bytearray | memoryview

#: Masks or unmasks bytes with a key of 4 bytes.
Mask = Callable[["Maskable", "bytes | bytearray"], bytes]

#: Larger payloads are masked in chunks of this many bytes, which fit into the processor's cache.
_CHUNK: Final = 4096

#: Random bytes that a `MaskKeys` fetches at a time. One call for 64 keys costs as much as four
#: calls for one key each.
_POOL_SIZE: Final = 64 * KEY_SIZE


def mask_in_python(data: Maskable, key: bytes | bytearray) -> bytes:
    """
    Mask or unmask a payload without the function in C: with one XOR of two integers per chunk.

    :param key: 4 bytes.
    """
    size = len(data)
    if size > _CHUNK:
        return _mask_in_chunks(memoryview(data), key)
    repeated = (key * (size // KEY_SIZE + 1))[:size]
    masked = int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")
    return masked.to_bytes(size, "little")


def _mask_in_chunks(data: memoryview, key: bytes | bytearray) -> bytes:
    repeated = int.from_bytes(key * (_CHUNK // KEY_SIZE), "little")
    from_bytes = int.from_bytes
    end = len(data) // _CHUNK * _CHUNK
    chunks = [
        (from_bytes(data[start : start + _CHUNK], "little") ^ repeated).to_bytes(_CHUNK, "little")
        for start in range(0, end, _CHUNK)
    ]
    chunks.append(mask_in_python(data[end:], key))
    return b"".join(chunks)


def _find_mask_in_c() -> Mask | None:
    """Return the function of the package ``websockets``; None if it is not installed."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:  # Not installed, or installed without its part in C.
        return None
    return apply_mask


#: The function of the package ``websockets``, in C; None if it is not installed.
mask_in_c: Final = _find_mask_in_c()

#: Masks or unmasks a payload: the fastest function that is installed.
mask: Final[Mask] = mask_in_c or mask_in_python


class MaskKeys:
    """
    New keys of masks, one for each frame.

    :param random_bytes: returns a number of unpredictable bytes, such as ``os.urandom``. If keys
        could be predicted, a page in a browser could choose the bytes that pass through a proxy
        (section 10.3).
    """

    __slots__ = ("_pool", "_position", "_random_bytes")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._pool = b""
        self._position = 0

    def next(self) -> bytes:
        """Return the next key, 4 bytes."""
        start = self._position
        if start == len(self._pool):
            self._pool = self._random_bytes(_POOL_SIZE)
            start = 0
        self._position = start + KEY_SIZE
        return self._pool[start : start + KEY_SIZE]
