"""The checks that ``afqmc.doctor`` makes of data, model and machine."""
