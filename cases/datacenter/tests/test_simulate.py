"""With real ns-3, where it and a C++ compiler are there; its random numbers are fixed by seeds."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from memento.errors import DamagedError, ForeignError, MementoError, SettingError, StorageError
from memento_datacenter import simulate as simulation
from memento_datacenter.schema import COLUMNS, Run, Runs
from memento_datacenter.simulate import (
    SETTINGS,
    Network,
    Program,
    build,
    find_ns3,
    run_numbers,
    settings,
    simulate,
)
from memento_datacenter.workloads import Workload, published

HEADERS = 54  # link 2, IP 20, TCP 20 and its time stamps 12


def simulate_run(program, setting, number, network=None, **options):
    """One run, read back."""
    with tempfile.TemporaryDirectory() as folder:
        made = simulate([setting], [number], folder, network, program=program, **options)
        return Run.read(made[0])


def one(name, workload=None):
    return settings([name], workload and {workload.name: workload})[0]


def same(a: Run, b: Run) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)


def draws(program, workload, count, folder):
    """Sizes as ns-3 draws them."""
    table = folder / "sizes"
    table.write_text(workload.table)
    arguments = [f"--sizes={table}", f"--interpolate={int(workload.interpolate)}"]
    done = subprocess.run(
        [program.path, *arguments, f"--draw={count}"], capture_output=True, check=True
    )
    return np.array(done.stdout.split(), dtype=np.int64)


# --- what the simulation does -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w1", "w2", "w3"])
def test_sizes_follow_the_workload(program, tmp_path, name):
    """Shares and the mean within five standard errors: false alarm below 1e-5 per workload."""
    workload, count = published()[name], 200_000
    drawn = draws(program, workload, count, tmp_path)
    for probability in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99):
        size = workload.quantile(probability)
        # Sizes are whole bytes: the share up to a size lies between those half a byte around it.
        least, most = np.interp([size - 0.5, size + 0.5], workload.sizes, workload.cumulative)
        share = np.mean(drawn <= size)
        error = 5 * np.sqrt(probability * (1 - probability) / count)
        assert min(least, probability) - error <= share <= max(most, probability) + error
    assert drawn.min() >= 1
    assert drawn.max() <= workload.sizes[-1]
    error = 5 * drawn.std() / np.sqrt(count)
    assert abs(drawn.mean() - workload.mean) < error
    assert error < 0.08 * workload.mean


def test_recorded_messages_are_drawn_as_recorded(program, tmp_path):
    workload = Workload.of_messages([10, 10, 10, 5000], label=4, name="mine")
    drawn = draws(program, workload, 10_000, tmp_path)
    assert set(drawn.tolist()) == {10, 5000}
    assert np.mean(drawn == 10) == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / 10_000))


def test_an_uncongested_packet_takes_its_time_to_the_microsecond(program):
    """Of 606 bytes 15.485 ms: three links of 5 ms and three times 606 bytes at 30 Mbit/s."""
    workload = Workload.of_messages([606 - HEADERS], label=4, name="mine")
    network = Network(senders=1, load=5e4, end=30.0)
    run = simulate_run(program, one("mine", workload), 0, network)
    alone = np.diff(run.arrival_ns, prepend=run.arrival_ns[0]) > 1e8  # nothing else was on its way
    assert alone.sum() > 30
    assert set(run.size[alone].tolist()) == {606}
    np.testing.assert_allclose(run.delay[alone], 15.4848e-3, atol=1e-6)


def test_no_packet_is_faster_than_light_traffic(program):
    network = Network(end=6.0)
    run = simulate_run(program, one("w2"), 1, network)
    least = 3 * (network.link_delay + run.size * 8 / network.link_rate)  # three links
    assert (run.delay >= least - 1e-8).all()
    assert np.isclose(run.delay, least, atol=1e-6, rtol=0).mean() > 0.05
    assert run.size.max() == 1446 + HEADERS
    assert run.size.min() > HEADERS  # acknowledgements are no data


def test_offered_load(program):
    """20,000 messages of one size: 3 % are more than four standard errors."""
    workload = Workload.of_messages([1000], label=4, name="mine")
    network = Network(end=18.0)
    counters = simulate_run(program, one("mine", workload), 0, network).about["counters"]
    assert counters["messages"] > 18_000
    offered = counters["offered_bytes"] * 8 / counters["active_seconds"]
    assert offered == pytest.approx(network.active_rate, rel=0.03)


def test_senders_start_uniformly_and_offer_the_load_on_average(program):
    """The mean of 20 uniform starts in each of 12 runs: five standard errors, as above."""
    network = Network(end=3.0, load=1e5)
    runs = [simulate_run(program, one("w2"), i, network) for i in range(12)]
    share = np.mean([run.about["counters"]["active_seconds"] / 20 / 2.0 for run in runs])
    assert share == pytest.approx(0.5, abs=5 / np.sqrt(12 * 12 * 20))
    assert network.active_rate * 0.5 * 20 == network.load


def test_senders_that_start_together_offer_the_load_from_then_on(program):
    network = Network(end=3.0, load=1e5, start_window=0.0)
    run = simulate_run(program, one("w2"), 0, network)
    assert run.about["counters"]["active_seconds"] == pytest.approx(20 * 2.0)
    assert network.active_rate * 20 == network.load
    within = Network(end=3.0, load=1e5, start_window=1.0)
    active = simulate_run(program, one("w2"), 0, within).about["counters"]["active_seconds"]
    assert 20 * 1.0 < active < 20 * 2.0
    assert within.active_rate == pytest.approx(1e5 / 20 / 0.75)


def test_large_messages_are_refused_or_wait(program):
    runs = {
        messages: simulate_run(program, one("w1"), 0, Network(messages=messages, end=12.0))
        for messages in ("buffered", "refused")
    }
    counters = {messages: run.about["counters"] for messages, run in runs.items()}
    assert counters["buffered"]["offered_bytes"] == counters["refused"]["offered_bytes"]
    assert counters["buffered"]["refused"] == 0
    assert counters["refused"]["refused"] > 0
    for messages, run in runs.items():
        payload = int((run.size.astype(np.int64) - HEADERS).sum())
        given = counters[messages]["offered_bytes"] - counters[messages]["refused_bytes"]
        assert payload < 1.05 * given  # with what TCP sent twice
    assert len(runs["buffered"]) > 3 * len(runs["refused"])


def test_delays_grow_with_congestion(program):
    network = Network(end=12.0)
    runs = [simulate_run(program, one(f"w2{load}"), 0, network) for load in ("", "_c100", "_c133")]
    for less, more in itertools.pairwise(runs):
        assert np.median(more.delay) > np.median(less.delay) + 1e-3
        assert more.delay.mean() > less.delay.mean() + 1e-3
    counts = [run.about["counters"] for run in runs]
    assert [count["drops"] > 0 for count in counts][1:] == [True, True]
    for count, rate in zip(counts, (0, 10e6, 20e6), strict=True):
        assert count["cross_packets"] * 1054 * 8 / 11 == pytest.approx(rate, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "numbers", "published_samples"),
    [
        ("w1", range(6), 10_082), ("w3", range(6), 6_873), ("w2", range(1), 165_718),
        ("w1_c133", range(1), 10_120), ("w2_c133", range(1), 39_184),
        # The first ones are above the mean of all, which is 1.18 times the published one.
        ("w3_c133", range(8, 12), 6_960),
    ],
)  # fmt: skip
def test_samples_per_run_of_the_published_data(program, name, numbers, published_samples):
    """Within 25 % once senders are active for as long as on average.

    In single runs they are active for more or less than half of the time, by 13 %.
    """
    network = Network(messages="refused")
    samples, active = 0, 0.0
    for number in numbers:
        run = simulate_run(program, one(name), number, network)
        packets = np.bincount(run.application, minlength=network.senders)
        samples += np.maximum(packets - 127, 0).sum()
        active += run.about["counters"]["active_seconds"]
    expected = network.senders * (network.end - network.start) / 2
    assert samples * expected / active == pytest.approx(published_samples, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "published_samples", "within"),
    [("w1", 3, 10_082, 0.25), ("w2", 1, 165_718, 0.05)],
)
def test_published_samples_are_those_of_senders_that_start_together(
    program, name, count, published_samples, within
):
    """w2's messages are not merged then, because its link is never overloaded."""
    network = Network(messages="refused", start_window=1.0)
    samples = []
    for number in range(count):
        run = simulate_run(program, one(name), number, network)
        packets = np.bincount(run.application, minlength=network.senders)
        samples.append(np.maximum(packets - 127, 0).sum())
    assert np.mean(samples) == pytest.approx(published_samples, rel=within)


