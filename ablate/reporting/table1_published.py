"""What the paper printed in its Table 1, to the digit, and what is to be said about it.

Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10". MB are 2^20 bytes; "computational complexity" is in GMac.
"""

PRINTED: dict[str, dict[str, str]] = {
    "1-bit ViT": {
        "accuracy": "0.405",
        "state": "327.33",
        "latency": "0.010",
        "macs": "17.59",
        "parameters": "85.81",
    },
    "ViT": {
        "accuracy": "0.986",
        "state": "327.33",
        "latency": "0.297",
        "macs": "17.59",
        "parameters": "85.81",
    },
    "Resnet 18": {
        "accuracy": "0.948",
        "state": "42.65",
        "latency": "0.054",
        "macs": "1.82",
        "parameters": "11.18",
    },
    "VGG16": {
        "accuracy": "0.936",
        "state": "512.32",
        "latency": "0.032",
        "macs": "15.52",
        "parameters": "134.3",
    },
}


def notes(*, runs: bool, gpu: bool, timed: str) -> list[str]:
    """What a reader of the table needs to know. timed: how and where latencies were measured, "" where none was."""
    rate = {
        name: 2 * float(p["macs"]) / float(p["latency"]) for name, p in PRINTED.items()
    }  # GFLOP / ms = TFLOP/s
    vgg, resnet = PRINTED["VGG16"], PRINTED["Resnet 18"]
    work, time = (float(vgg[key]) / float(resnet[key]) for key in ("macs", "latency"))
    found = [
        "Values: ViT-B/16 is built from its configuration and the baselines without a checkpoint, all with random weights; of "
        "the cells only accuracy depends on them."
        + ("" if runs else " Our accuracies need a run: ablate table1 RUN."),
        "Size: the fp32 state is the parameters at 4 bytes, without BatchNorm's statistics; MB are 2^20 bytes, as printed. The "
        "1-bit ViT stays at 327.33 MB because BitLinear keeps its weights in fp32, for training, and rounds them anew in "
        "every forward pass: a checkpoint of its parameters is a full-precision one. The packed file has the signs, 8 to a "
        "byte; of a full-precision model it is the same weights. With the classifier alone at 1 bit, 7,680 of 85.8 million "
        "weights get smaller.",
        "Bit operations: MACs x weight bits x activation bits, 32 x 32 for what is not quantized. ResNet-18 and VGG-16 have no "
        "transformer layers, and convolutions are not quantized here.",
        f"Printed times: the printed MACs in them would be {rate['1-bit ViT']:,.0f} (1-bit ViT), {rate['ViT']:,.0f} (ViT), "
        f"{rate['Resnet 18']:,.0f} (ResNet-18) and {rate['VGG16']:,.0f} TFLOP/s (VGG-16); and VGG-16, with {work:.1f} times "
        f"the MACs of ResNet-18, would take {time:.1f} times its time. The likely cause is a clock read without synchronising: "
        "a CUDA call returns when its work is queued, not when it is done, and queueing takes the longer the more kernels "
        "there are, however large. That does not explain 0.010 beside 0.297: the 1-bit model has more kernels to queue.",
    ]
    if timed and gpu:
        found.append(
            "Until the call returned: measured here, without synchronising, to show what such a clock would read. With few "
            "images a call the GPU waits for the host, and both read about the same: give --batch 32."
        )
    elif timed:
        found.append("Not measured: what such a clock would read. It takes a GPU, and there is none here.")
    if timed:
        found.append(
            "Latency: the median of n calls after 3 for warm-up, each synchronised, over the images of a call; "
            f"{timed}. Quantized models run packed, on integer arithmetic."
        )
    return found
