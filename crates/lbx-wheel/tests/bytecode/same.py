"""Says for each two pycs of a list whether they load to the same: same.py LIST, with the paths in turn, one a line."""

import marshal
import struct
import sys
import types

HEADER = 16


def fields(code):
    """All that a code object has, but what is made anew at each look."""
    names = [name for name in dir(code) if name.startswith("co_")]
    values = [(name, getattr(code, name)) for name in names if name != "co_lnotab"]
    return [(name, list(value()) if callable(value) else value) for name, value in values]


def value(thing):
    """A value that is equal for nothing but what is the same in type and content, all the way down."""
    kind = type(thing).__name__
    if isinstance(thing, types.CodeType):
        return kind, [(name, value(field)) for name, field in fields(thing)]
    if isinstance(thing, (tuple, list)):
        return kind, [value(part) for part in thing]
    if isinstance(thing, frozenset):
        return kind, sorted((value(part) for part in thing), key=repr)
    if isinstance(thing, slice):
        return kind, [value(part) for part in (thing.start, thing.stop, thing.step)]
    if isinstance(thing, float):
        return kind, struct.pack("<d", thing)
    if isinstance(thing, complex):
        return kind, struct.pack("<dd", thing.real, thing.imag)
    if isinstance(thing, (str, bytes, int, type(None), type(...))):
        return kind, thing
    raise TypeError(kind)


def load(path):
    with open(path, "rb") as file:
        pyc = file.read()
    return pyc[:HEADER], value(marshal.loads(pyc[HEADER:]))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        paths = file.read().split("\n")
    different = [one for one, other in zip(paths[::2], paths[1::2]) if load(one) != load(other)]
    sys.exit("different: " + ", ".join(different) if different else 0)


main()
