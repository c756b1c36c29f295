"""Local models around anchor users or a user's own neighbours: LOCA, LFT, EnLFT."""
