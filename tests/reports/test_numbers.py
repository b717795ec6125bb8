from __future__ import annotations

import pytest

from lib_toolkit.reports.numbers import counted, human_bytes, human_count, human_time
from lib_toolkit.reports.plain import printable


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.00 kB"), (2_132_626_066, "2.13 GB"),
     (7_703_807_346, "7.70 GB"), (46_500_000_000, "46.5 GB"), (999_600, "1.00 MB"), (1_200_000_000_000, "1,200 GB")],
)  # fmt: skip
def test_sizes(count, text):
    assert human_bytes(count) == text


def test_counts_and_times():
    assert [human_count(n) for n in (0, 999, 859_520_964, 2_567_463_684)] == ["0", "999", "859.5M", "2.6B"]
    assert [counted(n, "tensor") for n in (0, 1, 1131)] == ["0 tensors", "1 tensor", "1,131 tensors"]
    assert [human_time(s) for s in (0.2, 12.4, 89, 100, 5400)] == ["0 s", "12 s", "89 s", "2 min", "1 h 30 min"]


def test_text_from_files_is_made_visible():
    assert printable("plain ü 漢 🙂") == "plain ü 漢 🙂"
    assert printable("a\x1b[0m\n\u202e\ud800") == "a\\x1b[0m\\x0a\\u202e\\ud800"
    assert printable("x" * 3000, 10) == "x" * 10 + "…"
