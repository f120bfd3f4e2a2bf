"""What the paper printed in its Table 1, to the digit, and the notes that belong below our table.

Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10". MB are 2^20 bytes; "computational
complexity" is in GMac.
"""

PRINTED: dict[str, dict[str, str]] = {
    model: dict(zip(("accuracy", "state", "latency", "macs", "parameters"), texts, strict=True))
    for model, texts in {
        "1-bit ViT": ("0.405", "327.33", "0.010", "17.59", "85.81"),
        "ViT": ("0.986", "327.33", "0.297", "17.59", "85.81"),
        "Resnet 18": ("0.948", "42.65", "0.054", "1.82", "11.18"),
        "VGG16": ("0.936", "512.32", "0.032", "15.52", "134.3"),
    }.items()
}


def notes(*, runs: bool, gpu: bool, timed: str) -> list[str]:
    """What a reader of the table needs to know.

    Args:
        runs: Whether the table has accuracies of ours.
        gpu: Whether it was made on a GPU.
        timed: On what and how latencies were measured; "" where none was.
    """
    # GFLOP / ms = TFLOP/s
    rate = {name: 2 * float(row["macs"]) / float(row["latency"]) for name, row in PRINTED.items()}
    vgg, resnet = PRINTED["VGG16"], PRINTED["Resnet 18"]
    times_macs, times_latency = (float(vgg[key]) / float(resnet[key]) for key in ("macs", "latency"))
    texts = [
        "Values: ViT-B/16 is built from its configuration and the baselines without a checkpoint, all with "
        "random weights; of the cells only accuracy depends on them."
        + ("" if runs else " Our accuracies need a run: ablate table1 RUN."),
        "Size: the fp32 state is the parameters at 4 bytes, without BatchNorm's statistics; MB are 2^20 "
        "bytes, as printed. The 1-bit ViT stays at 327.33 MB because BitLinear keeps its weights in fp32, "
        "for training, and rounds them anew in every forward pass: a checkpoint of its parameters is a "
        "full-precision one. The packed file has the signs, 8 to a byte; of a full-precision model it is "
        "the same weights. With the classifier alone at 1 bit, 7,680 of 85.8 million weights get smaller.",
        "Bit operations: MACs x weight bits x activation bits, 32 x 32 for what is not quantized. "
        "ResNet-18 and VGG-16 have no transformer layers, and convolutions are not quantized here.",
        f"Printed times: the printed MACs in them would be {rate['1-bit ViT']:,.0f} (1-bit ViT), "
        f"{rate['ViT']:,.0f} (ViT), {rate['Resnet 18']:,.0f} (ResNet-18) and {rate['VGG16']:,.0f} TFLOP/s "
        f"(VGG-16); and VGG-16, with {times_macs:.1f} times the MACs of ResNet-18, would take "
        f"{times_latency:.1f} times its time. The likely cause is a clock read without synchronising: a "
        "CUDA call returns when its work is queued, not when it is done, and queueing takes longer the "
        "more kernels there are, however large. That does not explain 0.010 beside 0.297: the 1-bit model "
        "has more kernels to queue.",
    ]
    if timed and gpu:
        texts.append(
            "Until the call returned: measured here, without synchronising, to show what such a clock would "
            "read. With few images a call the GPU waits for the host, and both read about the same: give "
            "--batch 32."
        )
    elif timed:
        texts.append("Not measured: what such a clock would read. It takes a GPU, and there is none here.")
    if timed:
        texts.append(
            "Latency: the median of n calls after 3 for warm-up, each synchronised, over the images of a "
            f"call; {timed}. Quantized models run packed, on integer arithmetic."
        )
    return texts
