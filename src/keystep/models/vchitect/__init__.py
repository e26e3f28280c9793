"""Vchitect-2.0 (arXiv 2501.08453): transformer, pipeline from text to video, spec."""
