"""The pure parts of the load: schedule, percentiles, verdict, bisection, memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.bench.load.generator import follow, one_by_one
from phasewatch.bench.load.latency import (
    exceedance,
    hops,
    percentiles,
    rate_hz,
    summary,
    throughput,
)
from phasewatch.bench.load.memory import MIB, Memory, resident
from phasewatch.bench.load.peak import Probe, best, bisect
from phasewatch.bench.load.plan import Load
from phasewatch.bench.load.schedule import SPIN_NS, offsets, wait_until
from phasewatch.bench.load.verdict import Facts, Generator, judge

MS = 1_000_000


class Clock:
    """A clock that moves when it is read and when somebody sleeps."""

    def __init__(self, step=1000, oversleep=0):
        self.now, self.step, self.oversleep = 0, step, oversleep
        self.slept = []

    def __call__(self):
        self.now += self.step
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += round(seconds * 1e9) + self.oversleep


def load(n, scenario="offline", **more):
    return Load(scenario, n, store="none", stored=7, at_once=4, **more)


def test_constant_and_exponential_schedules():
    assert offsets(4, rate_hz=1000).tolist() == [0, MS, 2 * MS, 3 * MS]
    assert offsets(3, rate_hz=float("inf")).tolist() == [0, 0, 0]
    drawn = offsets(20_000, rate_hz=500, poisson=True, seed=3)
    assert np.array_equal(drawn, offsets(20_000, rate_hz=500, poisson=True, seed=3))
    assert not np.array_equal(drawn, offsets(20_000, rate_hz=500, poisson=True, seed=4))
    gaps = np.diff(drawn)
    assert drawn[0] == 0
    assert drawn[-1] == offsets(20_000, rate_hz=500)[-1]
    assert gaps.min() >= 0
    # mean and standard deviation of an exponential are both 1 / rate
    assert gaps.mean() == pytest.approx(2 * MS, rel=0.03)
    assert gaps.std() == pytest.approx(2 * MS, rel=0.03)


def test_no_rounding_adds_up():
    assert offsets(1_000_001, rate_hz=3000)[-1] == pytest.approx(1_000_000 / 3000 * 1e9, abs=1)


@pytest.mark.parametrize(("n", "rate"), [(0, 1.0), (5, 0.0), (5, -1.0), (5, float("nan"))])
def test_a_schedule_that_cannot_be(n, rate):
    with pytest.raises(ValueError, match="above 0"):
        offsets(n, rate_hz=rate)


def test_waiting_sleeps_but_for_the_last_50_us():
    clock = Clock()
    assert wait_until(10 * MS, clock=clock, sleep=clock.sleep) >= 10 * MS
    assert sum(clock.slept) * 1e9 == pytest.approx(10 * MS - SPIN_NS, abs=2000)
    assert clock.now - 10 * MS <= clock.step
    late = Clock()
    late.now = 20 * MS
    assert wait_until(10 * MS, clock=late, sleep=late.sleep) == 20 * MS + late.step
    assert late.slept == []


@given(st.integers(1, 60), st.booleans(), st.integers(0, 3_000_000))
def test_every_item_is_announced_once_in_order_and_never_early(n, poisson, oversleep):
    clock, sent = Clock(oversleep=oversleep), []
    due = offsets(n, rate_hz=1000, poisson=poisson) + 5 * MS
    times = np.zeros((2, n), np.int64)
    follow(load(n), due, times, sent.append, clock=clock, sleep=clock.sleep)
    rows = np.concatenate([np.frombuffer(m, np.int64).reshape(-1, 4) for m in sent])
    assert rows[:, 0].tolist() == list(range(n))
    assert np.array_equal(rows[:, 1], due)
    assert rows[:, 2].tolist() == [k % 7 for k in range(n)]
    assert (rows[:, 3] >= rows[:, 1]).all()
    assert np.array_equal(times, rows[:, [1, 3]].T)
    # the schedule never moves: one oversleep makes the items due in it late, and no others
    assert (times[1] - times[0]).max() <= oversleep + 2 * SPIN_NS


def test_one_by_one_waits_for_answers_and_gives_up_without():
    clock, sent = Clock(), []
    times = np.zeros((2, 5), np.int64)
    answers = iter([True, True, True, False])
    assert not one_by_one(load(5), times, sent.append, lambda: next(answers), clock=clock)
    assert len(sent) == 4
    assert one_by_one(load(5), times, sent.append, lambda: True, clock=clock)
    assert np.array_equal(times[0], times[1])
    assert (np.diff(times[0]) > 0).all()


def test_percentiles_are_durations_that_occurred():
    found = percentiles(np.arange(1, 1001) * MS)
    assert found == {"p50": 500, "p90": 900, "p99": 990, "p999": 999, "max": 1000}
    assert percentiles(np.empty(0, np.int64)) == {}
    assert percentiles(np.array([7 * MS]))["p50"] == 7


def test_latency_is_from_due_and_broken_down_by_stamp():
    due = np.arange(3) * MS
    times = {"seq": np.arange(3), "id": np.arange(3), "due": due, "delivered": due + 9 * MS}
    times |= {"tracked": due + 8 * MS, "announced": due + 1 * MS, "zapped": due + 3 * MS}
    assert hops(times) == ["due", "announced", "zapped", "tracked", "delivered"]
    found = summary(times)
    assert found["p50"] == 9
    assert {k: v["max"] for k, v in found["per_stage"].items()} == {
        "generator": 1,
        "zapped": 2,
        "track": 5,
        "deliver": 1,
    }
    assert rate_hz(times) == pytest.approx(3 / 0.011)
    assert summary({}) == {}
    assert rate_hz({}) == 0


def test_exceedance_goes_down_to_one_item():
    ms, share = exceedance(np.arange(1, 100_001) * MS)
    assert (ms[0], share[0]) == (1, 1)
    assert (ms[-1], share[-1]) == (100_000, 1e-5)
    assert (np.diff(share) < 0).all()
    assert ms[np.argmin(np.abs(share - 0.01))] == pytest.approx(99_000, rel=0.01)


def test_throughput_over_time_adds_up_to_all_items():
    due = np.arange(1000) * MS
    edges, per_s = throughput({"due": due, "delivered": due + 2 * MS})
    assert len(edges) == len(per_s) + 1 == 121
    assert (per_s * np.diff(edges)).sum() == pytest.approx(1000)
    assert per_s[1:].mean() == pytest.approx(1000, rel=0.05)


WHOLE = {"classified": 100, "missed": 0, "failed": 0, "dropped": {}}


def facts(**changes):
    usual = {
        "scenario": "server",
        "n": 100,
        "error": None,
        "frames": WHOLE,
        "kept": 100,
        "lossless": True,
        "duration_s": 60.0,
        "generator": Generator(0.0, 0.1),
        "p99_ms": 4.0,
        "null_p99_ms": 0.5,
    }
    return Facts(**{**usual, **changes})


def test_a_good_run_is_valid():
    verdict = judge(facts())
    assert (str(verdict), verdict.warnings) == ("VALID", ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"error": "reducer-0 ended"}, "reducer-0 ended"),
        ({"duration_s": 59.0}, "short of the 60 s"),
        ({"scenario": "single-stream", "duration_s": 1.0}, "short of the 60 s"),
        ({"generator": None}, "generator did not come to its end"),
        ({"generator": Generator(0.011, 7.5)}, "1.1% of the items .* the latest by 7.5 ms"),
        ({"frames": {**WHOLE, "classified": 99, "missed": 1}, "kept": 99}, "99 of 100 .*1 missed"),
        ({"frames": {**WHOLE, "classified": 99, "failed": 1}, "kept": 99}, "1 items failed"),
        ({"frames": {**WHOLE, "classified": 98, "dropped": {"x": 2}}, "kept": 98}, "2 dropped"),
        ({"kept": 97}, "times of 97 items for 100"),
    ],
)
def test_what_makes_a_run_invalid(changes, said):
    verdict = judge(facts(**changes))
    assert str(verdict) == "INVALID"
    assert pytest.importorskip("re").search(said, verdict.reason)


def test_throughput_needs_no_minute_and_a_live_run_may_drop():
    assert judge(facts(scenario="offline", duration_s=1.0)).valid
    dropped = {**WHOLE, "classified": 90, "dropped": {"ring full": 10}}
    assert judge(facts(lossless=False, frames=dropped, kept=90)).valid


def test_a_harness_that_is_not_far_below_is_a_warning():
    verdict = judge(facts(null_p99_ms=0.8))
    assert verdict.valid
    assert "more than a fifth" in verdict.warnings[0]


def test_generator_judges_itself():
    times = np.zeros((2, 1000), np.int64)
    times[1, :20] = 3 * MS
    assert Generator.of(times) == Generator(0.02, 3.0)


@given(st.floats(10, 9000))
def test_bisection_finds_the_rate_that_holds(capacity):
    ran = []

    def run(rate):
        ran.append(rate)
        return Probe(rate, 1.0 if rate < capacity else 50.0, valid=True)

    probes = bisect(run, high_hz=8000.0, limit_ms=5.0, most=16)
    assert [p.rate_hz for p in probes] == ran
    found = best(probes, 5.0)
    assert found is not None
    assert found.rate_hz < capacity
    assert found.rate_hz >= min(capacity, 8000.0) * 0.95 * 0.999


def test_bisection_takes_valid_runs_only():
    probes = bisect(lambda rate: Probe(rate, 1.0, valid=False), high_hz=100, limit_ms=5)
    assert len(probes) == 8
    assert best(probes, 5) is None
    assert best([Probe(1.0, None, valid=True)], 5) is None


def test_memory_is_sampled_once_a_second_and_told_after_warm_up():
    clock = Clock(step=250 * MS)
    grown = iter(range(100, 200))
    memory = Memory(
        {"tracker": 1, "gone": 2},
        clock,
        lambda pid: None if pid == 2 else (next(grown) * MIB, 50 * MIB),
    )
    for _ in range(80):
        memory.sample()
    found = memory.summary()
    assert found.keys() == {"tracker"}
    told = found["tracker"]
    assert told["samples"] == 20
    assert (told["first"], told["last"], told["max"]) == (105, 119, 119)
    assert (told["own_first"], told["own_last"]) == (55, 69)
    assert told["own_growth"] == pytest.approx(69 / 55 - 1, abs=1e-4)
    memory.clear()
    assert memory.summary() == {}


def test_resident_memory_of_this_process():
    import os

    total, shared = resident(os.getpid())
    assert total > shared > 0
    assert resident(2**22 + 1) is None
