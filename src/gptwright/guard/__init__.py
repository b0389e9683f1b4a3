"""What may go in and out: limits, hidden characters, forged template markers, personal data."""
