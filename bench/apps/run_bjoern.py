"""Runs `wsgi_app` or `flask_app` in bjoern, which has no command of its own: run_bjoern.py PORT MODULE PROCESSES."""

import importlib
import os
import signal
import sys

import bjoern

port, module, processes = sys.argv[1:]
bjoern.listen(importlib.import_module(module).application, "127.0.0.1", int(port))
children = []
for _ in range(int(processes) - 1):
    pid = os.fork()
    if pid == 0:
        children = []
        break
    children.append(pid)
try:
    bjoern.run()
except KeyboardInterrupt:
    pass
finally:
    for child in children:
        os.kill(child, signal.SIGTERM)
