"""The flows: recipes, one iteration as a DAG, policy t -> t+1, and the command line."""
