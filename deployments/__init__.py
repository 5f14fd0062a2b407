"""What a server, workers and schedules are described by: prefect.yaml, compose.yaml, Dockerfile,
kubernetes/.
"""
