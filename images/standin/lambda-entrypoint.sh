#!/bin/sh
# Takes the handler's name and starts the runtime. The stand-in has no emulator of the Runtime API,
# so that one has to be there already.
if [ "$#" -ne 1 ]; then
  echo "the one argument is the name of the handler, such as app.handler" >&2
  exit 142
fi
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then
  echo "AWS_LAMBDA_RUNTIME_API is not set, and this stand-in image has no emulator" >&2
  exit 143
fi
export _HANDLER="$1"
exec /var/runtime/bootstrap
