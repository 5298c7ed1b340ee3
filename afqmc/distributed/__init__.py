"""Several processes: ranks, the rendezvous between them, and collective operations."""
