"""Times `cigl calibrate` and torchmetrics in turn on 50,000 x 1,000 f32 logits, on two threads each.

    pip install numpy torch torchmetrics
    python benches/torchmetrics_calibration.py target/release/cigl

torchmetrics has its logits in memory before the clock starts and computes the top-label metrics it has: ECE, RMSCE, MCE (15 bins),
accuracy, top-5 accuracy; NLL and the Brier score come from torch. `cigl` starts as a program, reads the file from the page cache
and computes everything it has.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchmetrics.functional.classification as tm

N, C, ROUNDS = 50_000, 1000, 7
torch.set_num_threads(2)
folder = Path(tempfile.mkdtemp())
random = np.random.default_rng(0)
logits = (2 * random.standard_normal((N, C))).astype(np.float32)
labels = random.integers(C, size=N)
logits[np.arange(N), labels] += 6
np.save(folder / "logits.npy", logits)
np.save(folder / "labels.npy", labels)
z, y = torch.tensor(logits), torch.tensor(labels)


def ece():
    return tm.multiclass_calibration_error(z, y, num_classes=C, n_bins=15, norm="l1")


def everything():
    p = z.softmax(1)
    for norm in ["l1", "l2", "max"]:
        tm.multiclass_calibration_error(p, y, num_classes=C, n_bins=15, norm=norm)
    tm.multiclass_accuracy(p, y, num_classes=C, average="micro")
    tm.multiclass_accuracy(p, y, num_classes=C, average="micro", top_k=5)
    torch.nn.functional.cross_entropy(z, y)
    (p.square().sum(1) - 2 * p.gather(1, y[:, None])[:, 0] + 1).mean()


def ours():
    files = [folder / "logits.npy", "--labels", folder / "labels.npy", "--kind", "logits", "--json", "--threads", "2"]
    subprocess.check_output([sys.argv[1], "calibrate", *map(str, files)])


times = {f: [] for f in [ece, everything, ours]}
for f in times:
    f()
for _ in range(ROUNDS):
    for f, taken in times.items():
        start = time.perf_counter()
        f()
        taken.append(time.perf_counter() - start)
median = {f: statistics.median(taken) for f, taken in times.items()}
for f, taken in times.items():
    print(f"{f.__name__:12} median {1e3 * median[f]:8.1f} ms  from {1e3 * min(taken):8.1f} to {1e3 * max(taken):8.1f}")
print(f"cigl, everything: {median[ece] / median[ours]:.1f}x torchmetrics' ECE alone, "
      f"{median[everything] / median[ours]:.1f}x torchmetrics' and torch's top-label metrics")
