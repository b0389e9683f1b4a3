"""Ground: errors, configuration, hashing, atomic files, ledger, control store, stages, progress. Knows no machine learning."""
