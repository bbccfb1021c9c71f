"""What bytecode can hold: every type of constant, and code objects in each other."""

from __future__ import annotations

import os.path as path

NUMBERS = (0, 1, -1, 255, 2**31 - 1, 2**31, -(2**31), 2**100, -(2**100), 0.0, -0.0, 1.0, 1e308, 1j, -0.5j, True, False)
SPECIAL = (None, ..., 1e999 - 1e999, 1e999)
TEXTS = ("", "a", " ", "é", "€", "an_identifier", "not an identifier", "\ud800 alone", "long " * 60, "l" * 300)
BYTES = (b"", b"a", b"not text \xff", b"x" * 300)
MANY = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
)


def members(value):
    return value in {"one", "two", "three", "four", " ", "a", None, 1, 2.5, (1, "two"), b"three"}


def cut(value):
    return value[1:2], value[:], value[::-1], value["a":"b"]


def outer(first, /, second: int | None = 1, *rest, key="v a l u e", **others):
    def inner(third):
        nonlocal second
        second = third
        return first, rest, key, others

    return inner, lambda x: x, lambda x: x


class Thing(dict):
    """A docstring."""

    kind: str = "thing"

    def __init__(self, größe=1):
        super().__init__()
        self.größe = größe
        self.path = path.join("a", "b")

    async def wait(self, others):
        async with others as other:
            try:
                return [item async for item in other if item]
            except (ValueError, KeyError) as error:
                raise RuntimeError(f"{error!r:>10} in {self.kind}") from error
            finally:
                print("done", sep=" ")
