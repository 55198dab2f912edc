"""Text in cells: how wide it is, what of it may be shown, cut, filled up, put into Lines.

Invariant of the last tests: whatever the text, what is shown of it is printable, in ASCII where it
has to be, and never wider than it is said to be.
"""
import random
import re
import unicodedata

import pytest

from console_answers import HOSTILE
from modwsgi_tel.console.cells import (ASCII, LINUX, STYLES, UNICODE, Span, apart, cell_width, clip, fit, line,
                                       line_width, pad, plain, restyled, safe, width)

ALL = (UNICODE, ASCII, LINUX)
WIDE = "漢字"
CAFE = "cafe\u0301"                     # the accent is a character of its own


# --- glyphs --------------------------------------------------------------------------------------

@pytest.mark.parametrize("glyphs", ALL, ids=("unicode", "ascii", "linux"))
def test_every_glyph_takes_one_cell(glyphs):
    utf8, *drawn = glyphs
    assert all(unicodedata.east_asian_width(char) not in "WF" and width(char) == 1 for text in drawn for char in text)
    assert all(len(text) == 1 for text in drawn if text not in (glyphs.spark, glyphs.shades))
    assert (len(glyphs.spark), len(glyphs.shades)) == (8, 5)


def test_only_the_unicode_set_draws_with_more_than_ascii():
    assert ["".join(glyphs[1:]).isascii() for glyphs in ALL] == [False, True, True]
    assert [glyphs.utf8 for glyphs in ALL] == [True, False, True]


# --- width ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, cells", [
    ("", 0), ("abc", 3), ("é", 1), (CAFE, 4), (WIDE, 4), ("ＡＢ", 4), ("ｱ", 1), ("🦄", 2), ("👍", 2), ("…│▁█", 4),
    ("한국", 4), ("\u1112\u1161\u11ab", 2), ("a\u20dd", 1), ("שלום", 4), ("\u0e01\u0e33", 2), ("\u0e01\u0e34", 1),
    ("\u1100\ud7b0", 2), ("\u1b13\u1b44", 2), ("a\u302e", 3), ("\u4dc0", 2), ("\u3248", 2)])
def test_width_counts_cells_not_characters(text, cells):
    assert width(text) == cells
    assert sum(cell_width(char) for char in text) == cells


def test_latin_is_one_cell_each_without_a_look_at_the_tables():
    assert {cell_width(chr(code)) for code in range(0x20, 0x300)} == {1}


# --- what may be shown ---------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "", "GET /shop?id=1&x=%20", "naïve/Ünïcode ☃", WIDE, CAFE, "🦄", "שלום", "a\u0301\u0302b"])
def test_text_of_letters_is_shown_as_it_is(text):
    assert safe(text, UNICODE) == safe(text, LINUX) == text


@pytest.mark.parametrize("text, shown", [
    ("a\x00b", r"a\x00b"), ("\x1b[2J", r"\x1b[2J"), ("\x7f", r"\x7f"), ("\x9b31m", r"\x9b31m"), ("\x85", r"\x85"),
    ("a\nb\r\nc\td", r"a\nb\r\nc\td"), ("\u2028\u2029", r"\u2028\u2029"),
    ("\u202egnp.exe", r"\u202egnp.exe"), ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    ("\u2066x\u2069", r"\u2066x\u2069"), ("\u200b\ufeff\u00ad\u2060", r"\u200b\ufeff\xad\u2060"),
    ("\u200d", r"\u200d"), ("👨\u200d👩", "👨\\u200d👩"),
    ("❤\ufe0f", r"❤\ufe0f"), ("x\U000e0100", r"x\U000e0100"), ("\U000e0041", r"\U000e0041"),
    ("\ud800", r"\ud800"), ("\udcff", r"\udcff"), ("\ue000", r"\ue000"), ("\uffff", r"\uffff"), ("\u00a0", r"\xa0"),
    ("\u0301first", r"\u0301first"), ("e" + "\u0301" * 4, "e\u0301\u0301\\u0301\\u0301")])
def test_what_a_terminal_could_take_for_more_than_a_letter_is_escaped(text, shown):
    assert safe(text, UNICODE) == shown


def test_without_utf_8_all_but_ascii_is_escaped():
    assert safe("naïve ☃ 🦄", ASCII) == r"na\xefve \u2603 \U0001f984"
    assert safe(CAFE, ASCII) == r"cafe\u0301"


def test_what_is_safe_stays_as_it_is():
    for text in HOSTILE:
        for glyphs in ALL:
            shown = safe(text, glyphs)
            assert safe(shown, glyphs) == shown


# --- cut and filled up ---------------------------------------------------------------------------

@pytest.mark.parametrize("text, cols, shown", [
    ("abc", 3, "abc"), ("abcd", 3, "ab…"), ("abc", 1, "…"), ("abc", 0, ""), ("abc", -2, ""), ("", 0, ""), ("", -1, ""),
    (WIDE, 4, WIDE), (WIDE, 3, "漢…"), (WIDE, 2, "…"), (WIDE, 1, "…"), ("a漢b", 3, "a…"),
    (CAFE, 4, CAFE), (CAFE + "s", 4, "caf…"), (CAFE + "st", 5, CAFE + "…"), ("ab\u0301cd", 3, "ab\u0301…")])
def test_what_is_cut_ends_with_a_mark_and_never_halves_a_letter(text, cols, shown):
    assert clip(text, cols, UNICODE) == shown


