"""Objectives: the training loss, in a form that stays exact with accumulation and several processes."""
