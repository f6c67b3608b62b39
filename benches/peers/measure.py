"""Runs the lines of a case in turn, round after round, and keeps medians and spreads."""

import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Callable

# One run may take this long. What takes longer counts as failed.
LIMIT_S = 900


@dataclass
class Line:
    """One row of a table, or one point of a curve."""

    client: str
    setting: str
    command: Callable  # () -> peers.Command, or None for what the client cannot do
    work: str = ""
    bytes: int | None = None  # where it is not the case's
    unchecked: bool = False  # it does less than the others, and says so
    own: bool = False  # the command measures itself and prints its runs, of which the best counts
    x: float | None = None


@dataclass
class Case:
    """Lines that do the same, to be compared."""

    name: str
    title: str
    about: str
    floor: object  # runs `measure`
    lines: list
    bytes: int = 0
    objects: int = 1
    per: str = "GiB"  # what CPU time is told for: "GiB", "object" or "run"
    base: str = "floor"  # the client that the others are a fraction of; "" for none
    prepare: Callable = lambda: None  # before every run
    sync: list = field(default_factory=list)  # synced within the time
    stdout: str = "null"
    check: Callable = lambda told, thorough: None  # after every run; says what is wrong, if anything
    axis: str = ""  # of a curve


def measured(case, rounds):
    """A case's results as they are stored: see `report`."""
    runs = {id(line): [] for line in case.lines}
    failed = {}
    for number in range(rounds + 1):
        for line in case.lines:
            if id(line) in failed:
                continue
            try:
                result = once_more_if_failed(case, line, thorough=number == 0)
            except Failed as failure:
                failed[id(line)] = str(failure)
                print(f"{case.name}: {line.client}, {line.setting}: {failure}", file=sys.stderr)
                continue
            # The first round warms up.
            if number and result:
                runs[id(line)].append(result)
        print(f"{case.name}: round {number} of {rounds} done", file=sys.stderr)
    rows = []
    for line in case.lines:
        row = {"client": line.client, "setting": line.setting, "work": line.work}
        if line.bytes is not None:
            row["bytes"] = line.bytes
        if line.x is not None:
            row["x"] = line.x
        if id(line) in failed:
            row["failed"] = failed[id(line)]
        elif runs[id(line)]:
            row.update(spread(runs[id(line)]))
        rows.append(row)
    return {
        "name": case.name, "title": case.title, "about": case.about, "bytes": case.bytes,
        "objects": case.objects, "per": case.per, "base": case.base, "axis": case.axis,
        "rounds": rounds, "lines": rows,
    }


class Failed(Exception):
    """A client that did not do what it was to do, with the last it said."""


def once_more_if_failed(case, line, thorough):
    try:
        return once(case, line, thorough)
    except Failed:
        return once(case, line, thorough)


def once(case, line, thorough):
    """Wall seconds, CPU seconds and peak memory of one run; `None` where the client cannot do it."""
    case.prepare()
    command = line.command()
    if command is None:
        return None
    if line.own:
        told = json.loads(finished(command.words, command.env))
        best = min(told["runs"], key=lambda run: run["wall_s"])
        return {"wall_s": best["wall_s"], "cpu_s": best["cpu_s"]}
    words = [case.floor, "measure", "--stdout", case.stdout]
    for path in case.sync:
        words += ["--sync", path]
    told = json.loads(finished([*words, "--", *command.words], command.env))
    if told["status"] != 0:
        raise Failed(f"{told['stderr']} (exit code {told['status']})")
    wrong = None if line.unchecked else case.check(told, thorough)
    if wrong:
        raise Failed(wrong)
    return {
        "wall_s": told["wall_s"], "cpu_s": told["user_s"] + told["system_s"],
        "peak_mib": told["peak_kib"] / 1024,
    }


def finished(words, env):
    """Standard output of a program, which may not take forever: it is JSON, to which what else it said is added."""
    process = subprocess.Popen(
        [str(word) for word in words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    )
    try:
        out, said = process.communicate(timeout=LIMIT_S)
    except BaseException as why:
        # With all it has started: the session is its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(why, subprocess.TimeoutExpired):
            raise Failed(f"still not done after {LIMIT_S} s") from None
        raise
    last = (said.strip().splitlines() or ["nothing said"])[-1]
    if process.returncode != 0:
        raise Failed(last)
    return json.dumps({**json.loads(out), "stderr": last})


def spread(runs):
    """Median, least and most of each column."""
    columns = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        columns[name] = {
            "median": round(statistics.median(values), 6),
            "min": round(min(values), 6),
            "max": round(max(values), 6),
        }
    return columns