def test_in_ascii_the_mark_is_ascii():
    assert clip("abcd", 3, ASCII) == "ab~"


@pytest.mark.parametrize("text, cols, left, right", [
    ("ab", 4, "ab  ", "  ab"), ("abcde", 4, "abc…", "abc…"), ("", 2, "  ", "  "), ("ab", 0, "", ""), ("", -3, "", ""),
    ("漢", 3, "漢 ", " 漢"), (WIDE, 3, "漢…", "漢…"), ("漢字x", 4, "漢…", "漢…"), (CAFE, 5, CAFE + " ", " " + CAFE)])
def test_filled_up_text_takes_all_of_its_cells(text, cols, left, right):
    shown = pad(text, cols, UNICODE), pad(text, cols, UNICODE, right=True)
    assert [each.strip() for each in shown] == [left.strip(), right.strip()]
    assert [width(each) for each in shown] == [max(0, cols)] * 2
    if width(left) == cols:
        assert shown == (left, right)


# --- Lines ---------------------------------------------------------------------------------------

def test_a_line_is_made_of_texts_and_spans_and_has_no_empty_ones():
    assert line("a", Span("", "bad"), "", Span("b", "good"), Span("c")) == (
        Span("a", ""), Span("b", "good"), Span("c", ""))
    assert (line(), line(""), line_width(line())) == ((), (), 0)
    assert line_width(line("ab", Span(WIDE))) == 6


RED = (Span("ab", "bad"), Span("cd", "good"))


@pytest.mark.parametrize("spans, cols, shown", [
    (RED, 5, RED), (RED, 4, RED), (RED, 3, (Span("ab", "bad"), Span("…", "good"))), (RED, 2, (Span("a…", "bad"),)),
    (RED, 1, (Span("…", "bad"),)), (RED, 0, ()), (RED, -4, ()), ((), 0, ()), ((), -1, ()),
    ((Span(WIDE),), 3, (Span("漢…"),)), ((Span("a"), Span(WIDE)), 2, (Span("a"), Span("…")))])
def test_a_line_is_cut_where_its_cells_end(spans, cols, shown):
    assert fit(spans, cols, UNICODE) == shown


@pytest.mark.parametrize("cols, shown", [
    (9, "left    R"), (6, "left R"), (5, "le… R"), (3, "… R"), (2, "l…"), (1, "…"), (0, "")])
def test_of_two_ends_the_left_one_is_cut(cols, shown):
    assert "".join(span.text for span in apart(line("left"), line("R"), cols, UNICODE)) == shown


def test_two_ends_with_nothing_in_one_of_them():
    assert apart((), line("R"), 4, UNICODE) == (Span("   "), Span("R"))
    assert plain([apart(line("left"), (), 6, UNICODE)]) == "left\n"


def test_restyled_spans_keep_their_text():
    assert restyled(RED, "dim") == (Span("ab", "dim"), Span("cd", "dim"))
    assert {"dim", "select", "bad"} <= set(STYLES)


def test_plain_text_has_no_blanks_at_the_ends_of_its_lines():
    assert plain([line("a ", Span("b  ", "bad")), line(), line("  c")]) == "a b\n\n  c\n"


# --- any text ------------------------------------------------------------------------------------

# where Unicode's blocks of odd characters are
BLOCKS = ((0, 0x300), (0x300, 0x370), (0x590, 0x620), (0xe00, 0xe60), (0x1100, 0x1200), (0x180b, 0x1810),
          (0x2000, 0x2100), (0x2e80, 0x3100), (0xac00, 0xac40), (0xd7b0, 0xe010), (0xfe00, 0xfe30), (0xff00, 0x10000),
          (0x1f1e6, 0x1f200),
          (0x1f300, 0x1f700), (0xe0000, 0xe0200), (0x10fff0, 0x110000))


JOINED = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")       # letters of Hangul that join the one before


def some_text(choose):
    return "".join(chr(choose.randrange(*choose.choice(BLOCKS))) for _ in range(choose.randrange(40)))


def needs(text):
    """Cells for printable text, by Unicode's own tables."""
    return sum(0 if unicodedata.category(char) in ("Mn", "Me") or JOINED.match(char) else
               2 if unicodedata.east_asian_width(char) in ("W", "F") else 1 for char in text)


@pytest.mark.parametrize("seed", range(60))
def test_any_text_is_printable_and_fits_in_its_cells(seed):
    print("seed", seed)
    choose = random.Random(seed)
    for _ in range(20):
        text, cols = some_text(choose), choose.randrange(-1, 50)
        for glyphs in ALL:
            shown = safe(text, glyphs)
            assert shown.isprintable() and (glyphs.utf8 or shown.isascii()), ascii(text)
            assert width(shown) == needs(shown), ascii(text)
            assert not shown or unicodedata.category(shown[0]) not in ("Mn", "Me"), ascii(text)
            assert needs(clip(shown, cols, glyphs)) <= max(0, cols)
            assert needs(pad(shown, cols, glyphs, choose.random() < 0.5)) == max(0, cols)
            half = len(shown) // 2
            spans = line(Span(shown[:half], "bad"), shown[half:])
            for found in (fit(spans, cols, glyphs), apart(spans, line("right"), cols, glyphs)):
                assert needs("".join(span.text for span in found)) <= max(0, cols), (ascii(text), cols)
