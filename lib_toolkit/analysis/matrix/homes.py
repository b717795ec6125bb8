"""Components and blocks of tensors that no known architecture claims, told by how their names begin.

A model that is too odd, too small or too new to be recognised still has a UNet under ``model.diffusion_model.``; in a
set where no UNet was recognised, that is its UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lib_toolkit.analysis.compare.alignment import WEIGHT, Alignment, Row
from lib_toolkit.architectures import prefixes
from lib_toolkit.architectures.unet import unet_block

_HOMES = (
    (prefixes.MAIN, "unet"),
    (prefixes.VAE, "vae"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.", "text_encoder_l"),
    ("conditioner.embedders.1.", "text_encoder_g"),
)


def housed(alignment: Alignment) -> tuple[Row, ...]:
    """All rows; loose weights are in the component of their prefix where the set has no such component of its own."""
    known = {component.id for component in alignment.components}
    homes = tuple((start, home) for start, home in _HOMES if home not in known)
    loose = [row for row in alignment.rows if row.component == "other" and row.key.startswith(prefixes.MAIN)]
    return tuple(_housed(row, homes, _last_block(loose)) for row in alignment.rows)


def _housed(row: Row, homes: Sequence[tuple[str, str]], last: str) -> Row:
    if row.component != "other" or row.kind != WEIGHT:
        return row
    home = next((home for start, home in homes if row.key.startswith(start)), None)
    if home is None:
        return row
    if home != "unet":
        return replace(row, component=home, merge_block="BASE")
    block = unet_block(row.key[len(prefixes.MAIN) :])
    # As merge-block-weighted has it: embeddings go with the first block, the output layers with the last.
    return replace(row, component=home, merge_block={"TIME": "IN00", "LABEL": "IN00", "OUTC": last}.get(block, block))


def _last_block(rows: Sequence[Row]) -> str:
    """The last output block of the names, that of SD1 where there is none."""
    blocks = {unet_block(row.key[len(prefixes.MAIN) :]) for row in rows}
    return max((block for block in blocks if block[:3] == "OUT" and block != "OUTC"), default="OUT11")
