"""Any texts in, documents with evidence out."""
