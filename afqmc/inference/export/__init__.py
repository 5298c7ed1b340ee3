"""Export the best weights of a run for other libraries and engines, and check the result on the dev split."""
