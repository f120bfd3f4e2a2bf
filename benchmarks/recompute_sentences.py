"""The sentences of README and docs that state a result, with their numbers as `recompute` computes them."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from recompute import (
    Seeds,
    Sentence,
    arm,
    change,
    hypervolume,
    interval,
    less,
    percent,
    published,
    records,
    table1,
)

Fields = Mapping[str, Any]
FULL, BINARY, TERNARY = ({"weights": name} for name in ("full", "binary", "ternary"))
# The ladder's fields at the bottom, and what each rung changes of them.
BOTTOM: dict[str, Any] = {
    "weights": "binary",
    "beta": 8.0,
    "beta_per": "tensor",
    "optimizer": "sgd",
    "warmup": 0.0,
    "activation_scale": "tensor",
    "norm": True,
    "augment": False,
    "distill": 0.0,
    "ema": 0.0,
}
STEPS: dict[str, dict[str, Any]] = {
    "beta": {"beta": "absmean"},
    "AdamW": {"optimizer": "adamw"},
    "warm-up": {"warmup": 0.1},
    "gamma": {"activation_scale": "token"},
    "norm": {"norm": "unnormalised"},
    "augment": {"augment": True},
    "channel": {"beta_per": "channel"},
    "distill": {"distill": 0.5},
    "last": {"ema": 0.99},
}
CONTRASTS = 2 * len(STEPS) + 1  # of the ladder: a gain for each rung and the reference, a cost for each step
PLAIN = {"optimizer": "adamw", "augment": True, "norm": False}
NOT_AUGMENTED = {"optimizer": "adamw", "augment": False}
FEW, MIDDLE, MANY = 200, 2000, 20_000  # images
BY_PAPER = {**BINARY, "optimizer": "sgd", "norm": True}


def sentences() -> Iterator[Sentence]:
    """All of them."""
    for part in PARTS:
        yield from part()


def demo() -> Iterator[Sentence]:
    run, rows = "results/layers_bits", records("layers_bits")
    groups = {group for row in rows for group in row["spec"]["layers"]}
    outer = {group for group in groups if group.startswith(("head", "block0."))}
    anchors = {
        "full": ("full", set()),
        "ternary": ("ternary", groups),
        "binary": ("binary", groups),
        "outer": ("binary", groups - outer),
    }
    found, spreads = {}, []
    for name, (kind, quantized) in anchors.items():
        of_kind = [row for row in rows if row["arm"] == kind and {*row["spec"]["layers"]} == quantized]
        (own,) = [row for row in of_kind if row["seed"] == 0]
        found[name] = f"{own['accuracy']:.1%}".replace("%", " %"), f"{own['size_bytes'] / 2**20:.1f} MiB"
        spreads.append(np.ptp([row["accuracy"] for row in of_kind]))
    (full, large), (ternary, middle), (binary, small), (but_outer, medium) = found.values()
    except_outer = f"and binary except for the head and the first block {but_outer} in {medium}"
    apart = f"lie up to {100 * max(spreads):.1f} points apart"
    words = f"{full} validation accuracy in {large}, all binary {binary} in {small}, {except_outer}"
    yield Sentence("README.md", run, words)
    words = f"{full} in {large}, all ternary {ternary} in {middle}, all binary {binary} in {small}, {except_outer}"
    yield Sentence("docs/results.md", run, words)
    for document in ("README.md", "docs/results.md"):
        yield Sentence(document, run, apart)


def rungs() -> dict[str, Seeds]:
    """The ladder's accuracies: "base", then each step's."""
    fields, found = dict(BOTTOM), {"base": arm("ladder", BOTTOM)}
    for name, changed in STEPS.items():
        fields |= changed
        found[name] = arm("ladder", fields)
    return found


def without(step: str) -> Seeds:
    """The ladder's top without one step."""
    top = {key: value for changed in STEPS.values() for key, value in changed.items()}
    fields = {**BINARY, **top, **{key: BOTTOM[key] for key in STEPS[step]}}
    if step == "beta":  # a literal beta is neither of a tensor nor of a channel
        del fields["beta_per"]
    return arm("ladder", fields)


