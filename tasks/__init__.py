"""One module per step of an iteration's DAG: prompts, sampling, judging, acceptance, pairing, training, evaluation."""

import os

# Large tensors in huge pages, on Linux: training takes a twentieth less time. It must stand before torch is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
