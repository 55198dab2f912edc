"""Functions by own and total share: what `hot` shows."""
import pytest
from profiles import a_look, a_thread

from modwsgi_tel.profile import hot
from modwsgi_tel.profile.hot import ALL, GIL, WORKING, Functions, Row, Totals
from modwsgi_tel.profile.samples import CUT, NOT_READ
from modwsgi_tel.stacks.model import MOVING


def added(*looks):
    """Functions of (now, threads) each, every one for the time since the one before; the first for none."""
    table, before = Functions(), looks[0][0]
    for now, threads in looks:
        table.add(a_look(*threads), now - before, now)
        before = now
    return table


def rounded(rows):
    return [Row(*(round(each, 6) if isinstance(each, float) else each for each in row)) for row in rows]


def test_own_is_the_innermost_and_total_is_anywhere_in_the_stack():
    both = (a_thread("main work", owns_gil=True), a_thread("main", tid=8))
    assert rounded(added((100.0, both), (100.5, both)).rows(100.5)) == [
        Row("main", "app.py", 0.5, 1.0, 0.0, 0.5, 1.0), Row("work", "app.py", 0.5, 0.5, 1.0, 0.5, 0.5)]


def test_recursion_counts_once_in_total():
    deep = (a_thread("main " + "walk " * 50),)
    assert rounded(added((1.0, deep), (2.0, deep)).rows(2.0)) == [
        Row("walk", "app.py", 1.0, 1.0, 0.0, 1.0, 1.0), Row("main", "app.py", 0.0, 1.0, 0.0, 0.0, 1.0)]


def test_lines_of_a_function_are_one_row_and_files_are_two():
    table = added((1.0, ()), (2.0, (a_thread("f@a.py:1"),)), (3.0, (a_thread("f@a.py:2"),)), (4.0, (a_thread("f@b.py:1"),)))
    assert [(row.file, row.own_s) for row in table.rows(4.0)] == [("a.py", 2.0), ("b.py", 1.0)]


def test_the_window_forgets_and_the_start_does_not():
    table = added((10.0, ()), (11.0, (a_thread("early"),)), (12.0, (a_thread("early"),)), (20.0, ()), (21.0, (a_thread("late"),)))
    assert [(row.function, row.own, row.own_s) for row in table.rows(21.0, window_s=5)] == [("late", 1.0, 1.0), ("early", 0.0, 2.0)]
    assert [(row.function, row.own_s) for row in table.rows(21.0)] == [("early", 2.0), ("late", 1.0)]
    assert table.totals(21.0, window_s=5).time_s == 1.0


def test_moving_and_cut_threads_keep_their_share_and_are_told():
    look = (a_thread("main work", problem=MOVING, owns_gil=True), a_thread("work", tid=8, problem="cut: garbage"))
    table = added((1.0, look), (2.0, look))
    assert {(row.function, row.own_s, row.total_s) for row in table.rows(2.0)} == {
        ("work", 1.0, 1.0), (NOT_READ, 1.0, 1.0), (CUT, 0.0, 1.0)}
    totals = table.totals(2.0)
    assert (totals.time_s, totals.gil_s, totals.moving_s, totals.cut_s) == (2.0, 1.0, 1.0, 1.0)


def test_the_time_of_working_threads_of_gil_holders_and_of_all_is_kept_apart():
    look = (a_thread("main work", owns_gil=True), a_thread("main wait", tid=8), a_thread("pool", tid=9, idle=True),
            a_thread("pool", tid=10, idle=True))
    table = added((1.0, look), (2.0, look))

    def shares(of):
        return {row.function: (row.own, row.total, row.own_s, row.total_s) for row in table.rows(2.0, 5, of)}

    assert shares(WORKING) == {"main": (0.0, 1.0, 0.0, 2.0), "work": (0.5, 0.5, 1.0, 1.0), "wait": (0.5, 0.5, 1.0, 1.0)}
    assert shares(GIL) == {"main": (0.0, 1.0, 0.0, 1.0), "work": (1.0, 1.0, 1.0, 1.0)}
    assert shares(ALL) == {"main": (0.0, 0.5, 0.0, 2.0), "work": (0.25, 0.25, 1.0, 1.0), "wait": (0.25, 0.25, 1.0, 1.0),
                           "pool": (0.5, 0.5, 2.0, 2.0)}
    assert table.totals(2.0, 5) == Totals(2, 1.0, 2.0, 1.0, 0.0, 0.0, 2.0)


def test_reset_starts_anew():
    table = added((1.0, (a_thread("main"),)), (2.0, (a_thread("main"),)))
    table.reset()
    assert (table.rows(2.0), table.totals(2.0).looks) == ([], 0)


def test_functions_past_the_bound_are_one_row(monkeypatch):
    monkeypatch.setattr(hot, "FUNCTIONS", 3)
    table = added((0.0, ()), *[(float(number), (a_thread(f"f{number}"),)) for number in range(1, 9)])
    rows = table.rows(8.0)
    assert len(rows) == 4 and sum(row.own for row in rows) == pytest.approx(1.0)
    assert rows[0][:2] == hot.OTHERS


def test_many_functions_of_one_stack_past_the_bound_count_once(monkeypatch):
    monkeypatch.setattr(hot, "FUNCTIONS", 1)
    deep = (a_thread("a b c d"),)
    assert {row.function: row.total for row in added((0.0, deep), (1.0, deep)).rows(1.0)} == {"d": 1.0, hot.OTHERS[0]: 1.0}


def test_no_more_seconds_are_kept_than_a_window_can_ask_for():
    table = added(*[(float(number), (a_thread("main"),)) for number in range(2 * hot.KEEP_S)])
    assert len(table._slots) == hot.KEEP_S + 1