def test_runs_are_repeatable_and_differ(program):
    network = Network(end=3.0)
    run = simulate_run(program, one("w2"), 0, network)
    assert same(run, simulate_run(program, one("w2"), 0, network))
    others = [
        simulate_run(program, one("w2"), 1, network),
        simulate_run(program, one("w2"), 0, network, seed=2),
        simulate_run(program, one("w1"), 0, network),
    ]
    assert not any(same(run, other) for other in others)


def test_settings_have_substreams_of_their_own():
    first = {simulation._substream(name, 0) for name in SETTINGS}
    last = {simulation._substream(name, 2**32 - 1) for name in SETTINGS}
    assert len(first) == len(last) == 9
    ranges = sorted(zip(sorted(first), sorted(last), strict=True))
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert max(last) < 2**51


# --- a folder of runs ---------------------------------------------------------------------------


def test_runs_are_kept_and_missing_ones_made(program, tmp_path):
    network, chosen, seen = Network(end=2.0), settings(["w2", "w1_c100"]), []
    paths = simulate(chosen, [0, 1], tmp_path / "a", network, program=program, jobs=2)
    assert [path.relative_to(tmp_path / "a").as_posix() for path in paths] == [
        "w2/run-00.npz", "w2/run-01.npz", "w1_c100/run-00.npz", "w1_c100/run-01.npz",
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in paths}
    stamps = {path: path.stat().st_mtime_ns for path in paths}
    paths[1].unlink()
    again = simulate(
        chosen, [0, 1], tmp_path / "a", network, program=program,
        progress=lambda *call: seen.append(call),
    )  # fmt: skip
    assert again == paths
    assert seen == [(3, 4, "already there"), (4, 4, "w2 run-01")]
    kept = [path for path in paths if path.stat().st_mtime_ns == stamps[path]]
    assert kept == [paths[0], *paths[2:]]
    runs = Runs(tmp_path / "a")
    assert runs.available() == {"w1_c100": [0, 1], "w2": [0, 1]}
    (tmp_path / "old.npz").write_bytes(before[paths[1]])
    assert same(runs.read("w2", 1), Run.read(tmp_path / "old.npz"))
    about = runs.read("w1_c100", 1).about
    assert about["ns3"] == program.ns3
    assert Network(**about["network"]) == network
    assert (about["workload"], about["label"], about["cross"]) == ("w1", 1, 1 / 3)
    assert {path.suffix for path in (tmp_path / "a").rglob("*") if path.is_file()} == {".npz"}


