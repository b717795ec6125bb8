"""What tells the hosts apart, as a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flavour:
    """One host. ``named``: callbacks take ``name=``. ``path_stays``: extensions' roots stay on ``sys.path``.
    ``forge``: checkpoint dropdown and models as Forge has them. ``lists``: folders come as lists, without
    ``ckpt_dir``. ``text_encoders``: there is a folder for them. ``models_flag``: the flag of the models folder.
    ``downloads``: an empty checkpoint folder makes the host download a model."""

    name: str
    named: bool
    path_stays: bool
    forge: bool
    lists: bool
    text_encoders: bool
    models_flag: str
    downloads: bool


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("a1111", True, False, False, False, False, "--models-dir", True),
        Flavour("forge", True, True, True, False, True, "--models-dir", False),
        Flavour("classic", False, True, False, False, False, "--model-ref", True),
        Flavour("neo", True, True, True, True, True, "--model-ref", False),
    )
}