def ladder() -> Iterator[Sentence]:
    found, full, run = rungs(), arm("ladder", FULL), "results/ladder"
    names = list(found)
    gain = {name: less(found[name], found[below], CONTRASTS) for below, name in pairwise(names)}
    cost = {name: less(found["last"], without(name), CONTRASTS) for name in STEPS}
    behind = less(full, found["last"], CONTRASTS)
    literal, base = percent(without("beta")), percent(found["base"])
    results = "docs/results.md"
    yield Sentence(results, run, f"an all-binary encoder to {behind.of('points below full precision')}")
    yield Sentence(results, run, gain["beta"].of("points of test accuracy by the paper's recipe"))
    yield Sentence(results, run, cost["beta"].of("with all the other changes"))
    yield Sentence(results, run, f"distillation, {gain['distill']}")
    yield Sentence(results, run, f"the last step, {gain['last']}")
    yield Sentence(results, run, f"{CONTRASTS} contrasts")
    yield Sentence(results, run, f"where the literal 8 has {literal}")
    yield Sentence(
        "docs/results.md",
        run,
        f"AdamW {gain['AdamW']}, warm-up and clipping {gain['warm-up']}, gamma per token {gain['gamma']}",
    )
    yield Sentence(
        "docs/results.md",
        run,
        f"no second LayerNorm {gain['norm']}, flips and shifts {gain['augment']}, beta per channel {gain['channel']}",
    )
    yield Sentence(
        "docs/results.md",
        run,
        f"AdamW {cost['AdamW']}, beta per channel {cost['channel']} and the last step {cost['last']}",
    )
    yield Sentence("docs/paper.md", run, f"brings {gain['beta'].of('points')}")
    yield Sentence("docs/paper.md", run, f"({base}), and with all the other rungs it has {literal}")
    yield Sentence(
        "docs/paper.md",
        run,
        f"gains {gain['norm'].mean:+z.1f} points on the way {gain['norm'].between('+')} and {cost['norm'].mean:+z.1f} at the top {cost['norm'].between('+')}",
    )


def data() -> Iterator[Sentence]:
    def changes(study: str, full: Fields, low: Fields, arms: int) -> list[str]:
        """Over the first and the second segment, and the gap at the end; five intervals an arm."""
        family = 5 * arms
        spans = ((FEW, MIDDLE), (MIDDLE, MANY))
        found = [change(study, full, low, span, family) for span in spans]
        end = less(arm(study, {**full, "images": MANY}), arm(study, {**low, "images": MANY}), family)
        return [f"{found[0]:+}", f"{found[1]:+}", f"{end}"]

    same, grown = "data_volume", "data_volume_epochs"
    default = {**FULL, "augment": True}
    cases = {
        "binary": (same, default, {**BINARY, **PLAIN}, 3),
        "ternary": (same, default, TERNARY, 3),
        "binary, the paper's recipe": (same, default, BY_PAPER, 3),
        "binary, not augmented": (same, {**FULL, **NOT_AUGMENTED}, {**BINARY, **NOT_AUGMENTED}, 1),
        "binary, steps grow": (grown, FULL, BINARY, 2),
        "ternary, steps grow": (grown, FULL, TERNARY, 2),
    }
    found = {name: changes(*case) for name, case in cases.items()}
    results = "docs/results.md"
    first, second, end = found["binary"]
    words = f"changes by {first} points from 200 to 2,000 images and by {second} from 2,000 to 20,000"
    yield Sentence(results, f"results/{same}", words)
    first, second, _ = found["binary, not augmented"]
    yield Sentence(results, f"results/{same}", f"by {first} and {second}")
    first, second, _ = found["binary, steps grow"]
    yield Sentence(results, f"results/{grown}", f"by {first} and {second}")
    for name, (first, second, end) in found.items():
        run = cases[name][0]
        yield Sentence("docs/paper.md", f"results/{run}", f"| {name} | {first} | {second} | {end} |")


def final() -> Iterator[Sentence]:
    run = "results/final"
    full = arm("final", FULL)
    sgd = {"optimizer": "sgd"}
    arms = {
        "ternary, distilled": {**TERNARY, "distill": 0.5},
        "binary, distilled": {**BINARY, "distill": 0.5},
        "ternary": {**TERNARY, "distill": 0.0},
        "binary": {**BINARY, "distill": 0.0, "optimizer": "adamw"},
        "paper": {**BINARY, **sgd},
    }
    gap = {name: less(full, arm("final", fields), len(arms)) for name, fields in arms.items()}
    yield Sentence("docs/results.md", run, f"full precision's {percent(full)}")
    yield Sentence("docs/results.md", run, f"| ternary | {gap['ternary']} | {gap['ternary, distilled']} | |")
    yield Sentence(
        "docs/results.md", run, f"| binary | {gap['binary']} | {gap['binary, distilled']} | {gap['paper']} |"
    )


