"""The spawner process: `python -m appserver.native.spawner_main CONTROL_FD`. It starts CGI programs for the core.

The spawner itself is C and runs in a thread of its own without the interpreter's lock; the main thread talks to the
supervisor.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import appserver
from appserver.native.control import Channel, ControlError, Message
from appserver.native.process import raise_descriptor_limit
from appserver.native.report import log_fields, pull_events
from appserver.native.server import CoreError, clear_event_fd, make_event_fd
from appserver.native.snapshot import environment_block, text_list

from appserver.native._core import ffi, lib  # isort: skip

EXIT_BROKEN = 70  #: the core or the supervisor does not keep to the protocol
EXIT_NO_BOOT = 3


class Spawner:
    """An as_spawner that runs in a thread. Raises OSError when it cannot be made."""

    def __init__(self, message: Message, event_fd: int, descriptors: int) -> None:
        self._fds = message.fds
        self.result = 0
        self._handle = ffi.gc(_new_spawner(message, event_fd, descriptors), lib.as_spawner_free)
        #: readable once the thread is about to end
        self.ended_fd = make_event_fd()
        self._thread = threading.Thread(target=self._run, name="spawner")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = int(lib.as_spawner_run(self._handle))
        finally:
            os.eventfd_write(self.ended_fd, 1)

    def stop(self, now: bool = False) -> None:
        """Lets the running programs finish, or with `now` kills them."""
        lib.as_spawner_stop(self._handle)
        if now:
            lib.as_spawner_stop(self._handle)

    def forward_events(self, channel: Channel) -> None:
        for event in pull_events(lambda record: int(lib.as_spawner_next_event(self._handle, record))):
            channel.send("log", **log_fields(event, None))

    def join(self) -> int:
        """Waits for the thread; 0 or a negative as_err."""
        self._thread.join()
        return self.result


def _new_spawner(message: Message, event_fd: int, descriptors: int) -> Any:
    configuration = message.fields["configuration"]
    loops = message.number("loops", 1)
    answers = ffi.new("int[]", [message.fds[f"answer:{loop}"] for loop in range(loops)])
    environment = ffi.new("char[]", environment_block(configuration["environment"]) + b"\0")
    interpreters = ffi.new("char[]", _pairs(configuration["interpreters"]))
    usual = ffi.new("char[]", _pairs(configuration["usual_interpreters"]))
    roots = ffi.new("char[]", text_list((configuration["identity"] or {}).get("directories", ())))
    zygotes = [_zygote(configuration["warm"], name) for name in ("zygote.py", "zygote.pl")]
    options = ffi.new(
        "as_spawner_options *",
        {
            "queue_fd": message.fds["queue"],
            "answer_fds": answers,
            "loops": loops,
            "slots_fd": message.fds["slots"],
            "executor": message.number("executor"),
            "max_programs": configuration["programs"],
            "kill_grace_ms": configuration["kill_grace_ms"],
            "request_time_ms": configuration["request_time_ms"],
            "program_descriptors": descriptors,
            "environment": environment,
            "interpreters": interpreters,
            "usual_interpreters": usual,
            "python_zygote": zygotes[0],
            "perl_zygote": zygotes[1],
            "verifies_warm": configuration["warm"] == "verify",
            "limits": configuration["limits"],
            "identity": _identity_rules(configuration["identity"], roots),
            "finishes": configuration["on_disconnect"] == "finish",
            "leaves_daemons": configuration["daemons"] == "leave",
            "event_fd": event_fd,
        },
    )
    handle = lib.as_spawner_new(options)
    if handle == ffi.NULL:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return handle


def _identity_rules(identity: dict[str, Any] | None, roots: Any) -> dict[str, Any]:
    """As whom programs run: as this process, whoever that is by now, or each as its owner."""
    if identity is None:
        return {"roots": roots}
    return {
        "is_owner": identity["who"] is None,
        "checks_owner": identity["check_owner"],
        "min_uid": identity["min_uid"],
        "min_gid": identity["min_gid"],
        "roots": roots,
    }


def become(identity: dict[str, Any] | None) -> None:
    """Makes this process the user that programs run as, for good. Raises OSError."""
    who = None if identity is None else identity["who"]
    if who is not None:
        os.setgroups(who["groups"])
        os.setresgid(who["gid"], who["gid"], who["gid"])
        os.setresuid(who["uid"], who["uid"], who["uid"])


def _zygote(warm: str, name: str) -> Any:
    """The file that makes an interpreter wait for programs; NULL when there is none, or it is not wanted."""
    path = Path(appserver.__file__).resolve().parent / "workers" / name
    return ffi.NULL if warm == "off" or not path.exists() else ffi.new("char[]", os.fsencode(path))


def _pairs(values: dict[str, str]) -> bytes:
    return text_list(c for pair in values.items() for c in pair)


def serve(channel: Channel, descriptors: int) -> int:
    """Until the supervisor says stop or goes away; the result is the exit status.

    `descriptors` is the soft limit that programs get.
    """
    message = channel.receive()
    if message is None:
        return 0
    if message.type != "start":
        raise ControlError(f"the spawner expected the control message 'start' and got '{message.type}'")
    event_fd = make_event_fd()
    try:
        become(message.fields["configuration"]["identity"])
        spawner = Spawner(message, event_fd, descriptors)
    except (OSError, CoreError, KeyError) as error:
        channel.send("failed", reason=f"the CGI spawner cannot start: {error}")
        return EXIT_NO_BOOT
    try:
        channel.send("ready")
        _forward(channel, spawner, event_fd)
        result = spawner.join()
        spawner.forward_events(channel)
    except OSError:
        # The supervisor is gone: nobody would end these programs after us.
        spawner.stop(now=True)
        spawner.join()
        return 0
    if result < 0:
        channel.send("log", level="error", event=f"the CGI spawner ends: {_sentence(result)}")
        return EXIT_BROKEN
    return 0


def _forward(channel: Channel, spawner: Spawner, event_fd: int) -> None:
    """Until the spawner's thread ends. Raises OSError when the supervisor is gone."""
    poller = select.poll()
    for fd in (channel.fileno(), event_fd, spawner.ended_fd):
        poller.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        if event_fd in ready:
            clear_event_fd(event_fd)
            spawner.forward_events(channel)
        if channel.fileno() in ready:
            order = channel.receive()
            if order is None:
                raise BrokenPipeError
            if order.type == "stop":
                spawner.stop()
        if spawner.ended_fd in ready:
            return


def _sentence(code: int) -> str:
    text: bytes = ffi.string(lib.as_err_sentence(code))
    return text.decode()


def main(arguments: list[str]) -> int:
    """`arguments`: the number of the control descriptor."""
    faulthandler.enable()
    # Programs that end are noticed by their pidfds; the signal would wake this thread for nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = max(soft, 0)  # infinity is -1 and is already what can be had
    raise_descriptor_limit()
    channel = Channel.from_fd(int(arguments[0]))
    try:
        return serve(channel, descriptors)
    except ControlError as error:
        print(error, file=sys.stderr)
        return EXIT_BROKEN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
