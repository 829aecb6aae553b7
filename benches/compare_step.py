#!/usr/bin/env python3
"""Training steps and inference of this program beside PyTorch's, in turn on the same machine; prints medians and their ratios.

    cargo build --release
    python3 -m venv V && V/bin/pip install torch
    V/bin/python benches/compare_step.py --net wrn22-2 --sparsity 0 0.8 0.9 0.95 0.99
    V/bin/python benches/compare_step.py --net resnet50 --distribution uniform --json

Every round runs the opponent (benches/peers/torch_step.py, PyTorch with w * mask inside the step) and then this program at each
sparsity, each as a process of its own. PyTorch's time does not depend on how many of its weights are zero, so one density stands for all.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
NETS = {"wrn22-2": ("cifar10-wrn22-2", 128), "resnet50": ("cifar10-resnet50", 32)}


def run(command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
    return json.loads(result.stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--net", choices=NETS, default="wrn22-2")
    p.add_argument("--sparsity", type=float, nargs="+", default=[0.0, 0.8, 0.9, 0.95, 0.99])
    p.add_argument("--distribution", choices=("erk", "uniform"), default="erk")
    p.add_argument("--batch", type=int, help="images of a step; default: the network's in the paper")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3, help="processes of each; the steps within a process are medians already")
    p.add_argument("--what", choices=("step", "inference"), default="step")
    p.add_argument("--mode", choices=("eager", "compile"), default="eager")
    p.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    p.add_argument("--cigl", type=pathlib.Path, default=HERE.parent / "target" / "release" / "cigl")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    preset, batch = NETS[a.net]
    batch = a.batch or batch
    rate = "train_img_s" if a.what == "step" else "infer_img_s"

    def torch():
        command = [sys.executable, HERE / "peers" / "torch_step.py", "--net", a.net, "--batch", batch, "--threads", a.threads]
        return run(command + ["--mode", a.mode, "--dtype", a.dtype])

    def ours(sparsity):
        method = ["--method", "dense"] if sparsity == 0 else ["--sparsity", sparsity]
        command = [a.cigl, "bench", a.what, "--preset", preset, "--batch", batch, "--threads", a.threads, "--json"]
        return run(command + method + ["--set", f"sparse.distribution={a.distribution}"])

    theirs, mine = [], {s: [] for s in a.sparsity}
    for _ in range(a.rounds):
        theirs.append(torch())
        for s in a.sparsity:
            mine[s].append(ours(s))

    median = lambda rows, key: statistics.median(row[key] for row in rows)
    opponent = median(theirs, rate)
    rows = []
    for s in a.sparsity:
        row = {"net": a.net, "what": a.what, "distribution": a.distribution, "sparsity": s, "batch": batch, "threads": a.threads}
        row |= {"device": mine[s][0]["device"], "img_s": median(mine[s], rate), "torch_img_s": opponent}
        row["ratio"] = row["img_s"] / opponent
        if a.what == "step":
            row["memory_ratio"] = median(mine[s], "peak_bytes") / median(theirs, "peak_bytes")
        rows.append(row)
    if a.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{a.net} {a.what}, batch {batch}, {a.distribution}, {rows[0]['device']}; PyTorch {theirs[0]['torch']} {a.mode} {a.dtype}: {opponent:.1f} images/s")
    print("| sparsity | images/s | ratio to PyTorch | peak memory ratio |\n|---|---:|---:|---:|")
    for r in rows:
        memory = f"{r['memory_ratio']:.2f}" if "memory_ratio" in r else ""
        print(f"| {100 * r['sparsity']:g} % | {r['img_s']:.1f} | {r['ratio']:.2f} | {memory} |")


if __name__ == "__main__":
    main()
