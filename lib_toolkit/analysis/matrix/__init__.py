"""A set of models at once: how far each is from every other, which parts are the same, which models are merges.

``sources`` opens the files, ``tasks`` says what meets what, ``sweep`` reads every tensor once and measures all pairs
of it (``kernel`` has its numbers, ``gaps`` and ``gains`` what NaN does to them, ``sums`` adds them up, ``state`` keeps
them over an interruption), ``results``
turns sums into matrices, ``merges`` (with ``hull``) finds models that others explain, ``graphs`` and ``scaling``
place models in pictures; ``whole`` does all of that.
"""
