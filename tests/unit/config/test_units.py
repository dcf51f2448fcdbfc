"""Sizes and times."""

from __future__ import annotations

import pytest

from appserver.config.units import UnfitError, format_size, format_time, nearest, parse_size, parse_time_ms


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1B", 1), ("64KB", 64_000), ("64MiB", 64 * 1024**2), ("2 GiB", 2 * 1024**3)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "meant"),
    [("64Mib", "64MiB"), ("64k", "64KiB"), ("64m", "64MiB"), ("64kb", "64KB"), ("-1", ""), ("", ""), ("1.5GiB", "")],
)
def test_what_is_no_size_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(UnfitError) as caught:
        parse_size(text)
    assert caught.value.nearest == meant
    assert "64KiB" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "time_ms"), [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("0", 0)]
)
def test_times(text: str, time_ms: int) -> None:
    assert parse_time_ms(text) == time_ms


@pytest.mark.parametrize(
    ("text", "meant"), [("30", "30s"), ("30sec", "30s"), ("5min", "5m"), ("5S", "5s"), ("soon", ""), ("٣s", "")]
)
def test_what_is_no_time_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(UnfitError) as caught:
        parse_time_ms(text)
    assert caught.value.nearest == meant
    assert "unit" in caught.value.expected


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 16 * 1024, 3 * 1024**2, 1024**4])
def test_a_formatted_size_reads_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("time_ms", [0, 1, 999, 1000, 60_000, 90_000, 300_000, 3_600_000, 86_400_000])
def test_a_formatted_time_reads_as_itself(time_ms: int) -> None:
    assert parse_time_ms(format_time(time_ms)) == time_ms


def test_nearest_ignores_case_and_gives_up_on_strangers() -> None:
    assert nearest("Handlers", ["handler", "match"]) == "handler"
    assert nearest("zebra", ["handler", "match"]) == ""
