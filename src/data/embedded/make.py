#!/usr/bin/env python3
"""Makes the embedded data sets: gzipped IDX files beside this script.

    make.py DATA

DATA holds fashion-mnist/ with the four original .gz files (https://github.com/zalandoresearch/fashion-mnist) and
digits/ with optdigits.tra and optdigits.tes (https://doi.org/10.24432/C50P49). Running it again gives the same bytes
on the same zlib.
"""
import gzip
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def write(name, shape, data):
    """One IDX file of unsigned bytes: 0, 0, type 8, rank, the sizes big-endian, the bytes in row-major order."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    (HERE / name).write_bytes(gzip.compress(header + data, 9, mtime=0))


def fashion(folder, source, name, count):
    images = gzip.decompress((folder / f"{source}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{source}-labels-idx1-ubyte.gz").read_bytes())
    write(f"fashion-{name}-images.gz", (count, 28, 28), images[16:16 + count * 784])
    write(f"fashion-{name}-labels.gz", (count,), labels[8:8 + count])


def digits(file, name):
    rows = [[int(v) for v in line.split(",")] for line in file.read_text().split()]
    write(f"digits-{name}-images.gz", (len(rows), 8, 8), bytes(v for row in rows for v in row[:64]))
    write(f"digits-{name}-labels.gz", (len(rows),), bytes(row[64] for row in rows))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    data = Path(sys.argv[1])
    fashion(data / "fashion-mnist", "train", "train", 3000)
    fashion(data / "fashion-mnist", "t10k", "test", 2000)
    digits(data / "digits" / "optdigits.tra", "train")
    digits(data / "digits" / "optdigits.tes", "test")


if __name__ == "__main__":
    main()
