"""Reports: what came of a run (report), what differs between two (compare), and where it all came
from (lineage), read from the lake.
"""
