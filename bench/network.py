"""A network of the benchmark's own: a namespace with nothing but loopback.

One connection per request leaves a socket in TIME_WAIT for a minute each. Tens of thousands a second fill the machine's
table, which disturbs the rounds that follow and everybody else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import sys
from pathlib import Path

MARK = "CHEROKEE_BENCH_NAMESPACE"
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
#: Beyond so many, sockets in TIME_WAIT are dropped at once; the kernel's own answer to a full table.
TIME_WAIT_SOCKETS = 8192
#: BBR, the default of some systems, paces what each socket sends by timers, which on loopback measures the timers:
#: large files came at half the speed, and rounds differed by 50 %. Reno is there always.
CONGESTION_CONTROL = "reno"


def enter_own_network() -> None:
    """Starts this program anew in a network namespace, when it runs as root and there is `unshare`; else says so."""
    if os.environ.get(MARK):
        _bring_up_loopback()
        settings = Path("/proc/sys/net/ipv4")
        (settings / "tcp_max_tw_buckets").write_text(str(TIME_WAIT_SOCKETS))
        (settings / "tcp_congestion_control").write_text(CONGESTION_CONTROL)
        return
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        print("the machine's own network is used (a namespace needs root and unshare): closing runs disturb each other")
        return
    os.environ[MARK] = "1"
    os.execv(unshare, [unshare, "--net", sys.executable, *sys.argv])


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