def backbones() -> Iterator[Sentence]:
    def tuned(backbone: str, weights: str) -> Seeds:
        return arm(f"backbones/{backbone}", {"weights": weights})

    bundled, family = tuned("bundled", "full"), 7
    rows = [
        ("full", "full", "full precision", "full precision"),
        ("full", "binary", "full precision", "binary"),
        ("full", "ternary", "full precision", "ternary"),
        ("binary", "binary", "binary", "binary"),
        ("ternary", "ternary", "ternary", "ternary"),
    ]
    run = "results/backbones"
    for backbone, weights, before, after in rows:
        values = tuned(backbone, weights)
        yield Sentence(
            "docs/results.md",
            run,
            f"| {before} | {after} | {percent(values)} | {less(bundled, values, family)} |",
        )
    ahead = [less(tuned(name, name), tuned("full", name), family) for name in ("binary", "ternary")]
    for document in ("docs/results.md", "docs/paper.md"):
        yield Sentence(document, run, ahead[0].of("points"))
        yield Sentence(document, run, f"{ahead[1]}")


def sensitivity() -> Iterator[Sentence]:
    def validated(weights: str, *groups: str) -> Seeds:
        """By seed, the accuracies with these layer groups at this precision and all others full."""
        rows = [r for r in records("sensitivity") if {*r["spec"]["layers"]} == {*groups}]
        return {row["seed"]: row["accuracy"] for row in rows if row["arm"] in ("full", weights)}

    groups = {group for row in records("sensitivity") for group in row["spec"]["layers"]}
    full = validated("full")
    together = 2 * (1 + 2 * len(groups))  # two precisions: all, and alone and last of each
    alone = {group: less(full, validated("binary", group), together) for group in groups}
    every = {name: less(full, validated(name, *groups), together) for name in ("binary", "ternary")}
    last = less(validated("binary", *groups - {"block0.fc1"}), validated("binary", *groups), together)
    costs = f"costs {every['binary'].of('points')}, and all ternary {every['ternary']}"
    fc1, fc2 = alone.pop("block0.fc1"), alone.pop("block0.fc2")
    attention = " and ".join(str(alone.pop(f"block{i}.attention")) for i in (0, 1))
    most = max(each.mean for each in alone.values())
    results = (
        f"From {percent(full)}, all binary {costs}",
        f"simultaneous over the {together} contrasts",
        f"its fc2 alone as binary costs {fc2.of('points')}, its fc1 {fc1}",
        f"the attention of the first and second block {attention}",
        f"all other groups, alone as binary, are estimated at {most:.1f} or less",
        f"the first block's fc1 still costs {last}",
    )
    readme = (
        f"its fc2 alone as binary costs {fc2.of('points')} of {percent(full)}, its fc1 {fc1}",
        f"an estimated {most:.1f} points or less",  # the most sensitive of them is outside these two blocks
    )
    assert most == alone["block3.attention"].mean
    for document, said in (("docs/results.md", results), ("README.md", readme)):
        for words in said:
            yield Sentence(document, "results/sensitivity", words)


