"""Quantities with a unit, as they are typed."""

from collections.abc import Callable

import pytest

from pplr_audit.cli.units import bandwidth, duration, memory
from pplr_audit.errors import InputError


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("20Mbit", 2e7), ("1Gbit", 1e9), ("100kbit/s", 1e5), ("2.5MB/s", 2e7), ("20 mbit", 2e7), ("5Mbps", 5e6),
        ("1B/s", 8), ("9bit", 9), (".5Gbit/s", 5e8),
    ],
)  # fmt: skip
def test_a_bandwidth_is_read_in_bits_a_second(text: str, bits: float) -> None:
    assert bandwidth(text, "--link") == bits


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * 10**9), ("512MiB", 2**29), ("1.5 TB", 15 * 10**11)])
def test_a_memory_is_read_in_bytes(text: str, size: int) -> None:
    assert memory(text, "--client-memory") == size


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("0ms", 0), ("0.5s", 0.5), ("150us", 0.00015)])
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert duration(text, "--rtt") == seconds


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (bandwidth, (f"{'9' * 400}kbit", f"{'9' * 300}kbit", f"0.{'0' * 310}1kbit", f"0.{'0' * 330}1kbit")),
        (memory, (f"{'9' * 306}GB", f"{'9' * 400}GB")),
        (duration, (f"{'9' * 306}s", f"{'9' * 400}ms")),
        (bandwidth, ("", "20", "20Mb", "fast", "-1Mbit", "0Mbit", "nanMbit", "infGbit", "1Xbit", "1e3Mbit", "20MBit")),
        (memory, ("", "8", "8G", "8Gb", "0GB", "-8GB", "GB", "8GiBs", "8 gigabytes", "1e9B", "0.4B")),
        (duration, ("", "20", "-5ms", "5min", "soon", "nan s")),
    ],
)
def test_anything_else_is_refused_in_one_line_with_what_is_accepted(
    read: Callable[[str, str], float], texts: tuple[str, ...]
) -> None:
    for text in texts:
        with pytest.raises(InputError, match=r"^--x: .* is not understood \(accepted: .*\)$"):
            read(text, "--x")
