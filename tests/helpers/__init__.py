"""What several test modules use: toy runs, lakes, servers, a browser."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the repository."""
