"""Which model answers: candidates, gates, promotion, rollback, refresh."""
