"""A profile counts every sample, keeps shares right and holds its bounds."""
import profiles
import pytest
from profiles import START, a_look, a_profile, a_thread

from modwsgi_tel.profile import samples
from modwsgi_tel.profile.samples import CUT, DROPPED, EMPTY, NOT_READ, Profile
from modwsgi_tel.stacks.model import MOVING


def spent(profile):
    """{"outer inner": seconds}, lines left out."""
    found = {}
    for path, seconds in profile.stacks():
        text = " > ".join(key.function for key in path)
        found[text] = round(found.get(text, 0.0) + seconds, 6)
    return found


def test_each_look_adds_its_weight_to_each_threads_stack():
    profile = a_profile((a_thread("main work"), a_thread("main wait", tid=8)), (a_thread("main work"), a_thread("main", tid=8)))
    assert spent(profile) == {"main > work": 0.04, "main > wait": 0.02, "main": 0.02}
    assert profile.counts() == {"looks": 2, "gil_looks": 0, "late": 0, "taken": 4, "moving": 0, "cut": 0, "dropped": 0, "untimed": 0,
                                "idle_seen": 0, "unknown": 0}


def test_a_moving_thread_keeps_its_share_below_its_own_group():
    profile = a_profile((a_thread("main work", problem=MOVING), a_thread("main wait", tid=8, name=None)), by=("thread",))
    assert spent(profile) == {f"thread 7 MainThread > {NOT_READ}": 0.02, "thread 8 > main > wait": 0.02}
    assert (profile.moving, profile.taken) == (1, 2)


def test_what_is_missing_of_a_cut_stack_stands_outside_of_what_was_read():
    profile = a_profile((a_thread("work", problem="cut: garbage"), a_thread("", tid=8, problem="cut: no access")))
    assert spent(profile) == {f"{CUT} > work": 0.02, CUT: 0.02}
    assert profile.cut == 2


def test_outer_frames_come_in_one_order_whatever_was_asked_first():
    look = (a_thread("main", interpreter=2),)
    assert spent(a_profile(look, by=("thread", "process", "interpreter"))) == {
        "pid 4711 python app.py > interpreter 2 > thread 7 MainThread > main": 0.02}


def test_a_thread_in_two_interpreters_stands_below_each():
    main, other = a_thread("main"), a_thread("main")._replace(interpreter=1)
    profile = a_profile((main,), (other,), (main,), by=("interpreter",))
    assert spent(profile) == {"interpreter 0 > main": 0.04, "interpreter 1 > main": 0.02}


def test_a_name_that_is_told_late_names_the_thread_from_its_start():
    profile = a_profile((a_thread("main", name=None),), (a_thread("main", name="pool"),), by=("thread",))
    assert spent(profile) == {"thread 7 pool > main": 0.04}


def test_idle_threads_are_counted_and_taken_only_when_asked_for():
    look = (a_thread("main"), a_thread("", tid=8, idle=True))
    assert (spent(a_profile(look)), a_profile(look).idle_seen) == ({"main": 0.02}, 1)
    assert (spent(a_profile(look, idle=True)), a_profile(look, idle=True).idle_seen) == ({"main": 0.02, EMPTY: 0.02}, 0)


def test_by_gil_only_its_holders_are_taken():
    profile = a_profile((a_thread("main", owns_gil=True), a_thread("wait", tid=8)), (a_thread("main"),), gil=True)
    assert (spent(profile), profile.gil_looks, profile.looks) == ({"main": 0.02}, 1, 2)


def test_by_cpu_the_weight_is_what_the_thread_used():
    profile = a_profile((a_thread("main", cpu_s=0.015), a_thread("wait", tid=8, cpu_s=0.0), a_thread("new", tid=9)), cpu=True)
    assert (spent(profile), profile.unknown, profile.taken) == ({"main": 0.015}, 1, 1)


def test_a_look_is_late_after_one_and_a_half_intervals():
    profile = Profile(rate=50)
    for at, weight_s in ((1, 0.02), (2, 0.0299), (3, 0.031), (4, 1.0)):
        profile.add(a_look(a_thread("main"), at=START + at), weight_s)
    assert (profile.late, profile.looks) == (2, 4)


