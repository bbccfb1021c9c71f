"""Compiles the sources of wheels and folders to unchecked-hash bytecode (PEP 552), and runs none of them.

It runs on CPython 3.8 to 3.14 with nothing but the standard library:

    PYTHONHASHSEED=0 python3 -s -S -B -X utf8 compile.py JOB       compiles what the file JOB lists
    python3 -s -S -B -X utf8 compile.py --about                    says as JSON which bytecode this interpreter writes

Not with -I, which ignores PYTHONHASHSEED: what the interpreter's compiler does with sets must not get into the
bytecode. What -I keeps out besides is refused, which is any other variable of Python's, and the folder of this file is
not searched.

JOB is JSON. Its paths are as this process sees them:

    {"wheels": [{"path": WHEEL, "out": FILE, "members": [MEMBER, ...]}, ...],
     "trees": [{"root": FOLDER, "out": FILE, "members": [MEMBER, ...]}, ...],
     "processes": COUNT}

with MEMBER as {"member": NAME, "file": PATH, "cache": PATH}: the name in the wheel or folder, the path that tracebacks
show, and the path of the pyc.

FILE must not be there, nor any whose name begins with its name and a dot; its folder must be. It becomes the eight
bytes "lbxpyc01" and a frame for each member, in the order of the members, then an end. There is nothing between the
parts, and integers are little-endian:

    1 byte    the kind: "P", "E" or "."
    4 bytes   the length of "cache" in UTF-8; 0 in an end
    4 bytes   the length of the body; 0 in an end
              "cache"
              the body

The body of "P" is the pyc. "E" is a source that does not compile, and its body says why, in one line of UTF-8. That is
no failure: packages have templates among their files, and sources for other versions. "." is the end; what has none
was cut off.

The exit code is 0 if every FILE is complete.
"""

import sys

# The folder of this file, unless an option keeps it out already. What else may lie there is no standard library.
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]

import gc
import importlib.util
import json
import marshal
import os
import shutil
import signal
import struct
import warnings
import zipfile

MAGIC = b"lbxpyc01"
FRAME = struct.Struct("<cII")
END = FRAME.pack(b".", 0, 0)
# Unchecked, hash-based (PEP 552).
FLAGS = struct.pack("<I", 0b01)
# Enough that processes end at the same time, few enough that files for the parts cost nothing.
PARTS = 256
LONGEST_REASON = 300
# By these an interpreter ends itself over a source. By others it is ended, and another time the source would compile.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


def about():
    return {
        "cache_tag": sys.implementation.cache_tag,
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "version": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
    }


def check_environment():
    """Refuses what would make the bytes differ, or the standard library another one."""
    if sys.flags.hash_randomization:
        sys.exit("error: PYTHONHASHSEED is not 0")
    others = sorted(name for name in os.environ if name.startswith("PYTHON") and name != "PYTHONHASHSEED")
    if others:
        sys.exit("error: in the environment there is " + ", ".join(others))


def frame(kind, cache, body):
    path = cache.encode()
    return FRAME.pack(kind, len(path), len(body)) + path + body


def reason(error):
    text = " ".join(str(error).split())
    line = type(error).__name__ + ": " + text if text else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in line[:LONGEST_REASON]).encode()


def compiled(source, member):
    """The frame for one source: what importlib would write, with another header."""
    try:
        code = compile(source, member["file"], "exec", dont_inherit=True, optimize=0)
        body = marshal.dumps(code)
    except Exception as error:
        return frame(b"E", member["cache"], reason(error))
    header = importlib.util.MAGIC_NUMBER + FLAGS + importlib.util.source_hash(source)
    return frame(b"P", member["cache"], header + body)


class Origin:
    """A wheel or a folder that sources are read from."""

    def __init__(self, entry):
        self.out, self.members = entry["out"], entry["members"]
        self.wheel, self.root = entry.get("path"), entry.get("root")
        self.archive = None

    def read(self, name):
        if self.wheel is None:
            with open(os.path.join(self.root, name), "rb") as file:
                return file.read()
        if self.archive is None:
            # Not before the fork: processes with one open file share its position.
            self.archive = zipfile.ZipFile(self.wheel)
        return self.archive.read(name)

    def close(self):
        if self.archive is not None:
            self.archive.close()
            self.archive = None


