"""What the law and the licences ask to be written down, compiled from the ledger."""
