"""Compares `cigl calibrate` with scikit-learn, torchmetrics and netcal on the same random predictions.

    pip install numpy torch scikit-learn torchmetrics netcal
    python benches/compare_calibration.py target/release/cigl

What it found is in docs/calibration-comparison.md.
"""

import json
import math
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import netcal.binning
import netcal.metrics
import netcal.scaling
import numpy as np
import sklearn.isotonic
import sklearn.metrics as sk
import torch
import torchmetrics.functional.classification as tm

program = sys.argv[1]
folder = Path(tempfile.mkdtemp())


def predictions(n, classes, sharpness, seed):
    """Logits that are `sharpness` times too sure, f64 softmax of what the file holds, labels."""
    random = np.random.default_rng(seed)
    z = 2 * random.normal(size=(n, classes))
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    labels = (p.cumsum(1) > random.random((n, 1))).argmax(1)
    return (sharpness * z).astype(np.float32), labels


def softmax(z):
    z = z.astype(np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def calibrate(*arguments):
    return json.loads(subprocess.check_output([program, "calibrate", *map(str, arguments), "--json"]))


def row(key, ours, name, theirs):
    print(f"{key:28} {ours:.10f}  {theirs:.10f}  {abs(ours - theirs):9.1e}  {name}")


print(f"{'':28} cigl          other         difference")
for library in ["scikit-learn", "torchmetrics", "netcal", "torch", "numpy"]:
    print(library, version(library))
for n, classes, sharpness, seed in [(2000, 10, 2, 0), (20000, 100, 2, 1), (5000, 10, 1, 2)]:
    z, y = predictions(n, classes, sharpness, seed)
    zv, yv = predictions(n, classes, sharpness, seed + 100)
    zo, _ = predictions(n // 2, classes, 1, seed + 200)
    test, validation, ood = (folder / f"{name}{seed}.npz" for name in ["test", "validation", "ood"])
    np.savez(test, logits=z, labels=y)
    np.savez(validation, logits=zv, labels=yv)
    np.savez(ood, logits=zo)
    p, pv, po = softmax(z), softmax(zv), softmax(zo)
    ours = calibrate(test, "--ood", ood)
    print(f"\nn = {n}, {classes} classes, logits {sharpness} times too large")

    every = np.arange(classes)
    one_hot = np.eye(classes)[y]
    row("accuracy", ours["accuracy"], "sklearn", sk.accuracy_score(y, p.argmax(1)))
    row("top5", ours["top5"], "sklearn", sk.top_k_accuracy_score(y, p, k=5))
    row("nll", ours["nll"], "sklearn", sk.log_loss(y, p, labels=every))
    row("brier", ours["brier"], "sklearn", sk.brier_score_loss(y, p, labels=every, scale_by_half=False))
    confidence, outside = p.max(1), po.max(1)
    inside = np.r_[np.ones(n), np.zeros(len(po))]
    both = np.r_[confidence, outside].astype(np.float32)
    row("auroc", ours["auroc"], "sklearn", sk.roc_auc_score(inside, both))
    row("aupr", ours["aupr"], "sklearn", sk.average_precision_score(inside, both))
    fpr, tpr, _ = sk.roc_curve(inside, both, drop_intermediate=False)
    row("fpr95", ours["fpr95"], "sklearn", fpr[tpr >= 0.95][0])

    tz, ty = torch.tensor(p, dtype=torch.float32), torch.tensor(y)
    for key, norm in [("ece", "l1"), ("rmsce", "l2"), ("mce", "max")]:
        theirs = float(tm.multiclass_calibration_error(tz, ty, num_classes=classes, n_bins=15, norm=norm))
        row(key, ours[key], "torchmetrics", theirs)
    theirs = float(tm.multiclass_accuracy(tz, ty, num_classes=classes, top_k=5, average="micro"))
    row("top5", ours["top5"], "torchmetrics", theirs)

    row("ece", ours["ece"], "netcal", netcal.metrics.ECE(15).measure(p, y))
    row("mce", ours["mce"], "netcal", netcal.metrics.MCE(15).measure(p, y))
    row("ace", ours["ace"], "netcal ACE (another thing)", netcal.metrics.ACE(15).measure(p, y))
    mass = netcal.metrics.ECE(15, equal_intervals=False)
    row("ace", ours["ace"], "netcal ECE, equal mass", mass.measure(p, y))
    for bins in [1, 10, 25]:
        found = calibrate(test, "--bins", bins)
        row(f"ece, {bins} bins", found["ece"], "netcal", netcal.metrics.ECE(bins).measure(p, y))

    found = calibrate(test, "--recalibrate", "temperature", "--fit", validation)
    scaler = netcal.scaling.TemperatureScaling(method="mle")
    scaler.fit(pv, yv)
    row("temperature", found["recalibration"]["temperature"], "1 / netcal", 1 / float(scaler.temperature[0]))
    row("  nll after", found["nll"], "netcal", sk.log_loss(y, scaler.transform(p), labels=every))

    found = calibrate(test, "--recalibrate", "isotonic", "--fit", validation)
    mended = np.zeros_like(p)
    for k in every:
        curve = sklearn.isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        mended[:, k] = curve.fit(pv[:, k], yv == k).predict(p[:, k])
    mended /= mended.sum(1, keepdims=True)
    row("isotonic: accuracy", found["accuracy"], "sklearn", (mended.argmax(1) == y).mean())
    floor = -np.log(np.maximum(mended[np.arange(n), y], 1e-12)).mean()
    row("isotonic: nll", found["nll"], "sklearn", floor)
    top = calibrate(test, "--recalibrate", "isotonic", "--fit", validation, "--top-label")
    curve = sklearn.isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    mapped = curve.fit(pv.max(1), pv.argmax(1) == yv).predict(confidence)
    hit = p.argmax(1) == y
    edges = np.clip(np.ceil(np.float32(mapped) * np.float32(15)).astype(int) - 1, 0, 14)
    ece = sum(abs(hit[edges == b].sum() - mapped[edges == b].sum()) for b in range(15)) / n
    row("isotonic, top label: ece", top["ece"], "sklearn and numpy", ece)

    found = calibrate(test, "--recalibrate", "histogram", "--fit", validation, "--top-label")
    rates = netcal.binning.HistogramBinning(15)
    rates.fit(pv.max(1), (pv.argmax(1) == yv).astype(int))
    row("histogram, top label: ece", found["ece"], "netcal", netcal.metrics.ECE(15).measure(rates.transform(confidence), hit.astype(int)))

    found = calibrate(test, "--recalibrate", "vector", "--fit", validation)
    w, b = torch.ones(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    w.requires_grad_(), b.requires_grad_()
    zt, yt = torch.tensor(zv, dtype=torch.float64), torch.tensor(yv)
    search = torch.optim.LBFGS([w, b], max_iter=1000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(zt * w + b, yt)
        loss.backward()
        return loss

    search.step(closure)
    with torch.no_grad():
        theirs = float(torch.nn.functional.cross_entropy(torch.tensor(z, dtype=torch.float64) * w + b, torch.tensor(y)))
    row("vector scaling: nll", found["nll"], "torch L-BFGS", theirs)

# The known disagreement: .95 right and 1.0 wrong share the last of ten bins.
with open(folder / "edge.csv", "w") as file:
    file.write("0,0.95,0.05\n1,1,0\n")
found = calibrate(folder / "edge.csv", "--bins", 10)
edge = torch.tensor([[0.95, 0.05], [1.0, 0.0]])
theirs = float(tm.multiclass_calibration_error(edge, torch.tensor([0, 1]), num_classes=2, n_bins=10, norm="l1"))
print()
row(".95 right, 1.0 wrong: ece", found["ece"], "torchmetrics", theirs)
theirs = netcal.metrics.ECE(10).measure(edge.numpy(), np.array([0, 1]))
row(".95 right, 1.0 wrong: ece", found["ece"], "netcal", theirs)
assert math.isclose(found["ece"], 0.475, abs_tol=1e-6)
