"""Lets what a build starts see the environment of the build, and not what the image has."""

import os
import site
import sys

system = {os.path.normcase(path) for path in site.getsitepackages()}
sys.path = [path for path in sys.path if os.path.normcase(path) not in system]
site.addsitedir(os.environ["LBX_BUILD_ENVIRONMENT"])