class Part:
    """Some members of one origin, one after the other: the work that a process takes at a time."""

    def __init__(self, origin, number, start, end):
        self.origin, self.members = origin, origin.members[start:end]
        self.path = "{}.{}".format(origin.out, number)

    def claim(self):
        """The part's file, for the one process that makes it. This needs neither a lock nor shared memory."""
        try:
            return open(self.path, "xb")
        except FileExistsError:
            return None

    def write(self, file, members):
        with file:
            for member in members:
                file.write(compiled(self.origin.read(member["member"]), member))


def split(origins):
    total = sum(len(origin.members) for origin in origins)
    size = max(1, -(-total // PARTS))
    parts = []
    for origin in origins:
        starts = range(0, len(origin.members), size)
        parts.append([Part(origin, number, start, start + size) for number, start in enumerate(starts)])
    return parts


def forked(work):
    """Runs a function in a process of its own, which ends with it."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        # Not sys.exit: what follows in this program is the parent's.
        os._exit(code)


def make_parts(parts, done):
    """Makes parts that no other process makes, and says for each that it is complete."""
    origin = None
    for number, part in enumerate(parts):
        file = part.claim()
        if file is None:
            continue
        if origin not in (None, part.origin):
            origin.close()
        origin = part.origin
        part.write(file, part.members)
        os.write(done, struct.pack("<I", number))


def wait_for(pid):
    """How a process ended: None, or the name of the signal if it was a crash. Anything else ends this program."""
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        return None
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in CRASHES:
            return signal.Signals(number).name
        sys.exit("error: a process was ended by signal {}".format(number))
    sys.exit("error: a process failed")


def make_in_parallel(parts, processes):
    """Makes parts, and returns those that are not complete, because a process crashed."""
    reading, writing = os.pipe()
    pids = [forked(lambda: make_parts(parts, writing)) for _ in range(min(processes, len(parts)))]
    os.close(writing)
    with open(reading, "rb") as file:
        complete = {number for (number,) in struct.iter_unpack("<I", file.read())}
    for pid in pids:
        wait_for(pid)
    return [part for number, part in enumerate(parts) if number not in complete]


def make_all(parts, processes):
    while parts:
        incomplete = make_in_parallel(parts, processes)
        parts = [part for part in incomplete if not os.path.exists(part.path)]
        for part in incomplete:
            if part not in parts:
                make_one_by_one(part)


def make_one_by_one(part):
    """Makes a part with a process for each member, because one of them crashes the interpreter."""
    single = part.path + ".one"
    with open(part.path, "wb") as file:
        for member in part.members:
            with open(single, "wb") as one:
                crash = wait_for(forked(lambda: part.write(one, [member])))
            if crash:
                file.write(frame(b"E", member["cache"], b"the interpreter crashed: " + crash.encode()))
            else:
                append(single, file)
            os.unlink(single)


def append(path, file):
    with open(path, "rb") as part:
        shutil.copyfileobj(part, file, 1 << 20)


def join(origin, parts):
    with open(origin.out, "wb") as file:
        file.write(MAGIC)
        for part in parts:
            append(part.path, file)
            os.unlink(part.path)
        file.write(END)


def main():
    if sys.argv[1] == "--about":
        print(json.dumps(about()))
        return
    check_environment()
    warnings.simplefilter("ignore")
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    origins = [Origin(entry) for entry in job.get("wheels", []) + job.get("trees", [])]
    grouped = split(origins)
    parts = [part for group in grouped for part in group]
    # Compiling makes no cycles that are worth looking for.
    gc.disable()
    make_all(parts, max(1, job["processes"]))
    for origin, group in zip(origins, grouped):
        join(origin, group)


if __name__ == "__main__":
    main()
