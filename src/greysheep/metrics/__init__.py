"""Ranking metrics per user, and the statistics that regroup and compare them."""
