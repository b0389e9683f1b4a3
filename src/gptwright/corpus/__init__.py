"""Any texts in, documents with evidence out: sources, extraction, signals, privacy, decisions, and views of the result."""