def test_all_there_needs_no_ns3(program, tmp_path, monkeypatch):
    network = Network(end=1.5)
    paths = simulate(settings(["w1"]), [0], tmp_path, network, program=program)
    monkeypatch.setattr(simulation, "build", lambda *_: pytest.fail("built"))
    assert simulate(settings(["w1"]), [0], tmp_path, network) == paths


def test_runs_made_in_another_way_are_refused(program, tmp_path):
    network = Network(end=1.5)
    (path,) = simulate(settings(["w1"]), [0], tmp_path, network, program=program)
    before = path.read_bytes()
    other = Workload.of_messages([9], label=1, name="w1")
    for chosen, change, message in (
        (settings(["w1"]), {"network": Network(end=1.5, queue=50)}, "queue = 100, .* with 50"),
        (settings(["w1"]), {"seed": 2}, "seed = 1, now asked for with 2"),
        (settings(["w1"], {"w1": other}), {}, "sizes = "),
    ):
        arguments = {"network": network, "program": program, **change}
        with pytest.raises(ForeignError, match=rf"run-00\.npz: made with .*{message}"):
            simulate(chosen, [0, 1], tmp_path, **arguments)
        assert [p.name for p in path.parent.iterdir()] == ["run-00.npz"]
    newer = Program(program.path, "3.99", program.source)
    with pytest.raises(ForeignError, match=r"made with ns3 = '3.*now asked for with '3.99'"):
        simulate(settings(["w1"]), [0, 1], tmp_path, network, program=newer)
    assert path.read_bytes() == before


def test_a_truncated_run_is_refused_and_named(program, tmp_path):
    network = Network(end=1.5)
    (path,) = simulate(settings(["w1"]), [0], tmp_path, network, program=program)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=r"run-00\.npz.*remove the file"):
        simulate(settings(["w1"]), [0, 1], tmp_path, network, program=program)


def script(folder: Path, text: str) -> Program:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Program(path, "3.44", "")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("echo 'queue overrun' >&2; exit 3", MementoError, "status 3: queue overrun"),
        ("exit 4", MementoError, "status 4: no message"),
        ("exit 0", StorageError, "cannot simulate|reports None packets"),
        (
            'for a; do case $a in --out=*) : > "${a#--out=}";; esac; done; echo \'{"packets": 9}\'',
            StorageError,
            "reports 9 packets and wrote 0",
        ),
        (
            'for a; do case $a in --out=*) : > "${a#--out=}";; esac; done; echo "[9]"',
            StorageError,
            "reports None packets and wrote 0",
        ),
    ],
)
def test_a_program_that_fails_leaves_nothing(tmp_path, text, error, message):
    broken = script(tmp_path, text)
    with pytest.raises(error, match=message):
        simulate(settings(["w1"]), range(5), tmp_path / "runs", program=broken, jobs=2)
    assert not list((tmp_path / "runs").rglob("*"))


def test_a_stopped_call_stops_its_programs(tmp_path):
    """Run 0 fails at once; run 1 would sleep for an hour."""
    first = simulation._substream("w1", 0)
    sleeper = script(tmp_path, f'case "$*" in *--run={first}*) exit 1;; esac; exec sleep 3600')
    with pytest.raises(MementoError, match="run 0, ended with status 1"):
        simulate(settings(["w1"]), [1, 0], tmp_path / "runs", program=sleeper, jobs=2)