def test_samples_are_kept_in_order_of_time():
    profile = a_profile((a_thread("main"), a_thread("wait", tid=8)), (a_thread("main"),))
    assert [round(each, 6) for each in profile.times] == [0.02, 0.02, 0.04]
    assert [profile.threads[owner].tid for owner in profile.owners] == [7, 8, 7]
    assert [profile.path(leaf)[0].function for leaf in profile.leaves] == ["main", "wait", "main"]
    assert (profile.start, round(profile.duration_s, 6)) == (START, 0.04)


def test_a_clock_that_is_set_back_does_not_turn_time_round():
    profile = Profile()
    for at in (10, 5, 11):
        profile.add(a_look(a_thread("main"), at=START + at), 1.0)
    assert list(profile.times) == sorted(profile.times)


def test_past_the_bound_of_stacks_samples_are_counted_as_dropped_and_keep_their_weight():
    looks = [(a_thread(f"main f{number}"),) for number in range(50)]
    profile = a_profile(*looks, nodes=20)
    assert len(profile.parent) == 1 + 20 + 1
    assert profile.dropped == 50 - 19 and profile.taken == 50
    assert spent(profile)[DROPPED] == round(profile.dropped * 0.02, 6)
    assert sum(spent(profile).values()) == pytest.approx(1.0)


def test_past_the_bound_of_samples_the_shares_stay_and_the_time_is_given_up():
    profile = a_profile(*[(a_thread("main"),)] * 9, samples=5)
    assert (len(profile.times), profile.untimed, spent(profile)) == (5, 4, {"main": 0.18})
    assert "4 without their time" in profile.told()[2]


def test_past_the_bound_of_threads_the_others_are_one():
    profile = a_profile(*[(a_thread("main", tid=tid, name=f"t{tid}"),) for tid in range(9)], threads=3, by=("thread",))
    assert len(profile.threads) == 4
    assert spent(profile)["other threads > main"] == 0.12


def test_names_are_printable_and_short():
    hostile = profiles.HOSTILE._replace(function="\x1b]0;" + "x" * 5000 + "\ud800")
    profile = a_profile((a_thread(name="\n\u202e")._replace(frames=(hostile,)),), by=("thread", "process"))
    for key in profile.frames:
        assert (key.function + (key.file or "")).isprintable() and len(key.function) <= samples.FUNCTION_SIZE + 20


def test_what_was_recorded_is_told_in_lines():
    profile = a_profile((a_thread("main", owns_gil=True), a_thread("main", tid=8, problem=MOVING)), by=("thread",), gil=False)
    first, second, third = profile.told()
    assert first == "pid 4711 python app.py (Python 3.11.7)"
    assert second.endswith(", 20.0 ms, wall time, by thread, 50 looks a second")
    assert third == "1 look, 2 samples, GIL held in 100 % of looks, moving 1 (50.0 %), cut 0, late 0, dropped 0"


def test_many_processes_are_told_as_three_and_a_number():
    profile = Profile()
    for pid in range(1, 6):
        profile.add(a_look(a_thread("main"), pid=pid, command="app"), 0.02)
    assert profile.told()[0] == "pid 1 app (Python 3.11.7), pid 2 app (Python 3.11.7), pid 3 app (Python 3.11.7), 2 more"


def test_the_same_thread_id_in_two_processes_is_two_threads():
    profile = Profile(by=("process", "thread"))
    for pid in (1, 2):
        profile.add(a_look(a_thread("main"), pid=pid, command="app"), 0.02)
    assert spent(profile) == {"pid 1 app > thread 7 MainThread > main": 0.02, "pid 2 app > thread 7 MainThread > main": 0.02}


def test_shares_of_a_long_mixed_recording_add_up():
    profile = profiles.busy(by=("process", "thread"))
    assert sum(profile.own_s) == pytest.approx(profile.taken * 0.02)
    assert sum(profile.weights) == pytest.approx(profile.taken * 0.02)
