"""One module per step of an iteration's DAG: prompts, sampling, judging, acceptance, pairing,
training, evaluation.
"""

import os

# Matrix products of a GPU that are the same to the bit again. It must stand before torch is
# imported.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
