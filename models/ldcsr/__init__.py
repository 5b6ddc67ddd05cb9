"""LDCSR: the difference between an image and its enlarged LR version, as a small latent that four steps diffuse."""

from models.ldcsr.network import LDCSR, LDCSRKD

__all__ = ["LDCSR", "LDCSRKD"]
