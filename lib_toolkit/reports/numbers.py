"""Sizes, counts and times as people read them."""

from __future__ import annotations

from lib_toolkit.counting import counted

__all__ = ["counted", "human_bytes", "human_count", "human_time"]


def human_bytes(count: int) -> str:
    """Decimal units, as disks and download pages use them: 2.13 GB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    if unit == "bytes":
        return counted(count, "byte")
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def human_count(count: int) -> str:
    """Parameters: 859.5M."""
    if count < 1000:
        return str(count)
    value = float(count)
    for unit in ("k", "M", "B"):
        value /= 1000
        if value < 999.5 or unit == "B":
            break
    return f"{value:.1f}{unit}"


def human_time(seconds: float) -> str:
    """Rounded to what matters: 12 s, 3 min, 1 h 20 min."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