def micro() -> Iterator[Sentence]:
    run = "paper_micro"
    full = arm(run, FULL)
    arms = {
        "classifier 1-bit, beta = mean\\|W\\|": arm(run, {**BINARY, "beta": "absmean"}, "head"),
        "encoder 1-bit, beta = mean\\|W\\|": arm(run, {**BINARY, "beta": "absmean"}, "block"),
        "encoder int8": arm(run, {"weights": "int8"}),
        "encoder int4": arm(run, {"weights": "int4"}),
        "classifier 1-bit, beta = 8": arm(run, {**BINARY, "beta": 8.0}, "head"),
        "encoder 1-bit, beta = 8": arm(run, {**BINARY, "beta": 8.0}, "block"),
    }
    yield Sentence("docs/paper.md", f"results/{run}", f"| full precision | {percent(full)} | |")
    for name, values in arms.items():
        yield Sentence(
            "docs/paper.md",
            f"results/{run}",
            f"| {name} | {percent(values)} | {less(values, full, len(arms)):+} |",
        )
    encoder = arms["encoder 1-bit, beta = mean\\|W\\|"]
    loss = less(full, encoder, len(arms))
    for document in ("docs/results.md", "docs/paper.md"):
        yield Sentence(document, f"results/{run}", loss.of("points"))
    yield Sentence("docs/results.md", f"results/{run}", f"full precision's {percent(full)}")
    yield Sentence(
        "docs/results.md", f"results/{run}", f"about at chance ({percent(arms['encoder 1-bit, beta = 8'])})"
    )


def recipes() -> Iterator[Sentence]:
    run, family = "recipe_confirm", 7
    usual = {name: arm(run, {"weights": name, "ema": 0.0}) for name in ("full", "binary", "ternary")}
    searched = {name: arm(run, {"weights": name, "ema": 0.99}) for name in usual}
    before = {name: less(usual["full"], usual[name], family) for name in ("binary", "ternary")}
    after = {name: less(searched["full"], searched[name], family) for name in ("binary", "ternary")}
    gain = [less(searched[name], usual[name], family) for name in ("full", "binary", "ternary")]
    yield Sentence(
        "docs/results.md",
        f"results/{run}",
        f"{before['binary'].mean:.1f} points behind full precision's {percent(usual['full'])} {before['binary'].between()} and an all-ternary one {before['ternary']}",
    )
    yield Sentence("docs/results.md", f"results/{run}", f"add {gain[0]}, {gain[1]} and {gain[2]} points")
    yield Sentence(
        "docs/results.md", f"results/{run}", f"gaps are then {after['binary']} and {after['ternary']}"
    )


LATENCIES = {  # as the documents call it, and as the result does
    "fp32": "fp32",
    "fp32, compiled": "fp32, compiled",
    "bf16": "bf16",
    "bf16, compiled": "bf16, compiled",
    "torchao's dynamic int8, compiled": "torchao int8, compiled",
    "onnxruntime's dynamic int8": "onnxruntime int8",
    "OpenVINO's int8 with static scales": "openvino int8",
    "**binary encoder, `load_packed(..., exact=False)`**": "ours, exact=False",
    "**binary encoder, `load_packed`**": "ours",
}


def sizes() -> Iterator[Sentence]:
    packed = published("packed-amd-epyc-25-17-avx2-vnni-bf16-2.14.1.json")
    ms, eight = packed["latency_ms"]["1"], packed["latency_ms"]["8"]
    mib = {key: size / 2**20 for key, size in packed["size_bytes"].items()}
    for document in ("README.md", "docs/results.md"):
        results = "benchmarks/results"
        yield Sentence(document, results, f"is {mib['ours']:.1f} MiB instead of {mib['fp32']:.1f}")
        for label, key in LATENCIES.items():
            yield Sentence(document, results, f"| {label} | {ms[key]:,.0f} | {eight[key]:,.0f} |")
        int8 = ms["ours with int8 weights, exact=False"]
        yield Sentence(document, results, f"with int8 weights an image takes {int8:.0f} ms")
        same = packed["effect"]["ours, exact=False"]["same_class"]
        yield Sentence(
            document,
            results,
            f"a trained `vit-micro-200ep` gives {1000 * same:.0f} of 1,000 images the same class",
        )
        yield Sentence(document, results, f"medians of {packed['rounds']}")
    file = "architectures-amd-epyc-25-17-avx2-vnni-bf16-2.14.1.json"
    ratios = {
        name: "{:.1f} and {:.1f}".format(*(ms[batch]["fp32"] / ms[batch]["exact=False"] for batch in "18"))
        for name, ms in published(file)["latency_ms"].items()
    }
    words = "{ViT-B/16} times as fast as fp32 for ViT-B/16, at one image and at eight; {ViT-S/16} times for ViT-S/16; and {Swin-T} times for Swin-T"
    yield Sentence("docs/results.md", f"benchmarks/results/{file}", words.format_map(ratios))
    gpu, cpu = table1("table1_h100"), table1("paper_micro")
    for document in ("README.md", "docs/results.md"):
        yield Sentence(
            document,
            "results/table1_h100",
            f"{gpu['ViT-B/16, 1-bit encoder (section 2.2)']:.0f} ms against {gpu['ViT-B/16']:.1f}",
        )
    yield Sentence(
        "docs/results.md",
        "results/paper_micro",
        f"it is {cpu['ViT-B/16, 1-bit encoder (section 2.2)']:.1f} against {cpu['ViT-B/16']:.1f} in fp32",
    )
    yield Sentence(
        "docs/paper.md",
        "results/table1_h100",
        f"VGG-16 takes {gpu['VGG-16']:.2f} ms and ResNet-18 {gpu['ResNet-18']:.2f}",
    )


