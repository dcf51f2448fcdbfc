"""The server inside another Python program (docs/embedding.md): `from appserver import Server`.

The core runs as threads of this process and the program's own callables in others; both speak the executor protocol
over the same sockets as a supervised pool does, and there is no other process. In reading order:

server          the class that programs use
configuration   what it was told, as the model that the rest of the server works with
runtime         one run: sockets, core, executor, the thread between them
forked          what becomes of it in a process that the program forks
"""

import sys

from appserver.embedded.server import Server
from appserver.workers import request
from appserver.workers.request import BadInput, Disconnected, RequestTimeout, Response, TooLarge

#: Handlers that are scripts elsewhere find it here as well.
sys.modules.setdefault("appserver_handler", request)

__all__ = ["BadInput", "Disconnected", "RequestTimeout", "Response", "Server", "TooLarge"]
