"""Two or more models side by side: what is where, how far apart the values are, and what that means in words.

``alignment`` says which tensors are the same thing, ``sweep`` reads each of them once and measures pairs
(``reading`` and ``measures`` are its numbers), ``results`` gathers what was found by component, block and kind of
layer, ``verdicts`` says it in sentences; ``pairs`` does all of that for two models or a list of pairs.
"""
