"""Latent Modulated Functions for arbitrary-scale SR: encoders x decoders, by name."""

from __future__ import annotations

from models.lmf.encoders import EDSREncoder, RDNEncoder
from models.lmf.latent import Encoder
from models.lmf.lm_ciaosr import CiaoSRDecoder
from models.lmf.lm_hybrid import HybridDecoder
from models.lmf.lm_liif import LIIFDecoder
from models.lmf.lm_lte import LTEDecoder
from models.lmf.network import LMF
from models.lmf.swinir_encoder import SwinIREncoder
from utils.errors import UserError

ENCODERS = ("edsr_baseline", "rdn", "swinir")


def build_encoder(name: str, n_blocks: int, n_feats: int) -> Encoder:
    """Encoder by name.

    Args:
        name: edsr_baseline, rdn or swinir.
        n_blocks: residual blocks of EDSR, dense blocks of RDN; SwinIR always has its six groups: leave it at 16.
        n_feats: feature maps.

    Raises:
        ValueError: another name, or another n_blocks for SwinIR.
    """
    if name == "edsr_baseline":
        return EDSREncoder(n_blocks, n_feats)
    if name == "rdn":
        return RDNEncoder(n_blocks, n_feats)
    if name == "swinir":
        if n_blocks != 16:
            raise UserError(f"encoder swinir: n_blocks is {n_blocks}, but its depth is fixed; leave n_blocks out")
        return SwinIREncoder(n_feats=n_feats)
    raise UserError(f"encoder {name!r} is unknown; use one of {', '.join(ENCODERS)}")


def lm_liif(scale: float, encoder: str = "edsr_baseline", n_blocks: int = 16, n_feats: int = 64) -> LMF:
    """LM-LIIF; see `build_encoder` for the arguments. Its render MLP is deeper behind SwinIR, as in the paper."""
    depth = 8 if encoder == "swinir" else 6
    return LMF(build_encoder(encoder, n_blocks, n_feats), LIIFDecoder(n_feats, depth), scale)


def lm_lte(scale: float, encoder: str = "edsr_baseline", n_blocks: int = 16, n_feats: int = 64) -> LMF:
    """LM-LTE; see `build_encoder` for the arguments."""
    return LMF(build_encoder(encoder, n_blocks, n_feats), LTEDecoder(n_feats), scale)


def lm_ciaosr(
    scale: float,
    encoder: str = "edsr_baseline",
    n_blocks: int = 16,
    n_feats: int = 64,
    weight_compat: bool = False,
) -> LMF:
    """LM-CiaoSR; see `build_encoder` for the first arguments, CiaoSRDecoder for `weight_compat`."""
    decoder = CiaoSRDecoder(n_feats, weight_compat=weight_compat)
    return LMF(build_encoder(encoder, n_blocks, n_feats), decoder, scale)


def lm_hybrid(scale: float, encoder: str = "edsr_baseline", n_blocks: int = 16, n_feats: int = 64) -> LMF:
    """LM-LTE's renderer behind CiaoSR's attention; see `build_encoder` for the arguments."""
    return LMF(build_encoder(encoder, n_blocks, n_feats), HybridDecoder(n_feats), scale)
