"""What measures speed: afqmc beside the loops that people write or take, and all of them beside what is possible."""
