"""The smallest model of every timm family, made small, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import timm
from timm.models import convmixer, pnasnet
from torch import nn

# Smallest model by parameters, the size to compare at (it is branched at the size it is made for)
# and arguments that make it smaller; fastest first.
FAMILIES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "naflexvit": (
        "naflexvit_base_patch16_parfac_gap",
        64,
        {"depth": 2, "embed_dim": 96, "num_heads": 3},
    ),
    "byobnet": ("test_byobnet", 64, {}),
    "efficientnet": ("test_efficientnet", 64, {}),
    "vision_transformer_sam": (
        "samvit_base_patch16_224",
        64,
        {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3, "global_attn_indexes": [1]},
    ),
    "mambaout": ("test_mambaout", 64, {}),
    "vision_transformer": ("test_vit", 64, {}),
    "mobilenetv3": ("lcnet_035", 64, {}),
    "nfnet": ("test_nfnet", 64, {}),
    "convnext": ("test_convnext", 64, {}),
    "fasternet": ("fasternet_t0", 64, {}),
    "starnet": ("starnet_s050", 64, {}),
    "beit": (
        "beit_base_patch16_224",
        64,
        {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3},
    ),
    "maxxvit": ("test_coatnet", 64, {"img_size": 64}),
    "resnet": ("test_resnet", 64, {}),
    "efficientvit_msra": ("efficientvit_m0", 64, {}),
    "cpubone": ("cpubone_nano", 64, {}),
    "vision_transformer_relpos": ("test_vit_relpos", 64, {"img_size": 64}),
    "cspnet": ("cs3darknet_focus_s", 64, {}),
    "regnet": ("regnetx_002", 64, {}),
    "dla": ("dla46x_c", 64, {}),
    "vovnet": ("ese_vovnet19b_slim_dw", 64, {}),
    "cspnext": ("cspnext_tiny", 64, {}),
    "efficientvit_mit": ("efficientvit_b0", 64, {}),
    "mobilevit": ("mobilevit_xxs", 64, {}),
    "pit": ("pit_ti_224", 64, {"img_size": 64}),
    "convit": ("convit_tiny", 64, {"img_size": 64}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 64, {"img_size": 64}),
    "deit": ("deit_tiny_patch16_224", 64, {"img_size": 64}),
    "shvit": ("shvit_s1", 64, {}),
    "swiftformer": ("swiftformer_xs", 64, {}),
    "ghostnet": ("ghostnet_050", 64, {}),
    "efficientvim": ("efficientvim_m1", 64, {}),
    "hgnet": ("hgnetv2_b0", 64, {}),
    "levit": ("levit_128s", 64, {"img_size": 64}),
    "repghost": ("repghostnet_050", 64, {}),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 64, {}),
    "metaformer": ("poolformerv2_s12", 64, {}),
    "mlp_mixer": ("gmlp_ti16_224", 64, {"img_size": 64}),
    "hardcorenas": ("hardcorenas_b", 64, {}),
    "visformer": ("visformer_tiny", 64, {"img_size": 64}),
    "pvt_v2": ("pvt_v2_b0", 64, {}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "senet": ("legacy_seresnet18", 64, {}),
    "cait": ("cait_xxs24_224", 64, {"img_size": 64}),
    "sknet": ("skresnet18", 64, {}),
    "byoanet": ("lambda_resnet26t", 64, {}),
    "fastvit": ("fastvit_t8", 64, {}),
    "efficientformer_v2": ("efficientformerv2_s0", 64, {"img_size": 64}),
    "nest": ("nest_tiny", 64, {"img_size": 64}),
    "lcnetv2": ("lcnetv2_small", 64, {}),
    "dpn": ("dpn48b", 64, {}),
    "densenet": ("densenet121", 64, {}),
    "inception_next": ("inception_next_atto", 64, {}),
    "lowformer": ("lowformer_b0", 64, {}),
    "csatv2": ("csatv2", 64, {}),
    "repvit": ("repvit_m1", 64, {}),
    "twins": ("twins_svt_small", 64, {}),
    "gcvit": ("gcvit_xxtiny", 64, {"img_size": 64}),
    "resnetv2": ("resnetv2_18", 64, {}),
    "resnest": ("resnest14d", 64, {}),
    "hiera": ("hiera_tiny_224", 64, {"img_size": 64}),
    "tiny_vit": ("tiny_vit_5m_224", 64, {}),
    "iformer": ("iformer_t", 64, {}),
    "volo": ("volo_d1_224", 64, {"img_size": 64}),
    "mvitv2": ("mvitv2_tiny", 64, {}),
    "rexnet": ("rexnet_100", 64, {}),
    "sequencer": ("sequencer2d_s", 64, {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 64, {"img_size": 64}),
    "vitamin": ("vitamin_small_224", 64, {"img_size": 64}),
    "tnt": ("tnt_s_legacy_patch16_224", 64, {"img_size": 64}),
    "coat": ("coat_tiny", 64, {"img_size": 64}),
    "tresnet": ("tresnet_m", 64, {}),
    "res2net": ("res2next50", 64, {}),
    "crossvit": ("crossvit_tiny_240", 64, {}),
    "focalnet": ("focalnet_tiny_srf", 64, {}),
    "nextvit": ("nextvit_small", 64, {}),
    "selecsls": ("selecsls42", 64, {}),
    "davit": ("davit_tiny", 64, {}),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 64, {"img_size": 64}),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 64, {"img_size": 64}),
    "xcit": ("xcit_nano_12_p8_224", 64, {}),
    "rdnet": ("rdnet_tiny", 64, {}),
    "inception_v3": ("inception_v3", 96, {}),
    "hieradet_sam2": ("sam2_hiera_tiny", 64, {}),
    "convmixer": ("convmixer_768_32", 28, {}),
    "efficientformer": (
        "efficientformer_l1",
        224,
        {"depths": (1, 1, 1, 2), "embed_dims": (16, 24, 32, 48)},
    ),
    "xception": ("legacy_xception", 40, {}),
    "qwen3_vit": ("qwen3_vit_88m", 64, {"depth": 2, "embed_dim": 96, "num_heads": 4}),
    "xception_aligned": (
        "xception41p",
        64,
        {
            "block_cfg": [
                {"in_chs": 64, "out_chs": 96, "stride": 2},
                {"in_chs": 96, "out_chs": 96, "stride": 1},
                {"in_chs": 96, "out_chs": (96, 128, 160), "no_skip": True, "stride": 1},
            ]
        },
    ),
    "deepseek_vit": ("deepseek_vit_412m", 84, {"depth": 2, "embed_dim": 96, "num_heads": 4}),
    "inception_v4": ("inception_v4", 75, {}),
    "inception_resnet_v2": ("inception_resnet_v2", 75, {}),
    "gemma4_vit": (
        "gemma4_vit_167m",
        64,
        {"depth": 1, "embed_dim": 96, "num_heads": 3, "head_dim": 32, "intermediate_size": 128},
    ),
    "mobilenetv5": ("mobilenetv5_base", 64, {"channel_multiplier": 0.25}),
    "vgg": ("vgg11", 64, {"mlp_ratio": 0.1}),
    "nasnet": ("nasnetalarge", 64, {"num_features": 288, "stem_size": 16}),
    "pnasnet": ("pnasnet5large", 64, {}),
}
SINGLE_PRECISION = {
    "deepseek_vit": 1e-6,  # parts of its forward pass are float32
    "gemma4_vit": 1e-4,  # its rotary embedding does not run in float64
    "naflexvit": 1e-6,  # interpolates position embeddings in float32
}


def narrow_pnasnet(name: str, **arguments: Any) -> nn.Module:
    """Make a PNASNet with a sixth of its channels, for which timm has no argument."""

    def narrow(cell: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        return lambda **kwargs: cell(
            **{key: value // 6 if "_chs_" in key else value for key, value in kwargs.items()}
        )

    with mock.patch.multiple(
        pnasnet,
        Cell=narrow(pnasnet.Cell),
        CellStem0=narrow(pnasnet.CellStem0),
        ConvNormAct=lambda first, then, **kwargs: stem(first, then // 6, **kwargs),
    ):
        model: nn.Module = timm.create_model(name, **arguments)
    return model


def narrow_convmixer(name: str, **arguments: Any) -> nn.Module:
    """Make a ConvMixer of a width and depth that its entry points do not let one choose."""
    model: nn.Module = convmixer.ConvMixer(
        dim=48, depth=4, kernel_size=7, patch_size=7, **arguments
    )
    return model


stem = pnasnet.ConvNormAct
MAKERS = {"convmixer": narrow_convmixer, "pnasnet": narrow_pnasnet}


def make_family(family: str, num_classes: int = 0) -> nn.Module:
    """Make the model of a family."""
    name, _, arguments = FAMILIES[family]
    model: nn.Module = MAKERS.get(family, timm.create_model)(
        name, num_classes=num_classes, **arguments
    )
    return model
