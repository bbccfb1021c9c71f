"""Runs the compiler program in a process with another history: history.py COMPILER WHAT JOB

WHAT is one of:

    used          strings of one character are interned, modules were imported, and code was compiled before
    held          all parts of a code object have a second reference while it is written
    crash NAME    the process is ended by SIGABRT while it compiles the member NAME
    kill NAME     the same by SIGKILL
"""

import importlib.util
import os
import resource
import signal
import sys

KEPT = []


def load(path):
    spec = importlib.util.spec_from_file_location("compiler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def use():
    import argparse, csv, decimal, email.message, inspect, logging, pickle, tokenize, typing, unittest

    KEPT.extend([argparse, csv, decimal, email.message, inspect, logging, pickle, tokenize, typing, unittest])
    KEPT.extend(sys.intern(chr(number)) for number in range(256))
    KEPT.append(sys.intern(""))
    for number in range(500):
        source = "x{} = ' ', 1.5, (1, 'x y')\ndef f(self, a=1): return self.a in {{'a', 'b c', ''}}".format(number)
        KEPT.append(compile(source, "before.py", "exec"))


def parts(thing):
    yield thing
    if isinstance(thing, (tuple, frozenset)):
        for part in thing:
            yield from parts(part)
    if hasattr(thing, "co_consts"):
        for name in dir(thing):
            if name.startswith("co_") and not callable(getattr(thing, name)):
                yield from parts(getattr(thing, name))


class Holding:
    def __init__(self, marshal):
        self.marshal = marshal

    def dumps(self, code):
        held = list(parts(code))
        result = self.marshal.dumps(code)
        del held
        return result


def end(compiler, name, number):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    compiled = compiler.compiled

    def ended(source, member):
        if member["member"] == name:
            os.kill(os.getpid(), number)
        return compiled(source, member)

    compiler.compiled = ended


def main():
    path, what = sys.argv[1:3]
    compiler = load(path)
    if what == "used":
        use()
    elif what == "held":
        compiler.marshal = Holding(compiler.marshal)
    else:
        end(compiler, sys.argv[3], {"crash": signal.SIGABRT, "kill": signal.SIGKILL}[what])
    sys.argv[1:] = sys.argv[-1:]
    compiler.main()


main()
