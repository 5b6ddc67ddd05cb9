"""Weights of the authors' repository: their names, what they carry besides, and the values that their code computes."""

from __future__ import annotations

import pytest
import torch

from loading.lmf_official import architecture_of, is_official, official_network


def edsr_names(n_blocks=16):
    shapes = {"head.0": (64, 3, 3, 3), f"body.{n_blocks}": (64, 64, 3, 3)}
    shapes |= {f"body.{i}.body.{j}": (64, 64, 3, 3) for i in range(n_blocks) for j in (0, 2)}
    return layers(shapes)


def rdn_names():
    shapes = {"SFENet1": (64, 3, 3, 3), "SFENet2": (64, 64, 3, 3), "GFF.0": (64, 1024, 1, 1), "GFF.1": (64, 64, 3, 3)}
    for i in range(16):
        shapes |= {f"RDBs.{i}.convs.{j}.conv.0": (64, 64 * (j + 1), 3, 3) for j in range(8)}
        shapes[f"RDBs.{i}.LFF"] = (64, 64 * 9, 1, 1)
    return layers(shapes)


def swinir_names():
    shapes, others = {"conv_first": (180, 3, 3, 3), "conv_after_body": (180, 180, 3, 3)}, {}
    shapes |= {"conv_before_upsample.0": (64, 180, 3, 3), "patch_embed.norm": (180,), "norm": (180,)}
    for i in range(6):
        shapes[f"layers.{i}.conv"] = (180, 180, 3, 3)
        for j in range(6):
            block = f"layers.{i}.residual_group.blocks.{j}"
            shapes |= {f"{block}.norm1": (180,), f"{block}.norm2": (180,)}
            shapes |= {f"{block}.attn.qkv": (540, 180), f"{block}.attn.proj": (180, 180)}
            shapes |= {f"{block}.mlp.fc1": (360, 180), f"{block}.mlp.fc2": (180, 360)}
            others[f"{block}.attn.relative_position_bias_table"] = (225, 6)
            others[f"{block}.attn.relative_position_index"] = (64, 64)
            if j % 2:
                others[f"{block}.attn_mask"] = (36, 64, 64)
    return layers(shapes) | others


def layers(shapes):
    """Weight and bias of each layer."""
    return {f"{k}.weight": shape for k, shape in shapes.items()} | {
        f"{k}.bias": shape[:1] for k, shape in shapes.items()
    }


def render_names(prefix, inputs, depth):
    shapes = {f"{prefix}.layers.{2 * k}": (16, 16 if k else inputs) for k in range(depth)}
    return layers(shapes | {f"{prefix}.layers.{2 * depth}": (3, 16)})


def liif_names(depth=6):
    outputs = 32 * depth + 16
    shapes = {"hypernet.layers.0": (208, 578), "hypernet.layers.2": (outputs, 208)}
    return layers(shapes) | render_names("imnet", 20, depth)


def lte_names():
    shapes = {"coef": (128, 64, 3, 3), "freq": (128, 64, 3, 3)}
    shapes |= {"hypernet.layers.0": (288, 128), "hypernet.layers.2": (288, 288)}
    return layers(shapes) | {"phase.weight": (64, 2), "imphase.weight": (8, 2)} | render_names("imnet", 16, 8)


def ciaosr_names():
    shapes = {"prenet_q.layers.0": (256, 576), "prenet_q.layers.2": (256, 256)}
    shapes |= {"imnet_k.layers.0": (256, 260), "imnet_k.layers.2": (256, 256)}
    shapes |= {"imnet_v.layers.0": (256, 324), "imnet_v.layers.2": (320, 256)}
    shapes |= {"hypernet_q.layers.0": (288, 320), "hypernet_q.layers.2": (288, 288), "cs_attn.down": (64, 64, 3, 3)}
    maps = {"match_1": 32, "match_2": 32, "assembly": 64}
    shapes |= {f"cs_attn.conv_{name}.0": (n, 64, 1, 1) for name, n in maps.items()}
    activations = {f"cs_attn.conv_{name}.1.weight": (1,) for name in maps}
    return layers(shapes) | activations | render_names("imnet_q", 34, 8)


DECODERS = {"lmliif": liif_names, "lmlte": lte_names, "lmciaosr": ciaosr_names}
MEAN_SHIFTS = {"encoder.sub_mean.weight": (3, 3, 1, 1), "encoder.sub_mean.bias": (3,),
               "encoder.add_mean.weight": (3, 3, 1, 1), "encoder.add_mean.bias": (3,)}  # fmt: skip