def steps() -> Iterator[Sentence]:
    cpu = published("train-step-amd-epyc-2.14.1.json")["steps"]
    times = {name: row["times_full"] for name, row in cpu.items()}
    words = f"takes {times['ablate binary']:.2f} (binary) or {times['ablate ternary']:.2f} (ternary) times"
    yield Sentence("docs/results.md", "benchmarks/results", words)
    peers = f"`bitlinear` it takes {times['bitlinear (PyPI), ternary']:.2f} times, with transformers' `AutoBitLinear` {times['transformers AutoBitLinear, ternary']:.2f}"
    yield Sentence("docs/results.md", "benchmarks/results", peers)


def searches() -> Iterator[Sentence]:
    table = published("search.json")
    curves = {name: each["hypervolume"] for name, each in table["samplers"].items()}
    median, low, high = curves["additive"][24]
    file = "benchmarks/results/search.json"
    yield Sentence("docs/results.md", file, f"After 25 trials ({median:.3f}, {low:.3f} to {high:.3f})")
    median, low, high = curves["stock"][149]
    yield Sentence("docs/results.md", file, f"{median:.3f} after 150 ({low:.3f} to {high:.3f})")
    stock, ours = hypervolume("search_real/stock"), hypervolume("search_real/additive")
    seconds = published("search_real.json")["samplers"]
    spent = seconds["stock"]["seconds_of_all"][0]
    until = seconds["additive"]["seconds_to_stock"][0]
    assert int(np.argmax(ours > stock[-1])) + 1 == 2  # "with the second trial"
    file = "benchmarks/results/search_real.json"
    yield Sentence(
        "docs/results.md", file, f"has {stock[-1]:.3f} after 150 trials and {spent:,.0f} seconds of training"
    )
    yield Sentence(
        "docs/results.md",
        file,
        f"with the second trial, after {until:.0f} seconds, and has {ours[49]:.3f} after 50",
    )


def faults() -> Iterator[Sentence]:
    found = published("faults-amd-epyc.json")
    kinds = [found[name] for name in ("drivers", "workers", "raylets")]
    kills = sum(kind["kills"] for kind in kinds)
    lost, twice = (sum(kind[name] for kind in kinds) for name in ("lost", "duplicated"))
    assert not lost and not twice
    file = "benchmarks/results/faults-amd-epyc.json"
    yield Sentence("README.md", file, f"[{kills} kills]")
    workers = found["workers"]
    yield Sentence(
        "README.md",
        file,
        f"{workers['failed']} of the {workers['trials_recorded']} trials beside {workers['kills']} killed workers ended as `failed`",
    )


