"""Parses the command line that it is sent."""

import docopt

USAGE = "usage: app [--loud] NAME"


def handler(event, context):
    arguments = docopt.docopt(USAGE, argv=event.get("argv", ["world"]))
    greeting = f"hello, {arguments['NAME']}"
    return greeting.upper() if arguments["--loud"] else greeting
