"""Masks of WebSocket frames: three ways to mask agree, and keys are never used twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis.strategies import binary, integers
from twisted.trial.unittest import SynchronousTestCase

from twsock.websocket.masking import MaskKeys, mask, mask_in_c, mask_in_python

ROOT = Path(__file__).resolve().parents[2]

#: Sizes at which a way to mask begins or ends a chunk or a key.
_SIZES = (0, 1, 2, 3, 4, 5, 64, 125, 4095, 4096, 4097, 8191, 8192, 8195, 65_536, 70_001)


def mask_by_bytes(data: bytes, key: bytes) -> bytes:
    """Mask as :rfc:`6455`, section 5.3, writes it: byte for byte."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


class MaskTests(SynchronousTestCase):
    """Integers, chunks of 4 KiB, and the function in C give the same bytes."""

    def test_the_example_of_the_rfc(self) -> None:
        """``Hello`` of section 5.7."""
        key, masked = bytes.fromhex("37 fa 21 3d"), bytes.fromhex("7f 9f 4d 51 58")
        for function in (mask, mask_in_python):
            self.assertEqual(function(b"Hello", key), masked, f"{function=}")

    def test_all_ways_agree_at_each_border(self) -> None:
        """For each size at which a way changes, also with a view or a bytearray."""
        if mask_in_c is None:
            self.skipTest("the package websockets is not installed, or has no part in C")
        for size in _SIZES:
            data, key = os.urandom(size), os.urandom(4)
            expected = mask_by_bytes(data, key)
            for given_data in (data, bytearray(data), memoryview(data)):
                for given_key in (key, bytearray(key)):
                    for function in (mask_in_python, mask_in_c):
                        masked = function(given_data, given_key)
                        self.assertEqual(masked, expected, f"{function=} {size=}")
                        self.assertIs(type(masked), bytes, f"{function=} {size=}")

    @given(binary(max_size=300), binary(min_size=4, max_size=4))
    def test_masking_twice_gives_the_payload(self, data: bytes, key: bytes) -> None:
        """Masking and unmasking are one operation."""
        self.assertEqual(mask_in_python(data, key), mask_by_bytes(data, key))
        self.assertEqual(mask(mask_in_python(data, key), key), data)

    def test_without_websockets_python_masks(self) -> None:
        """The extra is optional: where it is not installed, the module imports and masks."""
        program = (
            "import sys\n"
            "sys.modules['websockets.speedups'] = None\n"
            "from twsock.websocket.masking import mask, mask_in_c, mask_in_python\n"
            "assert mask_in_c is None and mask is mask_in_python\n"
            "print(mask(b'Hello', bytes.fromhex('37fa213d')).hex())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("7f9f4d5158\n", ""))


class KeyTests(SynchronousTestCase):
    """A `MaskKeys` divides random bytes into keys."""

    @given(integers(1, 200))
    def test_no_byte_is_used_twice(self, count: int) -> None:
        """The keys are the bytes of the source, in order, across the pools."""
        source = bytearray()

        def random_bytes(size: int) -> bytes:
            new = os.urandom(size)
            source.extend(new)
            return new

        keys = MaskKeys(random_bytes)
        drawn = [keys.next() for _ in range(count)]
        self.assertEqual({len(key) for key in drawn}, {4})
        self.assertEqual(b"".join(drawn), bytes(source[: 4 * count]))

    def test_nothing_random_is_taken_before_the_first_key(self) -> None:
        """An idle client holds no pool."""
        sizes: list[int] = []

        def random_bytes(size: int) -> bytes:
            sizes.append(size)
            return bytes(size)

        keys = MaskKeys(random_bytes)
        self.assertEqual(sizes, [])
        keys.next()
        self.assertEqual(len(sizes), 1)
