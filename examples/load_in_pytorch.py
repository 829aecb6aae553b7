#!/usr/bin/env python3
"""Loads a model that cigl trained into PyTorch: pip install torch safetensors numpy

    load_in_pytorch.py RUN/checkpoint/model.safetensors                      sparsity of each layer
    load_in_pytorch.py RUN/checkpoint/model.safetensors IMAGES.gz LABELS.gz  accuracy and NLL of the small convnet

IMAGES.gz and LABELS.gz are gzipped IDX files, as Fashion-MNIST and MNIST are published. How pixels become the network's
input is written in the model file. Weights outside a mask are stored as zeros, so the tensors are used as they are; the
masks only say which zeros are meant.
"""
import argparse
import gzip
import json

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn


class SmallConvnet(nn.Module):
    """Five 3x3 conv-BN-ReLU, global average pool, linear; the names are those in the file."""

    def __init__(self, inputs, classes):
        super().__init__()
        layers = enumerate([(16, 1), (32, 2), (32, 1), (64, 2), (64, 1)], start=1)
        for layer, (outputs, stride) in layers:
            self.add_module(f"conv{layer}", nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False))
            self.add_module(f"bn{layer}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        for layer in range(1, 6):
            conv, bn = getattr(self, f"conv{layer}"), getattr(self, f"bn{layer}")
            x = F.relu(bn(conv(x)))
        return self.fc(x.mean(dim=(2, 3)))


def load(path):
    """(tensors, masks) by the weights' names, of any network."""
    tensors = load_file(path)
    masks = {name.removesuffix(".mask"): tensors.pop(name) for name in list(tensors) if name.endswith(".mask")}
    return tensors, masks


def print_sparsities(masks):
    for name, mask in sorted(masks.items()):
        print(f"{name:45} {str(tuple(mask.shape)):20} {1 - mask.float().mean():7.2%}")
    zeros, total = sum(int((m == 0).sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    print(f"{'all masked weights':45} {total:<20,} {zeros / max(total, 1):7.2%}")


def read_idx(path):
    """Bytes of a gzipped IDX file: two zeros, the type, the rank, the sizes big-endian, the values in row-major order."""
    with gzip.open(path) as file:
        data = file.read()
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def normalise(pixels, model):
    """(N, H, W) pixels as the network's input (N, 1, H, W): (scale * pixel - mean) / std, with the model file's numbers."""
    with safe_open(model, "pt") as file:
        how = json.loads(file.metadata()["cigl"])["normalisation"]
    images = torch.from_numpy(pixels.astype(np.float32)).unsqueeze(1)
    return (images * how["scale"] - how["mean"][0]) / how["std"][0]


def evaluate(tensors, images, labels):
    classes, inputs = tensors["fc.weight"].shape[0], tensors["conv1.weight"].shape[1]
    net = SmallConvnet(inputs, classes).eval()
    # PyTorch counts the batches that a batch norm has seen; nothing in evaluation reads that counter.
    missing, unexpected = net.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    with torch.no_grad():
        logits = torch.cat([net(batch) for batch in images.split(256)])
    accuracy = (logits.argmax(1) == labels).float().mean()
    print(f"{len(labels):,} images: accuracy {accuracy:.2%}, NLL {F.cross_entropy(logits, labels):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", nargs="?")
    parser.add_argument("labels", nargs="?")
    arguments = parser.parse_args()
    tensors, masks = load(arguments.model)
    print_sparsities(masks)
    if arguments.images and arguments.labels:
        labels = torch.from_numpy(read_idx(arguments.labels).astype(np.int64))
        evaluate(tensors, normalise(read_idx(arguments.images), arguments.model), labels)


if __name__ == "__main__":
    main()
