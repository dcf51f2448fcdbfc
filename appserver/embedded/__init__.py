"""The server inside another Python program (docs/embedding.md): `from appserver import Server`.

The core runs as threads of this process and the program's own callables in others; both speak the executor protocol
over the same sockets as a supervised pool does, and there is no other process. In reading order:

server          the class that programs use
configuration   what it was told, as the model that the rest of the server works with
runtime         one run: sockets, core, executor, the thread between them
forked          what becomes of it in a process that the program forks
"""

from appserver.embedded.server import Server

__all__ = ["Server"]
