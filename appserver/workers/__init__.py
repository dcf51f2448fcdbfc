"""What runs inside a Python worker process. Standard library only, Python 3.9 or newer.

A pool may run under any interpreter, so nothing here imports the rest of `appserver`, and everything imports its
neighbours relatively: `main.py` loads this folder under a private name, where no module of a user can clash with it.

Reading order: `wire` (frames), `interpreter` (how they differ), `executor` (threads that take requests), `watchdog`
(stacks, interrupts), `forks` (children of handlers), `exchange` (one request's way back), `heads` (header validation),
`wsgi`, `interface` (WSGI or ASGI), `script` and `packages` (loading), `request`, `values` and `multipart` (handler
scripts), `control`, `growth` (of memory), `worker` (start and stop). For the event loop: `aexecutor`, `asynchronous`,
`aserver`, `asgi`, `scope`, `astreams`, `lifespan`, `tasks`, `ahandle`.
"""
