"""Draws the charts of performance/results.json: plots.py FOLDER [svg|png]. Runs in the peers' Python."""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("agg")
# The same picture from the same numbers, so that only what changed is a change.
matplotlib.rcParams["svg.hashsalt"] = "brigade"

import matplotlib.pyplot as plt  # noqa: E402
import report  # noqa: E402

COLORS = {"brigade": "#c2410c", "floor": "#1e293b", "disk": "#1e293b"}
PEER = "#94a3b8"


def bars(result):
    """Speed and CPU time side by side, a bar for every client and setting."""
    lines = [line for line in result["lines"] if "wall_s" in line][::-1]
    names = [f"{line['client']}, {line['setting']}" if line["setting"] else line["client"] for line in lines]
    colors = [COLORS.get(line["client"], PEER) for line in lines]
    per = result["per"]
    if per == "run":
        panels = [("wall ms", [1000 * report.median(line, "wall_s") for line in lines])]
    else:
        panels = [("GiB/s" if per == "GiB" else "objects/s", [report.rate(result, line) for line in lines])]
    cpu_name = {"GiB": "CPU s/GiB", "object": "CPU ms/object", "run": "CPU ms"}[per]
    panels.append((cpu_name, [report.cpu(result, line) for line in lines]))

    figure, axes = plt.subplots(1, 2, figsize=(10, 0.9 + 0.27 * len(lines)), sharey=True, layout="constrained")
    for axis, (title, values) in zip(axes, panels):
        drawn = axis.barh(range(len(values)), values, color=colors)
        axis.bar_label(drawn, labels=[report.number(value) for value in values], padding=3, fontsize=8)
        axis.set_xlim(0, max(values) * 1.18)
        axis.set_title(title, fontsize=10)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def course(result):
    """Speed and CPU time over the axis, which doubles."""
    lines = [line for line in result["lines"] if "wall_s" in line]
    x = [line["x"] for line in lines]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    for axis, title, value in ((axes[0], "GiB/s", report.rate), (axes[1], "CPU s/GiB", report.cpu)):
        axis.plot(x, [value(result, line) for line in lines], marker="o", color=COLORS["brigade"])
        axis.set_xscale("log", base=2)
        axis.set_xticks(x, [line["setting"] for line in lines], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel(result["axis"] if result["axis"] != "bytes" else "", fontsize=9)
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="y", labelsize=8)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    # A thousand seconds a GiB for a single mebibyte would leave nothing to see of the rest.
    values = [report.cpu(result, line) for line in lines]
    if values and max(values) > 20 * min(values):
        axes[1].set_yscale("log")
    return figure


def main():
    folder = pathlib.Path(sys.argv[1])
    kind = sys.argv[2] if len(sys.argv) > 2 else "svg"
    for name, result in json.loads((folder / "results.json").read_text()).items():
        if not any("wall_s" in line for line in result["lines"]):
            continue
        figure = course(result) if result["axis"] else bars(result)
        how = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 110}
        figure.savefig(folder / f"{name}.{kind}", **how)
        plt.close(figure)


if __name__ == "__main__":
    main()
