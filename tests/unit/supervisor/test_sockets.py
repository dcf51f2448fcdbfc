from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from harness import has_ipv6

from appserver.config.plan import Listener, listener_url
from appserver.errors import StartError
from appserver.supervisor.sockets import Listeners, _sentence, open_listener


def listener(host: str, port: int = 0) -> Listener:
    return Listener(f"{host}:{port}", host, port, listener_url(host, port))


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close()


def test_open(listeners: Listeners) -> None:
    assert listeners.open([listener("127.0.0.1")]) == ["127.0.0.1:0"]
    (fd,) = listeners.fds().values()
    with socket.socket(fileno=os.dup(fd)) as sock:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        port = sock.getsockname()[1]
    assert listeners.urls() == [f"http://127.0.0.1:{port}"]
    socket.create_connection(("127.0.0.1", port)).close()


def test_same_socket_over_a_reload(listeners: Listeners) -> None:
    listeners.open([listener("127.0.0.1")])
    before = listeners.fds()
    assert listeners.open([listener("127.0.0.1"), listener("127.0.0.2")]) == ["127.0.0.2:0"]
    assert listeners.fds(["127.0.0.1:0"]) == before
    assert listeners.ids() == ["127.0.0.1:0", "127.0.0.2:0"]
    listeners.close(["127.0.0.1:0"])
    assert listeners.ids() == ["127.0.0.2:0"]
    assert len(listeners.urls()) == 1


@pytest.mark.parametrize("at_once", [True, False], ids=["start", "reload"])
def test_an_address_that_our_own_covers(listeners: Listeners, at_once: bool) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    everywhere, here = listener("0.0.0.0", port), listener("127.0.0.1", port)
    if not at_once:
        listeners.open([everywhere])
    with pytest.raises(StartError) as caught:
        listeners.open([everywhere, here] if at_once else [here])
    assert f"cannot listen on 127.0.0.1:{port}: this server itself listens on 0.0.0.0:{port}" in str(caught.value)
    assert listeners.ids() == ([] if at_once else [f"0.0.0.0:{port}"])


def test_all_or_none(listeners: Listeners) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            listeners.open([listener("127.0.0.2"), listener("127.0.0.1", port)])
        assert f"port {port} is in use by another program" in str(caught.value)
        assert listeners.ids() == []
        assert listeners.urls() == []


def test_port_is_free_again_at_once(listeners: Listeners) -> None:
    listeners.open([listener("127.0.0.1")])
    port = int(listeners.urls()[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        listeners.close()
        with closing(open_listener(listener("127.0.0.1", port))) as again:
            assert again.getsockname()[1] == port


@needs_ipv6
def test_both_families_on_one_port(listeners: Listeners) -> None:
    with closing(open_listener(listener("0.0.0.0"))) as first:
        port = first.getsockname()[1]
    wanted = [listener("0.0.0.0", port), listener("::", port)]
    assert len(listeners.open(wanted)) == 2
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port)).close()


@needs_ipv6
def test_ipv6_alone_takes_both() -> None:
    with closing(open_listener(listener("::"))) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0


def test_unknown_name() -> None:
    with pytest.raises(StartError, match=r"the name 'no\.such\.host\.invalid' is not known"):
        open_listener(listener("no.such.host.invalid"))


def test_address_of_another_machine() -> None:
    with pytest.raises(StartError, match=r"has no address 192\.0\.2\.1"):
        open_listener(listener("192.0.2.1"))


@pytest.mark.parametrize(
    ("number", "port", "advice"),
    [
        (errno.EADDRINUSE, 80, "choose another port with --listen"),
        (errno.EACCES, 80, "choose a port from 1024 up"),
        (errno.EACCES, 8080, "a security policy"),
        (errno.EPERM, 80, "a security policy"),
        (errno.EAFNOSUPPORT, 80, "no IPv6"),
        (errno.ENOBUFS, 80, os.strerror(errno.ENOBUFS)),
    ],
)
def test_sentences(number: int, port: int, advice: str) -> None:
    text = _sentence(listener("0.0.0.0", port), OSError(number, os.strerror(number)))
    assert text.startswith(f"cannot listen on 0.0.0.0:{port}: ")
    assert advice in text
    assert "\n" not in text
