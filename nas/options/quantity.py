"""Quantities as people write them: `400M` multiply-adds, `2GB`, `20ms`, `10min`."""

import re

from nas.study.metrics import Metric

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_NUMBER = r"(?P<digits>\d+(?:\.\d*)?|\.\d+)(?:E(?P<exponent>[+-]?\d{1,2}))?"
_PATTERN = re.compile(_NUMBER + r"(?P<unit>[KMGBT]?)", re.ASCII)
_LARGEST = 10**18
_COUNTED_UNITS = ("multiply-adds", "parameters")

_PREFIXES = "KMGT"
_BYTES_PATTERN = re.compile(
    _NUMBER + r"\s*(?:(?P<prefix>[KMGT])(?P<binary>I?)B|B)?", re.ASCII
)
_TIME_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_TIME_PATTERN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(us|ms|s)", re.ASCII)
_DURATION_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION_PATTERN = re.compile(r"(\d{1,9}(?:\.\d{0,9})?)(s|min|h)", re.ASCII)


def parse_flops(text: str) -> int:
    """Returns the number of multiply-adds that `text` stands for.

    >>> parse_flops("400M"), parse_flops("0.4B"), parse_flops("4e8")
    (400000000, 400000000, 400000000)

    Raises:
      ValueError: if it is not a positive number with an optional unit.
    """
    match = _PATTERN.fullmatch(text.strip().upper().replace("_", ""))
    if match is None:
        raise ValueError(
            "FLOPS must be a number of multiply-adds with an optional unit "
            f"K, M, G, B or T, got {text[:40]!r}; write 400M, 0.4B or 4e8"
        )
    return _whole(
        "FLOPS",
        text,
        match,
        scale=_UNITS[match["unit"]],
        remedy="write 400M for EfficientNet-B0's size",
    )


def format_flops(num_macs: float) -> str:
    """Returns `num_macs` in three digits and a unit.

    >>> format_flops(385_814_752), format_flops(37_745_884_192), format_flops(1e9)
    ('386M', '37.7B', '1B')
    """
    for unit, scale in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        # 999.5 of a unit would print as 1e+03: it belongs to the next one.
        if num_macs >= 0.9995 * scale:
            return f"{num_macs / scale:.3g}{unit}"
    return f"{num_macs:.0f}"


def format_metric(metric: Metric, value: float, error: float | None = None) -> str:
    """Returns a metric's value with its unit; with its name, where the unit is not it.

    With `error`, the standard error where it is known, in the same unit behind it.

    >>> from nas.study.metrics import ACCURACY, LATENCY_MS, NUM_MACS
    >>> format_metric(ACCURACY, 0.8717), format_metric(NUM_MACS, 246e6)
    ('accuracy 87.17%', '246M multiply-adds')
    >>> format_metric(LATENCY_MS, 12.34567)
    'latency_ms 12.35 ms'
    >>> format_metric(ACCURACY, 0.8717, 0.0123)
    'accuracy 87.17% ± 1.23'
    """
    shown = format_value(metric, value)
    if error:
        number = f"{100 * error:.2f}" if metric.unit == "share" else f"{error:.2g}"
        shown += f" \N{PLUS-MINUS SIGN} {number}"
    if metric.unit in _COUNTED_UNITS:
        return f"{shown} {metric.unit}"
    plain = metric.unit in ("", "share", "bytes")
    return f"{metric.name} {shown}" + ("" if plain else f" {metric.unit}")


def format_value(metric: Metric, value: float) -> str:
    """Returns a metric's value, without unit but for percent and bytes.

    >>> from nas.study.metrics import ACCURACY, NUM_MACS
    >>> format_value(ACCURACY, 0.8717), format_value(NUM_MACS, 246e6)
    ('87.17%', '246M')
    """
    match metric.unit:
        case "share":
            return f"{value:.2%}"
        case "bytes":
            return format_bytes(value)
        case unit if unit in _COUNTED_UNITS:
            return format_flops(value)
        case _:
            return f"{value:.4g}"


