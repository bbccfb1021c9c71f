"""Imports a handler as Lambda's runtime does, and writes what came of it to a file, as JSON.

    python3 -c THIS HANDLER FILE SECONDS

What is written is {"what": WORD, "text": TEXT}: "imported", "builtin", "missing", "no-function", "import" for an exception
that says that something cannot be imported, or "raised" for any other. TEXT is the traceback from the handler's module on.
"""

import importlib
import json
import signal
import sys
import traceback


def imported(handler):
    name, _, function = handler.rpartition(".")
    if name.split(".")[0] in sys.builtin_module_names:
        return "builtin", name
    try:
        module = importlib.import_module(name.replace("/", "."))
    except BaseException as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != "<string>" and not frame.filename.startswith("<frozen ") and "/importlib/" not in frame.filename
        ]
        lines = traceback.format_list(frames) + traceback.format_exception_only(type(error), error)
        # What is raised by an import that is not there, is not what raises of itself.
        word = "import" if isinstance(error, (ImportError, SyntaxError)) else "raised"
        return word, "".join(lines)
    if not hasattr(module, function):
        return "missing", function
    if not callable(getattr(module, function)):
        return "no-function", function
    return "imported", ""


handler, out, seconds = sys.argv[1:4]
sys.argv[1:] = []
# What waits for a network that is not there is ended from outside.
signal.alarm(int(seconds))
what, text = imported(handler)
signal.alarm(0)
with open(out, "w", encoding="utf-8", errors="backslashreplace") as file:
    json.dump({"what": what, "text": text[-20000:]}, file)
