"""The loop: it measures, and never formats, names files or knows the tracker."""