def parse_bytes(text: str) -> int:
    """Returns the number of bytes that `text` stands for; KB is 1000, KiB 1024.

    >>> parse_bytes("2GB"), parse_bytes("512 MiB"), parse_bytes("1.5e9")
    (2000000000, 536870912, 1500000000)

    Raises:
      ValueError: if it is not a positive number with an optional unit.
    """
    match = _BYTES_PATTERN.fullmatch(text.strip().upper().replace("_", ""))
    if match is None:
        raise ValueError(
            "memory must be a number of bytes with an optional unit KB, MB, GB, TB, "
            f"KiB, MiB, GiB or TiB, got {text[:40]!r}; write 2GB, 512MiB or 2e9"
        )
    base = 1024 if match["binary"] else 1000
    power = _PREFIXES.index(match["prefix"]) + 1 if match["prefix"] else 0
    return _whole("memory in bytes", text, match, scale=base**power, remedy="write 2GB")


def _whole(
    what: str, text: str, match: re.Match[str], *, scale: int, remedy: str
) -> int:
    """Returns the count that `text` stands for, whose pattern gave `match`."""
    digits = match["digits"]
    if len(digits) > 40:  # noqa: PLR2004  (keeps float() cheap and finite)
        raise ValueError(f"{what} must have at most 40 digits, got {len(digits)}")
    value = round(float(digits) * 10.0 ** int(match["exponent"] or 0) * scale)
    if not 1 <= value <= _LARGEST:
        raise ValueError(
            f"{what} must be between 1 and 1e18, got {text[:40]!r}; {remedy}"
        )
    return value


def format_bytes(num_bytes: float) -> str:
    """Returns `num_bytes` in three digits and a decimal unit.

    >>> format_bytes(2e9), format_bytes(21_154_192), format_bytes(12)
    ('2 GB', '21.2 MB', '12 B')
    """
    for power in range(len(_PREFIXES), 0, -1):
        # 999.5 of a unit would print as 1e+03: it belongs to the next one.
        if num_bytes >= 0.9995 * 1000**power:
            return f"{num_bytes / 1000**power:.3g} {_PREFIXES[power - 1]}B"
    return f"{num_bytes:.0f} B"


def parse_milliseconds(text: str) -> float:
    """Returns the milliseconds that `text` stands for.

    >>> parse_milliseconds("20ms"), parse_milliseconds("0.5 s")
    (20.0, 500.0)

    Raises:
      ValueError: if it is not a positive number with a unit.
    """
    match = _TIME_PATTERN.fullmatch(text.strip().lower().replace(" ", ""))
    value = float(match[1]) * _TIME_UNITS[match[2]] if match else 0.0
    if not 0 < value < float("inf"):
        raise ValueError(
            "a latency must be a positive number with a unit us, ms or s, got"
            f" {text[:40]!r}; write 20ms"
        )
    return value


def parse_duration(text: str) -> float:
    """Returns the seconds that `text` stands for.

    >>> parse_duration("90s"), parse_duration("10min"), parse_duration("1.5 h")
    (90.0, 600.0, 5400.0)

    Raises:
      ValueError: if it is not a positive number with a unit.
    """
    match = _DURATION_PATTERN.fullmatch(text.strip().lower().replace(" ", ""))
    seconds = float(match[1]) * _DURATION_UNITS[match[2]] if match else 0.0
    if seconds <= 0.0:
        raise ValueError(
            "a duration must be a positive number with a unit s, min or h, got "
            f"{text[:40]!r}; write 90s, 10min or 2h"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Returns `seconds` in the largest unit of which there is one at least.

    >>> format_duration(90), format_duration(45), format_duration(7200)
    ('1.5min', '45s', '2h')
    """
    for unit, scale in (("h", 3600.0), ("min", 60.0)):
        if seconds >= scale:
            return f"{seconds / scale:.4g}{unit}"
    return f"{seconds:.4g}s"


def parse_part(flag: str, text: str) -> tuple[int, int]:
    """Returns which part, from 0, and of how many.

    >>> parse_part("--part", "2/5")
    (1, 5)

    Raises:
      ValueError: if it is not K/N with K from 1 to N.
    """
    numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    this, parts = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= this <= parts:
        raise ValueError(f"{flag} must be K/N with K from 1 to N, got {text[:80]!r}")
    return this - 1, parts
