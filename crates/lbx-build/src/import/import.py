# Imports a handler as Lambda's runtime interface client does, and writes down what came of it, as JSON. Runs on any
# Python 3.8 and later. What is imported may do anything, so that nothing here is to be believed.
import importlib
import json
import os
import sys
import time
import traceback

# Characters of what is said, at most.
MESSAGE, TRACEBACK = 2000, 20000


def attempt(handler):
    name, _, attribute = handler.rpartition(".")
    # Lambda takes what begins like a path for a module of a package that is not there.
    if not name or name.startswith((".", "/")):
        return {"outcome": "malformed"}
    if name in sys.builtin_module_names:
        return {"outcome": "built-in"}
    try:
        module = importlib.import_module(name.replace("/", "."))
    except BaseException as error:
        return failed(error)
    try:
        function = getattr(module, attribute)
    except AttributeError:
        return {"outcome": "no-attribute"}
    return {"outcome": "fine" if callable(function) else "not-callable"}


def failed(error):
    kind = "raised"
    if isinstance(error, ImportError):
        kind = "import-error"
    elif isinstance(error, SyntaxError):
        kind = "syntax-error"
    # A message may have many lines, and notes come after it; of a syntax error, the place comes before it.
    said = [part.strip().splitlines() for part in traceback.format_exception_only(type(error), error)]
    said = [lines for lines in said if lines]
    last = (said[-1][-1] if kind == "syntax-error" else said[0][0]) if said else type(error).__name__
    frames = below(error.__traceback__)
    error.__traceback__ = frames
    text = "".join(traceback.format_exception(type(error), error, frames)) if frames or kind == "syntax-error" else ""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return {
        "outcome": kind,
        "message": last[:MESSAGE],
        "traceback": in_lambda(text)[-TRACEBACK:],
        "missing": missing if isinstance(missing, str) else None,
        "variable": isinstance(error, KeyError) and is_of_environment(frames),
    }


def in_lambda(text):
    # Where nothing can be mounted, the code is somewhere else.
    root = os.environ.get("LAMBDA_TASK_ROOT")
    return text.replace(root + "/", "/var/task/") if root else text


def below(frames):
    # This program's own frame, and those of the machinery that it has called.
    while frames is not None:
        name = frames.tb_frame.f_code.co_filename
        if name != __file__ and not name.startswith("<frozen importlib") and name != importlib.__file__:
            break
        frames = frames.tb_next
    return frames


def is_of_environment(frames):
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return frames is not None and frames.tb_frame.f_globals is vars(os)


def main():
    handler, folder = sys.argv[1:]
    sys.argv = ["-c"]
    place = os.path.join(folder, "result.json")
    started = time.monotonic()
    result = attempt(handler)
    result["seconds"] = time.monotonic() - started
    with open(place + ".new", "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(result, file)
    os.rename(place + ".new", place)
    # Threads that were started and what is to be done at the end are not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


__file__ = "<string>"
main()
