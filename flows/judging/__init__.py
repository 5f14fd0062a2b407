"""Who judges in a run, and what the judges are asked."""