def dose() -> Iterator[Sentence]:
    """Four arms at two lengths from two backbones, and how two of the gaps differ between these: 20 intervals."""
    lengths, kept, together = (2, 8), {"initialise": "checkpoint"}, 20
    arms: dict[str, Fields] = {
        name: {"weights": name, **kept} for name in ("full", "int8", "ternary", "binary")
    }
    arms["binary, from random layers"] = {"weights": "binary", "initialise": "quantized layers at random"}
    by_arm: dict[str, list[Seeds]] = {}  # old and new backbone, each short and long
    for name, fields in arms.items():
        columns = [(run, n) for run in ("dose/20ep", "dose/200ep") for n in lengths]
        by_arm[name] = [arm(run, {**fields, "epochs": n}) for run, n in columns]
    full = by_arm.pop("full")
    by_seed = {
        name: [{seed: a[seed] - b[seed] for seed in a} for a, b in zip(full, low, strict=True)]
        for name, low in by_arm.items()
    }
    gaps = {name: [interval(gap.values(), together) for gap in rows] for name, rows in by_seed.items()}
    readme, results, folder = "README.md", "docs/results.md", "results/dose/200ep"
    short, long = gaps["binary"][2:]
    words = "less accurate than full precision after 64 updates, and"
    yield Sentence(readme, folder, f"a binary encoder is {short.of('points')} {words} {long} after 256")
    yield Sentence(readme, folder, "A ternary one is {} and {} points behind".format(*gaps["ternary"][2:]))
    assert all(abs(each.mean) < 0.5 for each in gaps["int8"])
    old = "{:.1f} and {:.1f} points".format(*(each.mean for each in gaps["binary"][:2]))
    yield Sentence(readme, "results/dose/20ep", f"the binary one is only {old} behind")
    yield Sentence(
        results, folder, "| full precision: accuracy | {} | {} | {} | {} |".format(*map(percent, full))
    )
    for name, row in gaps.items():
        yield Sentence(results, folder, "| {} | {} | {} | {} | {} |".format(name, *row))
    grown = {
        name: [less(new, old, together) for old, new in zip(rows[:2], rows[2:], strict=True)]
        for name, rows in by_seed.items()
    }
    binary, ternary = (" and ".join(map(str, grown[name])) for name in ("binary", "ternary"))
    yield Sentence(results, folder, f"binary weights cost {binary} points more, ternary ones {ternary}")
    shares = [percent(each).removesuffix(" %") for each in by_arm["binary"]]
    yield Sentence(
        results,
        folder,
        f"{shares[0]} and {shares[2]} % after 64 updates, and {shares[1]} and {shares[3]} % after 256",
    )
    first, last = (percent(each).removesuffix(" %") for each in by_arm["binary, from random layers"][2:])
    kept_weights = [
        less(a, b).mean
        for a, b in zip(by_arm["binary"][2:], by_arm["binary, from random layers"][2:], strict=True)
    ]
    words = f"has {first} and {last} %, {kept_weights[0]:.1f} and {kept_weights[1]:.1f} points less"
    yield Sentence(results, folder, words)
    yield Sentence(results, folder, f"full precision gains {less(full[3], full[2]).mean:.1f} points")


def static_scales() -> Iterator[Sentence]:
    """Static scales beside those of each token: five differences, whose intervals hold together."""
    run = "static_scales"
    fields: dict[str, tuple[Fields, str]] = {
        "int8": ({"weights": "int8"}, "mse"),
        "binary": ({**BINARY, "activation_bits": 8}, "mse"),
        "binary, calibrated by the maximum": ({**BINARY, "activation_bits": 8}, "max"),
        "binary, calibrated by the percentile": ({**BINARY, "activation_bits": 8}, "percentile"),
        "binary, 4-bit activations": ({**BINARY, "activation_bits": 4}, "mse"),
    }
    for name, (where, calibration) in fields.items():
        token = arm(run, {**where, "activation_scale": "token"})
        static = arm(run, {**where, "activation_scale": "static", "calibration": calibration})
        row = f"| {name} | {percent(token)} | {percent(static)} | {less(token, static, len(fields))} |"
        yield Sentence("docs/results.md", f"results/{run}", row)


def attention() -> Iterator[Sentence]:
    """8-bit attention products beside those in floating point: three differences, which hold together."""
    run = "attention_8bit"
    for name in ("full", "int8", "binary"):
        floats, integers = ({"weights": name, "attention_bits": bits} for bits in (None, 8))
        row = f"| {name} | {percent(arm(run, floats))} | {percent(arm(run, integers))} "
        row += f"| {less(arm(run, floats), arm(run, integers), 3)} |"
        counted = [
            next(iter(arm(run, where, column="bitops").values())) / 1e9 for where in (floats, integers)
        ]
        row += f" {counted[0]:.1f} G | {counted[1]:.1f} G |"
        yield Sentence("docs/results.md", f"results/{run}", row)


PARTS = (
    demo,
    dose,
    static_scales,
    attention,
    ladder,
    data,
    final,
    backbones,
    sensitivity,
    micro,
    recipes,
    sizes,
    steps,
    searches,
    faults,
)
