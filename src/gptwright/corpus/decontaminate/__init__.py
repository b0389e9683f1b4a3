"""Evaluation items in training text: found, named and decided. ``evals.make``, then ``scan.run`` a docs file, then ``settle``.

The measure is the one Marin's datakit settled on: sequences of 13 words inside paragraphs, letters only, and sequences that are common
in the corpus left out of the share. Source: Brown et al. 2020 (13-grams), appendix C; Marin, decontamination version 4.
"""
