#!/usr/bin/env python3
"""Training and inference of WRN-22-2 against sparsity, batch size and threads, beside PyTorch's dense network: a plot and its numbers.

    cargo build --release
    python3 -m venv V && V/bin/pip install torch matplotlib
    V/bin/python benches/plot_scaling.py --out scaling.png

Points come from compare_step.py: each is the median of --rounds processes of either side, in turn. The numbers go to OUT.json, from
which --from draws again.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

HERE = pathlib.Path(__file__).resolve().parent
SPARSITIES = [0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.995]
BATCHES = [1, 16, 64, 128, 256]


def measure(rounds, **options):
    command = [sys.executable, HERE / "compare_step.py", "--json", "--rounds", rounds]
    for name, value in options.items():
        command += [f"--{name}", *(value if isinstance(value, list) else [value])]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=pathlib.Path, required=True, help="the picture, .png or .svg")
    p.add_argument("--machine", default="", help="words for the title, such as the processor's name")
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--from", dest="source", type=pathlib.Path, help="draw these numbers again instead of measuring")
    a = p.parse_args()
    if a.source:
        rows = json.loads(a.source.read_text())
    else:
        rows = [r for threads in (2, 1) for r in measure(a.rounds, what="step", threads=threads, sparsity=SPARSITIES)]
        rows += [r for threads in (2, 1) for r in measure(a.rounds, what="inference", threads=threads, sparsity=SPARSITIES)]
        rows += [r for batch in BATCHES if batch != 128 for what in ("step", "inference")
                 for r in measure(a.rounds, what=what, batch=batch, sparsity=[0, 0.9, 0.99])]
        a.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")

    plt.rcParams.update({"font.size": 10, "axes.grid": True, "grid.color": "#e2e2e2", "svg.hashsalt": "cigl"})
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), constrained_layout=True)
    looks = {2: ("#0072b2", "o"), 1: ("#c44e00", "s")}
    for axis, what in zip(axes[0], ("step", "inference")):
        for threads, (color, marker) in looks.items():
            of = [r for r in rows if (r["what"], r["threads"], r["batch"]) == (what, threads, 128) and r["sparsity"] in SPARSITIES]
            of = sorted({r["sparsity"]: r for r in of}.items())
            name = f"{threads} thread{'s' if threads > 1 else ''}"
            at = [SPARSITIES.index(s) for s, _ in of]
            axis.plot(at, [r["img_s"] for _, r in of], color=color, marker=marker, label=f"cigl, {name}")
            axis.axhline(of[0][1]["torch_img_s"], color=color, linestyle="--" if threads == 2 else ":", label=f"PyTorch, {name}")
        axis.set_xticks(range(len(SPARSITIES)), [f"{100 * s:g}" for s in SPARSITIES])
        axis.set(xlabel="sparsity (%)", ylabel="images/s", yscale="log", title="training step, batch 128" if what == "step" else "inference, batch 128")
        axis.legend()
    styles = {0: ("#222222", "v", "dense"), 0.9: ("#0072b2", "o", "90 % sparse"), 0.99: ("#008060", "^", "99 % sparse")}
    for axis, what in zip(axes[1], ("step", "inference")):
        of = [r for r in rows if r["what"] == what and r["threads"] == 2]
        for sparsity, (color, marker, name) in styles.items():
            line = sorted({r["batch"]: r["img_s"] for r in of if r["sparsity"] == sparsity}.items())
            axis.plot([BATCHES.index(b) for b, _ in line], [y for _, y in line], color=color, marker=marker, label=f"cigl, {name}")
        line = sorted({r["batch"]: r["torch_img_s"] for r in of if r["sparsity"] == 0}.items())
        axis.plot([BATCHES.index(b) for b, _ in line], [y for _, y in line], color="#c44e00", marker="s", linestyle="--", label="PyTorch, dense")
        axis.set_xticks(range(len(BATCHES)), BATCHES)
        axis.set(xlabel="batch size, 2 threads", ylabel="images/s", yscale="log", title="training step" if what == "step" else "inference")
        # Room for the names below the lines.
        axis.set_ylim(axis.get_ylim()[0] / 3, None)
        axis.legend(loc="lower right")
    for axis in axes.flat:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    figure.suptitle(" · ".join(["WRN-22-2, ERK", *([a.machine] if a.machine else []), rows[0]["device"]]))
    figure.savefig(a.out, dpi=110)


if __name__ == "__main__":
    main()
