"""Random numbers, 8-bit codes, 16-bit rounding and remainders once more: on single numbers, with Python's integers."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

from by_hand.single import Single

NAN = 0x7FC0


def bits_of(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def number(b):
    """The float32 number with these bits."""
    return Single(struct.unpack("<f", struct.pack("<I", b))[0])


# --- Random numbers.


def mix_by_hand(z):
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def word(seed, n, t, s, c):
    """32 bits of stream s for counter c."""
    key = mix_by_hand(mix_by_hand(mix_by_hand(mix_by_hand(seed) ^ n) ^ t) ^ (4 * (c // 2**32) + s))
    k0, k1 = key % 2**32, key // 2**32
    x = c % 2**32 ^ k0
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = (x + k1) % 2**32
    x = x * 0xD35A2D97 % 2**32
    x ^= x >> 15
    x = x * 0x31848BAB % 2**32
    return x ^ x >> 14


def half_of(seed, n, t, k, i):
    """16 bits for element i of state number k."""
    x = word(seed, n, t, {0: 0, 1: 0, 2: 2, 3: 2}[k], i)
    return x // 2**16 if k in (1, 3) else x % 2**16


def byte_of(seed, n, t, k, i):
    """8 bits for element i of state number k."""
    block, j = divmod(i, 64)
    place = (1 if k in (1, 3) else 0) + (2 if j >= 32 else 0)
    x = word(seed, n, t, {0: 0, 1: 0, 2: 2, 3: 2}[k], 32 * block + (j if j < 32 else j - 32))
    return x.to_bytes(4, "little")[place]


# --- 8-bit codes.


def encode_by_hand(block, signed, places):
    """Codes and unit of one block; `places` are the u."""
    most = 127 if signed else 255
    if any(not math.isfinite(x) for x in block):
        return [0] * len(block), math.nan
    root = Single(math.sqrt(max(abs(x) for x in block)))
    if root == 0:
        return [0] * len(block), 0.0
    unit, k = Single(root / most), Single(most / root)
    codes = []
    for x, u in zip(block, places, strict=True):
        y = min(Single(math.sqrt(abs(x))) * k, most)
        q = min(math.floor(Single(y + u)), most)
        if not signed:
            q = max(q, 1) if x > 0 else q
        codes.append(-q if signed and x < 0 else q)
    return codes, unit


def decode_by_hand(q, unit, signed):
    t = Single(Single(q) * unit)
    return Single(t * (abs(t) if signed else t))


# --- 16 bits.


def bfloat16_by_hand(x, r):
    """The bits of x in bfloat16, rounded by the 16 bits r."""
    return NAN if math.isnan(x) else (bits_of(x) + r) // 2**16


def float16_by_hand(x, r):
    """The bits of x in float16: its place among all of them, with 16 bits after the point, plus r."""
    sign = 0x8000 if math.copysign(1, x) < 0 else 0
    if math.isnan(x):
        return 0x7E00 | sign
    x = abs(x)
    if x >= 65536:
        return 0x7C00 | sign
    exponent = max(math.frexp(x)[1] - 1, -14) if x else -14
    place = Fraction(x) / Fraction(2) ** (exponent - 10) + 1024 * (exponent + 14)
    return (math.floor(place * 65536) + r) // 65536 | sign


# --- bfloat16 with a remainder.


def split_by_hand(x, master_bits, h=None):
    """The bits of bfloat16, and the remainder."""
    b = bits_of(x)
    if math.isnan(x):
        return NAN, 0
    if master_bits == 32:
        high = (b + 2**15) // 2**16
        return high, b - 2**16 * high
    up = 127 + b // 256 % 2 if h is None else h % 256
    c = (b + up) // 256
    high = (c + 128) // 256
    return high, c - 256 * high


def join_by_hand(high, low, master_bits):
    return number((2**16 * high + low) if master_bits == 32 else 256 * (256 * high + low))
