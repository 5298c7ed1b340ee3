"""The checks of the doctor: data, model and machine."""