# --- building -----------------------------------------------------------------------------------


def test_it_is_compiled_once(program, cache, monkeypatch):
    monkeypatch.setattr(simulation, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build(cache=cache) == program


def test_missing_ns3_says_how_to_install_it(tmp_path):
    with pytest.raises(MementoError) as caught:
        find_ns3(tmp_path)
    for part in (str(tmp_path), "apt-get install", "libns3-dev", "pip install --no-deps ns3"):
        assert part in str(caught.value)


def fake_ns3(folder: Path, *files: str) -> Path:
    for name in ("include/ns3/core-module.h", *files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_ns3_is_recognised_in_either_form(tmp_path):
    wheel = find_ns3(fake_ns3(tmp_path / "wheel", "lib64/libns3.44-core.so"))
    assert (wheel.version, wheel.prefix) == ("3.44", "ns3.44-")
    debian = fake_ns3(tmp_path / "debian", "lib/libns3-core.so")
    header = debian / "include" / "ns3" / "version-defines.h"
    header.write_text("#define NS3_VERSION_MAJOR 3\n#define NS3_VERSION_MINOR 37\n")
    found = find_ns3(debian)
    assert (found.version, found.prefix) == ("3.37", "ns3-")
    assert found.library == (debian / "lib").resolve()
    with pytest.raises(MementoError, match="no ns-3 with headers"):
        find_ns3(fake_ns3(tmp_path / "no-libraries"))


def test_missing_compiler_is_named(tmp_path, monkeypatch):
    ns3 = find_ns3(fake_ns3(tmp_path / "wheel", "lib64/libns3.44-core.so"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MementoError, match=r"no C\+\+ compiler .*apt-get install g\+\+"):
        build(ns3, tmp_path / "cache")


def test_a_compiler_that_fails_leaves_nothing(tmp_path, monkeypatch):
    ns3 = find_ns3(fake_ns3(tmp_path / "wheel", "lib64/libns3.44-core.so"))
    compiler = script(tmp_path, "echo 'sim.cc:1: fatal error: all wrong' >&2; exit 1").path
    monkeypatch.setattr("shutil.which", lambda name: str(compiler))
    with pytest.raises(MementoError, match=r"ns-3 3\.44 in .*fatal error: all wrong"):
        build(ns3, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


# --- what is asked for --------------------------------------------------------------------------


def test_settings_by_name():
    assert [setting.name for setting in settings()] == list(SETTINGS)
    mine = Workload.of_messages([9], label=4, name="mine")
    (setting,) = settings(["mine_c133"], {"mine": mine})
    assert (setting.workload, setting.cross) == (mine, 2 / 3)


@pytest.mark.parametrize("name", ["w4", "w1_c50", "w1_", "", "w1_c100_c133", "W1"])
def test_unknown_settings_are_answered_with_those_there_are(name):
    with pytest.raises(SettingError, match=f"setting '{name}'; there are w1, w1_c100, .*w3_c133"):
        settings([name])


def test_settings_named_twice_or_wrongly():
    with pytest.raises(SettingError, match="named twice"):
        settings(["w1", "w1"])
    with pytest.raises(SettingError, match="stands under 'other'"):
        settings(["w1"], {"other": published()["w2"]})


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", [0]), ("0-3", [0, 1, 2, 3]), ("7, 1-2", [7, 1, 2])]
)
def test_numbers_of_runs(text, numbers):
    assert run_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "0,0", "0-3,2", "1.5", "0-99999999"])
def test_texts_that_name_no_runs(text):
    with pytest.raises(SettingError, match=r"give numbers and ranges|a number comes twice"):
        run_numbers(text)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": "lost"},
        {"senders": 0},
        {"senders": 2.5},
        {"senders": True},
        {"queue": "100"},
        {"load": float("nan")},
        {"link_rate": float("inf")},
        {"start": 5, "end": 5},
        *({"start_window": -1}, {"start_window": 60.0}, {"start_window": True}),
        {"cross_packet": 30},
        {"segment": 1447},
    ],
)
def test_networks_that_cannot_be(change):
    with pytest.raises(SettingError, match=next(iter(change))):
        Network(**change)


@pytest.mark.parametrize(
    "change", [{"numbers": [-1]}, {"numbers": [0, 0]}, {"jobs": 0}, {"seed": 0}, {"seed": 2**32}]
)
def test_arguments_out_of_range(tmp_path, change):
    arguments = {"numbers": [0], "program": Program(Path("none"), "3.44", ""), **change}
    with pytest.raises(SettingError, match=r"expected|give|once"):
        simulate(settings(["w1"]), folder=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())
