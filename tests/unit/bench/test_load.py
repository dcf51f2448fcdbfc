"""What wrk prints, and what of it must not become a figure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))
from load import BenchError, parse_wrk

GOOD = """\
Running 1s test @ http://127.0.0.1:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   532.10us  310.00us   9.12ms   95.1%
    Req/Sec   115.90k     5.20k  121.30k    80.00%
  Latency Distribution
     50%  502.00us
     75%  610.00us
     90%  700.00us
     99%    1.66ms
  115884 requests in 1.50s, 141.20MB read
Requests/sec:  77256.00
Transfer/sec:    141.20MB
"""


def with_line(line: str) -> str:
    return GOOD.replace("Requests/sec:", f"  {line}\nRequests/sec:")


def test_the_figures():
    outcome = parse_wrk(GOOD)
    assert (outcome.requests, outcome.seconds) == (115884, 1.5)
    assert outcome.requests_per_s == pytest.approx(77256)
    assert (outcome.p50_s, outcome.p99_s) == pytest.approx((0.000502, 0.00166))


@pytest.mark.parametrize(
    "line, said",
    [
        ("Non-2xx or 3xx responses: 7", "7 requests were not answered"),
        ("Socket errors: connect 1, read 0, write 0, timeout 0", "connect 1"),
        ("Socket errors: connect 0, read 0, write 2, timeout 0", "write 2"),
        ("Socket errors: connect 0, read 0, write 0, timeout 3", "timeout 3"),
    ],
)
def test_errors_end_the_case(line, said):
    with pytest.raises(BenchError, match=said):
        parse_wrk(with_line(line))


def test_a_close_with_the_end_of_a_response_is_no_error():
    assert parse_wrk(with_line("Socket errors: connect 0, read 40, write 0, timeout 0")).requests == 115884


def test_no_request_is_no_figure():
    with pytest.raises(BenchError, match="no request"):
        parse_wrk(GOOD.replace("115884 requests", "0 requests"))
