"""How a command reaches a server that runs: the control socket, seen from both ends.

The server's end is `appserver.supervisor.control_server`.
"""
