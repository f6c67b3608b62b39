"""Writes results: PERFORMANCE.md's tables, between comments that mark them, and performance/results.json.

What stands around the marks stays. A case that has no marks yet gets a section of its own at the end.
"""

import json
import pathlib
import re
import subprocess

GIB = 1 << 30
HERE = pathlib.Path(__file__).resolve().parent

# Rows that other clients are not compared with as peers.
NOT_PEERS = ("brigade", "floor", "disk")


def add(out, here, result):
    """Adds one case's results, in place of earlier ones of that name."""
    folder = out / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results[result["name"]] = {**result, "machine": here.described()}
    file.write_text(json.dumps(results, indent=1) + "\n")

    page = out / "PERFORMANCE.md"
    text = page.read_text() if page.exists() else "# Performance\n"
    text = placed(text, "clients", "What each does with the bytes", work(results))
    text = placed(text, result["name"], result["title"], section(results[result["name"]]))
    page.write_text(text)
    print(f"## {result['title']}\n{section(results[result['name']])}\n", flush=True)


def draw(out, here):
    """Draws every case's chart, by the peers' own Python, which has the library for it."""
    subprocess.run([here.bin / "python", "-B", HERE / "plots.py", out / "performance"], check=True)


def placed(text, name, title, body):
    """`text` with `body` between the marks called `name`."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{body}\n{end}"
    marked = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if marked.search(text):
        return marked.sub(lambda _: block, text)
    return f"{text.rstrip()}\n\n## {title}\n{block}\n"


def work(results):
    rows = {}
    for result in results.values():
        for line in result["lines"]:
            if line["work"]:
                rows[line["client"], line["setting"]] = line["work"]
    lines = [f"| {client} | {setting} | {done} |" for (client, setting), done in rows.items()]
    return "\n".join(["| client | settings | computes over the bytes |", "|---|---|---|", *lines])


def section(result):
    machine = result["machine"]
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return "\n".join([
        f"{result['about']} {cores} of {machine['processor']}, {machine['memory_gib']} GiB, Linux "
        f"{machine['kernel']}; medians of {result['rounds']}, least and most in brackets.",
        "",
        f"![{result['title']}](performance/{result['name']}.svg)",
        "",
        curve(result) if result["axis"] else table(result),
    ])


def table(result):
    rate_name, cpu_name = {
        "GiB": ("GiB/s", "CPU s/GiB"), "object": ("objects/s", "CPU ms/object"), "run": ("", "CPU ms"),
    }[result["per"]]
    base = next((line for line in result["lines"] if line["client"] == result["base"] and "wall_s" in line), None)
    peers = [line for line in result["lines"] if line["client"] not in NOT_PEERS and "wall_s" in line]
    best = min((median(line, "wall_s") for line in peers), default=None) if result["base"] else None

    columns = ["client", "settings", "wall s"]
    if rate_name:
        columns.append(rate_name)
    columns += [cpu_name, "peak MiB"]
    if base:
        columns += [f"speed, of the {result['base']}'s", f"CPU, times the {result['base']}'s"]
    if best:
        columns.append("speed, times the best peer's")

    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for line in result["lines"]:
        cells = [line["client"], line["setting"]]
        if "wall_s" not in line:
            cells += ["–"] * (len(columns) - len(cells))
        else:
            wall = median(line, "wall_s")
            cells.append(with_spread(line["wall_s"]))
            if rate_name:
                cells.append(number(rate(result, line)))
            cells.append(number(cpu(result, line)))
            cells.append(f"{median(line, 'peak_mib'):.0f}" if "peak_mib" in line else "–")
            if base:
                cells.append(f"{100 * median(base, 'wall_s') / wall:.0f}%")
                cells.append(number(median(line, "cpu_s") / max(median(base, "cpu_s"), 1e-9)))
            if best:
                cells.append("–" if line["client"] == "disk" else number(best / wall))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(result):
    lines = [f"| {result['axis']} | wall s | GiB/s | CPU s/GiB | peak MiB |", "|---|---|---|---|---|"]
    for line in result["lines"]:
        if "wall_s" not in line:
            lines.append(f"| {line['setting']} | – | – | – | – |")
            continue
        lines.append(
            f"| {line['setting']} | {with_spread(line['wall_s'])} | {number(rate(result, line))} "
            f"| {number(cpu(result, line))} | {median(line, 'peak_mib'):.0f} |"
        )
    return "\n".join(lines)


def median(line, column):
    return line[column]["median"]


def rate(result, line):
    """GiB or objects a second."""
    if result["per"] == "object":
        return result["objects"] / median(line, "wall_s")
    return line.get("bytes", result["bytes"]) / GIB / median(line, "wall_s")


def cpu(result, line):
    """CPU seconds a GiB, or milliseconds an object or a run."""
    seconds = median(line, "cpu_s")
    if result["per"] == "GiB":
        return seconds * GIB / line.get("bytes", result["bytes"])
    return 1000 * seconds / (result["objects"] if result["per"] == "object" else 1)


def with_spread(column):
    return f"{number(column['median'])} ({number(column['min'])}–{number(column['max'])})"


def number(value):
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
