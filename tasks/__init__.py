"""One module per step of an iteration's DAG: prompts, sampling, judging, acceptance, pairing, training, evaluation."""