def wave_weights(shapes):
    """Weights that can be made again anywhere: a sine, scaled by the fan-in."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        count = int(torch.tensor(shape).prod())
        wave = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + number).reshape(shape)
        fan_in = max(1, count // shape[0])
        weights[name] = (wave * (2 / fan_in) ** 0.5 if len(shape) > 1 else 0.1 * wave).float()
    return weights


def checkpoint(model, encoder=None):
    encoder = edsr_names(1) if encoder is None else encoder
    return wave_weights({f"encoder.{k}": v for k, v in encoder.items()} | DECODERS[model]())


@pytest.mark.parametrize(
    ("model", "encoder", "expected"),
    [
        ("lmliif", edsr_names, ("lm_liif", "edsr_baseline")),
        ("lmlte", edsr_names, ("lm_lte", "edsr_baseline")),
        ("lmciaosr", edsr_names, ("lm_ciaosr", "edsr_baseline")),
        ("lmlte", rdn_names, ("lm_lte", "rdn")),
        ("lmciaosr", swinir_names, ("lm_ciaosr", "swinir")),
    ],
)
def test_every_tensor_of_the_authors_finds_its_place(model, encoder, expected):
    tensors = checkpoint(model, encoder())
    network = official_network(tensors, 2.5)
    assert (network.spec["name"], network.spec["args"]["encoder"]) == expected
    assert network.scale == 2.5 and not network.training
    unused = [k for k in tensors if k.endswith(("relative_position_index", "attn_mask"))]
    own = network.state_dict().values()
    assert len(own) == len(tensors) - len(unused)
    sums = sorted(v.double().sum().item() for k, v in tensors.items() if k not in unused)
    assert sums == sorted(v.double().sum().item() for v in own)


def test_lm_liif_behind_swinir_is_deeper():
    tensors = wave_weights({f"encoder.{k}": v for k, v in swinir_names().items()} | liif_names(8))
    assert official_network(tensors, 4).decoder.depth == 8


def test_constants_are_accepted():
    tensors = checkpoint("lmciaosr")
    extra = {k: torch.zeros(s) for k, s in MEAN_SHIFTS.items()} | {"cs_attn.escape_NaN": torch.tensor([1e-4])}
    lr = torch.rand(1, 3, 6, 6)
    assert torch.equal(official_network(tensors | extra, 2)(lr), official_network(tensors, 2)(lr))


# Computed by the authors' code (commit 17e356e) with `wave_weights` and the same LR image; LM-CiaoSR in training mode.
REFERENCE = {
    "lmliif": [[0.36807, 0.27255, 0.49255], [0.31162, 0.23133, 0.53226],
               [0.36726, 0.27355, 0.49376], [0.33841, 0.32506, 0.54353]],
    "lmlte": [[0.69904, 0.49321, 0.56663], [0.64417, -0.18209, -0.08476],
              [0.58329, 0.15239, 0.34265], [0.92888, 0.61445, 0.443]],
    "lmciaosr": [[0.52729, -0.60674, -0.02774], [0.54079, -0.64315, -0.05603],
                 [0.50439, -0.59782, -0.00123], [0.51314, -0.60585, -0.01324]],
}  # fmt: skip
MEANS = {"lmliif": 0.372747, "lmlte": 0.33574, "lmciaosr": -0.059273}


@pytest.mark.parametrize("model", DECODERS)
def test_images_are_those_of_the_authors_code(model):
    shapes = {f"encoder.{k}": v for k, v in edsr_names(1).items()} | DECODERS[model]()
    network = official_network(wave_weights(shapes), 2)
    lr = (0.5 + 0.5 * torch.sin(0.3 * torch.arange(3 * 9 * 12, dtype=torch.float64))).reshape(1, 3, 9, 12).float()
    with torch.no_grad():
        sr = network(lr, (22, 31))[0]
    for (row, column), expected in zip(((0, 0), (5, 17), (12, 3), (21, 30)), REFERENCE[model], strict=True):
        assert sr[:, row, column].tolist() == pytest.approx(expected, abs=2e-5)
    assert sr.double().mean().item() == pytest.approx(MEANS[model], abs=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w | {"hypernet.layers.4.weight": torch.zeros(1)},
            "1 tensors .*: hypernet.layers.4.weight is unknown",
        ),
        (lambda w: {k: v for k, v in w.items() if k != "freq.bias"}, "decoder.freq.bias is missing"),
        (lambda w: w | {"coef.bias": torch.zeros(64)}, r"coef.bias is \(64,\), not \(128,\)"),
        (lambda w: {k: v for k, v in w.items() if "encoder" not in k}, "encoder of these LMF weights is none of"),
        (lambda w: {"conv.weight": torch.zeros(1)}, "not the weights of LM-LIIF, LM-LTE or LM-CiaoSR"),
    ],
)
def test_weights_that_do_not_fit_are_explained(change, message):
    with pytest.raises(ValueError, match=message):
        official_network(change(checkpoint("lmlte")), 4)


def test_official_weights_are_recognised():
    weights = checkpoint("lmlte")
    assert is_official(weights) and architecture_of(weights)[1]["n_blocks"] == 1
    assert is_official(checkpoint("lmciaosr")) and is_official({}, "lmliif")
    assert not is_official({"conv.weight": torch.zeros(1)}) and not is_official({}) and not is_official({}, "liif")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"local_ensemble": False}, "local_ensemble is False; only networks with True"),
        ({"multi_scale": [2, 3]}, r"multi_scale is \[2, 3\]"),
        ({"imnet_spec": {"args": {"out_dim": torch.tensor(3)}}}, "args.imnet_spec.args.out_dim is a Tensor"),
        ({"milestones": [1, {2}]}, r"args.milestones.1 is a set"),
    ],
)
def test_arguments_that_change_the_computation_unseen_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        official_network(checkpoint("lmlte"), 4, args)
