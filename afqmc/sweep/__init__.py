"""A sweep's directory: what is planned, and what became of it. Who starts its jobs is Hydra's business."""
