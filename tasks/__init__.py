"""One module per step of an iteration's DAG: prompts, sampling, judging, acceptance, pairing, training, evaluation."""

import os

# Both must stand before torch is imported. Matrix products of a GPU that are the same to the bit again:
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Large tensors in huge pages, on Linux: training takes a twentieth less time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
